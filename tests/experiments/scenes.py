"""Tiny models of every sort with five clips each, ready for experiments that take a `ClipReader`."""

from pathlib import Path
from types import SimpleNamespace

from interp_core.data.clips import Clip
from interp_core.experiments.clips import ClipReader
from interp_core.models.load import open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from tests.families.subjects import CASES, picture, subject_of, tone, with_probe
from tests.tiny import save_qwen2_audio

QWEN = "qwen2-audio"


class Recordings(ClipReader):
    """Clips by name, without files."""

    def __init__(self, subject, prompt, sounds):
        store = SimpleNamespace(subject=subject, prompted=self._prompted, run=self._run)
        super().__init__(store, prompt)
        self._sounds = sounds

    def _prompted(self, clip, prompt):
        return prompt_clip(self.subject, self._sounds[clip.clip_id], prompt, clip.clip_id)

    def _run(self, clip, prompt):
        return clean_runs(self.subject, [self._prompted(clip, prompt)])[0]

    def samples(self, clip):
        return self._sounds[clip.clip_id]


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
