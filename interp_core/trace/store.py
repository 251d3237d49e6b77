"""Clean runs by content: a clip that sits in twenty pairs is decoded and run once."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from torch import Tensor

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip, ClipLimits
from interp_core.data.edits import read_clip
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.sites import Kind
from interp_core.trace.ahead import Ahead
from interp_core.trace.clean import CleanRun, clean_run, clean_runs, clip_inputs, in_one_pass, prompt_clip

T = TypeVar("T")


class CleanStore:
    """Decodes clips and keeps their clean runs in a byte-bounded cache.

    A run's key names the weights, dtype, device, attention kernel, clip content, prompt and kinds of site. Each clip
    is run by itself: in a batch its last digits would depend on which others were still missing.
    """

    def __init__(self, subject: Subject, cache: ByteCache, limits: ClipLimits | None = None) -> None:
        self.subject = subject
        self._cache = cache
        self._ahead: Ahead[dict[str, Tensor]] = Ahead()
        self.limits = limits or ClipLimits()
        if subject.max_seconds < self.limits.max_seconds:
            advice = f"cut it, because {subject.name} hears no more"
            self.limits = ClipLimits(self.limits.min_seconds, subject.max_seconds, advice)

    def samples(self, clip: Clip) -> np.ndarray:
        """Return the clip [n_samples] float32 mono at the subject's rate."""
        key = ("samples", clip.digest, self.subject.sample_rate)
        return self._cache.get_or_make(key, lambda: self._read(clip))

    def _read(self, clip: Clip) -> np.ndarray:
        return read_clip(clip, self.subject.sample_rate, self.limits)

    def ahead(self, asked: Iterable[tuple[Clip, str]]) -> None:
        """Say which clips are asked for next, each with its prompt, in their order: they are decoded, and the library
        model's own arguments made of them, beside the model's work."""
        missing = [(clip, prompt) for clip, prompt in asked if not self._cache.holds(self._stem_key(clip, prompt))]
        self._ahead.want({(clip.digest, prompt): partial(self._inputs, clip, prompt) for clip, prompt in missing})

    def inputs(self, clip: Clip, prompt: str) -> dict[str, Tensor]:
        """The library model's own arguments for one clip, made now or ahead; they are not kept."""
        return self._ahead.take((clip.digest, prompt)) or self._inputs(clip, prompt)

    def _inputs(self, clip: Clip, prompt: str) -> dict[str, Tensor]:
        return clip_inputs(self.subject, self.samples(clip), prompt, clip.clip_id)

    def prompted(self, clip: Clip, prompt: str) -> Prompted:
        """Return the clip's stem under a prompt."""

        def made() -> Prompted:
            inputs = self.inputs(clip, prompt)
            return prompt_clip(self.subject, self.samples(clip), prompt, clip.clip_id, inputs)

        return self._of(clip, prompt, self._stem_key(clip, prompt), made)

    def run(self, clip: Clip, prompt: str, kinds: Sequence[Kind] = ()) -> CleanRun:
        """Return the clip's clean run under a prompt, with the activations of further kinds of site."""
        extra = _beside_the_stream(kinds)
        key = ("run", self.subject.key, clip.digest, prompt, extra)
        return self._of(clip, prompt, key, lambda: self._run(clip, prompt, extra))

    def _of(self, clip: Clip, prompt: str, key: Hashable, make: Callable[[], T]) -> T:
        """What the model makes of a clip: decoded beside the model's work, made while nobody else uses the model."""
        if not (self._cache.holds(key) or self._cache.holds(self._stem_key(clip, prompt))):
            self.samples(clip)
        return self._cache.get_or_make(key, make, lock=self.subject.lock)

    def _run(self, clip: Clip, prompt: str, kinds: Sequence[Kind]) -> CleanRun:
        stem = self._stem_key(clip, prompt)
        if not in_one_pass(self.subject) or self._cache.holds(stem):
            return clean_runs(self.subject, [self.prompted(clip, prompt)], kinds)[0]
        inputs = self.inputs(clip, prompt)
        run = clean_run(self.subject, self.samples(clip), prompt, clip.clip_id, kinds, inputs)
        self._cache.put(stem, run.prompted)
        return run

    def _stem_key(self, clip: Clip, prompt: str) -> Hashable:
        return ("stem", self.subject.key, clip.digest, prompt)

    def kept(self, key: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        """Something small that follows from clips, kept beside their runs; made where it is not there any more."""
        return self._cache.get_or_make(key, make)

    def silence(self, clip: Clip, prompt: str, kinds: Sequence[Kind] = ()) -> CleanRun:
        """Return the clean run of silence (samples of 0) as long as the clip, through the same stem."""
        n_samples, extra = len(self.samples(clip)), _beside_the_stream(kinds)

        def made() -> CleanRun:
            silent = np.zeros(n_samples, np.float32)
            name = f"silence as long as {clip.clip_id}"
            return clean_run(self.subject, silent, prompt, name, extra)

        key = ("silence", self.subject.key, n_samples, prompt, extra)
        return self._cache.get_or_make(key, made, lock=self.subject.lock)


def _beside_the_stream(kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    return tuple(sorted(set(kinds) - {"resid_pre", "resid_post"}))
