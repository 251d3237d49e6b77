"""A site whose neurons are ablated: the features of every clip there, and the answer of the same forward pass.

At a site with positions a neuron's feature is its mean over the positions that hold the recording, and an ablation
edits it at all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.models.audio_llm import AudioLLM
from interp_core.models.encoders import Encoder
from interp_core.models.images import ImageClassifier
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Prompted, Subject
from interp_core.sites import STAGES, Site
from interp_core.trace.clean import prompt_clip
from interp_core.trace.hooks import captured
from interp_core.trace.store import CleanStore

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Ready:
    """One clip on its way into the model.

    Attributes:
        clip: the recording or picture.
        inputs: the library model's own keyword arguments, batch of one.
        n_samples: of the recording; 0 for a picture.
        prompted: the stem, of a model that is asked in words.
    """

    clip: Clip
    inputs: Mapping[str, Tensor]
    n_samples: int
    prompted: Prompted | None


class Hearing:
    """Makes clips ready for one model under one prompt, decoded by the store, or as pictures.

    Args:
        store: decodes recordings for the model.
        prompt: what the model is asked; "" for one that is asked nothing.
    """

    def __init__(self, store: CleanStore, prompt: str) -> None:
        self.store, self.prompt, self.subject = store, prompt, store.subject
        self.subject.check_ready()
        self.subject.check_prompt(prompt)

    def samples(self, clip: Clip) -> np.ndarray:
        """[n_samples] of a recording, uint8 [height, width, 3] of a picture."""
        if isinstance(self.subject, ImageClassifier):
            return read_picture(clip)
        return self.store.samples(clip)

    def ready(self, clip: Clip) -> Ready:
        if isinstance(self.subject, AudioLLM):
            prompted = self.store.prompted(clip, self.prompt)
            return Ready(clip, prompted.inputs, 0, prompted)
        samples = self.samples(clip)
        n_samples = 0 if isinstance(self.subject, ImageClassifier) else len(samples)
        return Ready(clip, self.subject.model_inputs(samples, self.prompt), n_samples, None)

    def stem(self, ready: Ready) -> Prompted:
        """What enters the blocks."""
        if ready.prompted is not None:
            return ready.prompted
        return prompt_clip(self.subject, self.samples(ready.clip), self.prompt, ready.clip.clip_id)

    def batch_key(self, ready: Ready) -> object:
        """Clips of one key can share a batch; a model that is asked in words gets one clip at a time."""
        if ready.prompted is not None:
            return ready.clip.clip_id
        return tuple(tuple(value.shape) for value in ready.inputs.values())

    def answer(self, batch: Sequence[Ready]) -> Tensor:
        """One forward pass of clips with one key: float32 logits [batch, n_classes]."""
        stems = [ready.prompted for ready in batch if ready.prompted is not None]
        if stems:
            return self.subject.run_blocks(stems)
        return self.subject.forward({n: torch.cat([ready.inputs[n] for ready in batch]) for n in batch[0].inputs})

    def inside(self, ready: Ready, site: Site, n_pos: int) -> Tensor:
        """[n_pos] bool: the positions at a site that hold the recording."""
        subject = self.subject
        if n_pos == 1 or subject.whole_only or (site.kind in STAGES and site.kind != "mixed"):
            return torch.ones(n_pos, dtype=torch.bool)
        if ready.prompted is not None:
            (start, stop), (bands, stride) = ready.prompted.audio, ready.prompted.bands
        else:
            assert isinstance(subject, Encoder)
            (start, stop), (bands, stride) = subject.span(n_pos, ready.n_samples)
        found = torch.zeros(n_pos, dtype=torch.bool)
        for band in range(bands):
            found[start + band * stride : stop + band * stride] = True
        return found


def read_picture(clip: Clip) -> np.ndarray:
    """uint8 [height, width, 3]. Errors: InterpError names a file that is no picture."""
    try:
        with Image.open(clip.path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise InterpError(f"{clip.path} is no picture that can be read ({error}); restore it.") from error


def columns_of(subject: Subject, site: Site) -> slice:
    """The dimensions of the hooked value that belong to a site: one head's, or all."""
    if site.head is None:
        return slice(None)
    return slice(site.head * subject.d_head, (site.head + 1) * subject.d_head)


@dataclass(frozen=True, eq=False)
class Collected:
    """What one forward pass over all clips showed.

    Attributes:
        clips: in the given order.
        features: [n, width] float32 at the site.
        logits: [n, n_labels] float32 of the labels.
    """

    clips: tuple[Clip, ...]
    features: Tensor
    logits: Tensor


def collect(
    hearing: Hearing,
    clips: Sequence[Clip],
    site: Site,
    labels: LabelTokens,
    *,
    batch_size: int = 16,
    progress: Progress = lambda done, total, note: None,
) -> Collected:
    """Run every clip once, unedited, and keep its features at a site and its label logits."""
    subject = hearing.subject
    subject.locate(site)
    columns = columns_of(subject, site)
    features: list[Tensor | None] = [None] * len(clips)
    logits: list[Tensor | None] = [None] * len(clips)
    waiting: dict[object, list[tuple[int, Ready]]] = {}
    done = 0

    def run(batch: list[tuple[int, Ready]]) -> None:
        nonlocal done
        some = [ready for _, ready in batch]
        with torch.inference_mode(), captured(subject, [site]) as store:
            answers = labels.read(hearing.answer(some))[0].float().cpu()
        value = store[site][..., columns]
        for row, (i, ready) in enumerate(batch):
            inside = hearing.inside(ready, site, value.shape[1]).to(value.device)
            features[i] = value[row, inside].float().mean(0).cpu()
            logits[i] = answers[row]
        done += len(batch)
        progress(done, len(clips), f"features at {site}")

    for i, clip in enumerate(clips):
        ready = hearing.ready(clip)
        same = waiting.setdefault(hearing.batch_key(ready), [])
        same.append((i, ready))
        if len(same) == (batch_size if ready.prompted is None else 1):
            run(same)
            waiting.pop(hearing.batch_key(ready))
    for same in waiting.values():
        run(same)
    assert all(value is not None for value in features)
    return Collected(tuple(clips), torch.stack(features), torch.stack(logits))  # type: ignore[arg-type]
