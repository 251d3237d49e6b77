"""Tiny models of every sort with five clips each, ready for experiments that take a `ClipReader`."""

from pathlib import Path

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip
from interp_core.experiments.clips import ClipReader
from interp_core.models.load import open_model
from interp_core.trace.store import CleanStore
from tests.families.subjects import CASES, picture, subject_of, tone, with_probe
from tests.tiny import save_qwen2_audio

QWEN = "qwen2-audio"


class Sounds(CleanStore):
    """Clips by name, without files."""

    def __init__(self, subject, sounds):
        super().__init__(subject, ByteCache(1 << 28))
        self._sounds = sounds

    def samples(self, clip):
        return self._sounds[clip.clip_id]


class Recordings(ClipReader):
    """A reader of such clips, and of pictures by name."""

    def __init__(self, subject, prompt, sounds):
        super().__init__(Sounds(subject, sounds), prompt)

    def samples(self, clip):
        return self.store.samples(clip)


def open_scene(name: str, folder: Path):
    """(reader, clips) of a case of `CASES` by its name or the start of it, or of a tiny Qwen2-Audio."""
    prompt = ""
    if name == QWEN:
        subject = open_model(str(save_qwen2_audio(folder, n_layers=4)), device="cpu")
        prompt = "What is the emotion of this audio?"
    else:
        case = CASES.get(name) or next(case for key, case in CASES.items() if key.startswith(name))
        subject = subject_of(case, case.write(folder))
        if case.reads == "probe":
            subject = with_probe(subject, tone(0.5, 300, subject.sample_rate))
    if name == "resnet":
        sounds = {f"c{i}": picture(1, i) for i in range(5)}
    else:
        seconds = (0.15, 0.2, 0.15, 0.22, 0.2) if name.startswith("spoof") else (0.5, 0.6, 0.5, 0.7, 0.6)
        sounds = {f"c{i}": tone(s, 200 + 150 * i, subject.sample_rate) for i, s in enumerate(seconds)}
    return Recordings(subject, prompt, sounds), [Clip(name, Path(name), {}, name) for name in sounds]
