"""What is Whisper's own among models that hear and write: clips filled up to 30 s, and prompts that name a language."""

from collections.abc import Sequence
from typing import ClassVar

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from interp_core.errors import InterpError
from interp_core.models.encoders.listener import Listener, ListenerDecoder, ProbedEncoder
from interp_core.models.encoders.subject import Encoder, WhisperClassifier
from interp_core.models.labels import LabelTokens

START = "<|startoftranscript|>"


class ProbedWhisper(ProbedEncoder, WhisperClassifier):
    """See both."""


class Whisper(Listener, WhisperClassifier):
    """The encoder's blocks of a WhisperForConditionalGeneration."""

    probed: ClassVar[type[Encoder]] = ProbedWhisper

    @property
    def by_part(self) -> dict[str, type[Listener]]:
        return {"encoder": Whisper, "decoder": WhisperDecoder}

    @property
    def start(self) -> str:
        return START

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """Asks for the first word of an English transcript."""
        many = self.tokenizer.convert_tokens_to_ids("<|en|>") not in (None, self.tokenizer.unk_token_id)
        spoken = "<|en|><|transcribe|>" if many and self.multilingual else ""
        return (f"{START}{spoken}<|notimestamps|>",)

    def prompts_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The bare start where every label is a language: there the model says which one it hears."""
        return (START,) if labels and all(map(self._language, labels)) else self.default_prompts

    def written(self, label: str, prompt: str) -> str:
        """A language right behind the start, a word with its space: with one every transcript starts."""
        language = self._language(label) if prompt.strip() == START else None
        return language or (label if label.startswith((" ", "<|")) else f" {label}")

    def _language(self, label: str) -> str | None:
        """The token of a language, given as its code (es), name (Spanish) or token itself; None of anything else."""
        said = label.strip().lower().removeprefix("<|").removesuffix("|>")
        token = f"<|{TO_LANGUAGE_CODE.get(said, said)}|>"
        known = token in self.tokenizer.get_vocab() and token.strip("<|>") in LANGUAGES
        return token if known and self.multilingual else None

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        try:
            return super().labels(labels, prompt, several_tokens=several_tokens)
        except InterpError as error:
            if not (notes := self.label_notes(labels, prompt)):
                raise
            raise InterpError(f"{str(error).rstrip('.')}; there are {' '.join(notes)}.") from error

    def label_notes(self, labels: Sequence[str], prompt: str) -> tuple[str, ...]:
        names = [label.strip().lower() for label in labels]
        without = [label for label in labels if self._language(label) is None]
        if not without or not all(name in LANGUAGES or name in TO_LANGUAGE_CODE for name in names):
            return ()
        read = ", ".join(without if prompt.strip() == START else labels)
        lacks = f"its tokenizer has no language token for {', '.join(without)}"
        return (
            f"labels that are read as first words of a transcript and not as languages: {read}, because "
            f"{lacks if self.multilingual else 'it is made for English alone'}; a multilingual Whisper with its own "
            "tokenizer says which language it hears",
        )

    @property
    def multilingual(self) -> bool:
        made = getattr(self.hf, "generation_config", None)
        return bool(getattr(made, "is_multilingual", True))


class WhisperDecoder(ListenerDecoder, Whisper):
    """The decoder's blocks."""
