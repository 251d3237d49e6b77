"""What every countermeasure has as a subject: two logits, and which of them stands for bona fide."""

from dataclasses import dataclass

from interp_core.models.encoders.subject import Encoder


@dataclass(eq=False)
class Detector(Encoder):
    """Tells bona fide from spoofed speech; `bonafide_index` is 0 or 1."""

    @property
    def answers(self) -> tuple[str, ...]:
        if self.probe is not None:
            return self.probe.classes
        return ("bonafide", "spoof") if self.bonafide_index == 0 else ("spoof", "bonafide")

    def words_refusal(self) -> str | None:
        return "scores a recording as bona fide or spoofed and writes no text"
