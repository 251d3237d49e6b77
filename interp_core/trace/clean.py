"""The unedited runs: the stem of a clip, and everything of its pass through the blocks that patching reads."""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp_core.cache import nbytes_of
from interp_core.errors import InterpError
from interp_core.models.prompted import Prompted, Stem
from interp_core.models.subject import Subject
from interp_core.sites import Kind, Site
from interp_core.trace.arguments import BlockCall, beside_states
from interp_core.trace.finite import attempt, check_finite, finite_run
from interp_core.trace.hooks import Captured, captured

_EXTRACTING = threading.Lock()
"""One extractor or tokenizer is not to be used by two threads at once."""


@dataclass(frozen=True, eq=False)
class CleanRun:
    """One clip's unedited run.

    Attributes:
        prompted: the clip under its prompt.
        resid: n_layers + 1 tensors [pos, d_model]; number l enters block l, the last one leaves the last block (before
            any final norm).
        merged: what leaves the blocks behind which positions are merged, by layer: not what enters the next one.
        keys, values: [n_layers, n_kv_heads, pos, d_head] as the blocks cached them; None where the model keeps none.
        sites: activations at further kinds of site, n_layers tensors [pos, width] each.
        logits: [n_classes] float32 at the readout.
        calls: of a clip that ran by itself, the arguments of each block, for rows that no keys stand in for; None where
            the model keeps keys, and where the arguments (a bias for each pair of positions) would take more memory
            than the residual stream.
    """

    prompted: Prompted
    resid: tuple[Tensor, ...]
    merged: Mapping[int, Tensor]
    keys: Tensor | None
    values: Tensor | None
    sites: Mapping[Kind, tuple[Tensor, ...]]
    logits: Tensor
    calls: tuple[BlockCall, ...] | None = None

    def at(self, kind: Kind, layer: int) -> Tensor:
        """Return the activation [pos, width] at a site; layer -1 of `resid_post` is what enters block 0."""
        if kind == "resid_post":
            return self.merged[layer] if layer in self.merged else self.resid[layer + 1]
        if kind == "resid_pre":
            return self.resid[layer]
        return self.sites[kind][layer]


def prompt_clip(
    subject: Subject, samples: np.ndarray, prompt: str, clip_id: str, inputs: dict[str, Tensor] | None = None
) -> Prompted:
    """Run the stem of one clip: everything up to what enters block 0.

    Args:
        subject: the model.
        samples: [n_samples] float32 mono at the subject's rate.
        prompt: the question; empty for a model that is asked none.
        clip_id: for messages.
        inputs: what `clip_inputs` gives, where it was made already.
    Raises:
        InterpError: no audio position, more than one run of them, or a clip that the model fails on.
    """
    inputs = inputs or clip_inputs(subject, samples, prompt, clip_id)
    with torch.inference_mode(), captured(subject, calls=[subject.entry], stop=True) as store:
        attempt(subject, [clip_id], lambda: subject.forward(inputs))
    return _described(subject, samples, prompt, clip_id, inputs, store)


def clip_inputs(subject: Subject, samples: np.ndarray, prompt: str, clip_id: str) -> dict[str, Tensor]:
    """The library model's own arguments for one clip; see `Subject.model_inputs`. InterpError names the clip."""
    with _EXTRACTING:
        return attempt(subject, [clip_id], lambda: subject.model_inputs(samples, prompt))


def clean_run(
    subject: Subject,
    samples: np.ndarray,
    prompt: str,
    clip_id: str,
    kinds: Sequence[Kind] = (),
    inputs: dict[str, Tensor] | None = None,
) -> CleanRun:
    """Run one clip unedited from its samples: `prompt_clip`, then `clean_runs`.

    Both are one pass where the blocks run from the inputs in any case: see `in_one_pass`.
    """
    if not in_one_pass(subject):
        return clean_runs(subject, [prompt_clip(subject, samples, prompt, clip_id, inputs)], kinds)[0]
    subject.check_ready()
    inputs = inputs or clip_inputs(subject, samples, prompt, clip_id)
    calls = list(dict.fromkeys((subject.entry, *subject.blocks)))
    with torch.inference_mode(), captured(subject, _sites(subject, kinds), calls=calls) as store:
        logits = finite_run(subject, [clip_id], lambda: subject.forward(inputs))
    return _kept_runs(subject, [_described(subject, samples, prompt, clip_id, inputs, store)], kinds, store, logits)[0]


def in_one_pass(subject: Subject) -> bool:
    """Whether the stem and the clean run of a clip are one forward pass of the model."""
    return subject.runs_from_inputs and subject.shortcut_refusal() is not None


def clean_runs(subject: Subject, prompted: Sequence[Prompted], kinds: Sequence[Kind] = ()) -> list[CleanRun]:
    """Run several clips unedited in one batch.

    Args:
        subject: the model.
        prompted: the clips, one or more; of one length where the model cannot pad.
        kinds: sites to keep beside the residual stream.
    Returns:
        One run a clip, in order, without padding; all of it finite.
    Raises:
        InterpError: NaN or infinity, with the clip, the layer where it began and the dtype.
    """
    if not prompted:
        return []
    subject.check_ready()
    cached: Sequence[tuple[Tensor, Tensor]] = ()
    keeps_keys = subject.shortcut_refusal() is None

    def run() -> Tensor:
        nonlocal cached
        if not keeps_keys:
            return subject.run_blocks(prompted)
        logits, cached = subject.run_keeping_keys(prompted)
        return logits

    calls = list(subject.blocks) if len(prompted) == 1 and not keeps_keys else []
    with torch.inference_mode(), captured(subject, _sites(subject, kinds), calls=calls) as store:
        logits = finite_run(subject, [p.clip_id for p in prompted], run)
    return _kept_runs(subject, prompted, kinds, store, logits, cached)


def _sites(subject: Subject, kinds: Sequence[Kind]) -> list[Site]:
    layers = range(subject.n_layers)
    behind = sorted({subject.n_layers - 1} | subject.merges_after)
    sites = [Site("resid_pre", layer) for layer in layers] + [Site("resid_post", layer) for layer in behind]
    return sites + [Site(kind, layer) for kind in _extra(kinds) for layer in layers]


def _extra(kinds: Sequence[Kind]) -> list[Kind]:
    return [kind for kind in kinds if kind not in ("resid_pre", "resid_post")]


def _described(
    subject: Subject, samples: np.ndarray, prompt: str, clip_id: str, inputs: dict[str, Tensor], store: Captured
) -> Prompted:
    content = hashlib.sha256(np.ascontiguousarray(samples, np.float32).tobytes() + b"|" + prompt.encode())
    stem = Stem(content.hexdigest(), clip_id, len(samples), inputs, *store.calls[subject.entry])
    return attempt(subject, [clip_id], lambda: subject.prompted(stem))


def _kept_runs(
    subject: Subject,
    prompted: Sequence[Prompted],
    kinds: Sequence[Kind],
    store: Captured,
    logits: Tensor,
    cached: Sequence[tuple[Tensor, Tensor]] = (),
) -> list[CleanRun]:
    """What a pass showed, clip by clip."""
    layers = range(subject.n_layers)
    last = Site("resid_post", subject.n_layers - 1)
    main = store[last].device
    runs = []
    for row, p in enumerate(prompted):

        def real(state: Tensor, row: int = row, p: Prompted = p) -> Tensor:
            # Its own memory: a view would keep the whole batch alive for as long as one clip is kept.
            return (state[row, -p.n_pos :] if subject.pads else state[row]).to(main).clone()

        runs.append(
            CleanRun(
                prompted=p,
                resid=tuple(real(store[Site("resid_pre", la)]) for la in layers) + (real(store[last]),),
                merged={la: real(store[Site("resid_post", la)]) for la in sorted(subject.merges_after)},
                keys=_of_clip([keys for keys, _ in cached], row, p, main) if cached else None,
                values=_of_clip([values for _, values in cached], row, p, main) if cached else None,
                sites={kind: tuple(real(store[Site(kind, la)]) for la in layers) for kind in _extra(kinds)},
                logits=logits[row],
                calls=_small_calls(subject, store) if store.calls else None,
            )
        )
        for layer, state in enumerate(runs[-1].resid):  # also where the answer does not read it
            check_finite(subject, state[None], [_left_by(p, layer - 1)])
    return runs


def _left_by(prompted: Prompted, layer: int) -> str:
    return f"what {f'layer {layer} leaves' if layer >= 0 else 'enters layer 0'} of clip {prompted.clip_id!r}"


def _small_calls(subject: Subject, store: Captured) -> tuple[BlockCall, ...] | None:
    calls = tuple(beside_states(*store.calls[block]) for block in subject.blocks)
    states = sum(store[Site("resid_pre", layer)].nbytes for layer in range(subject.n_layers))
    return calls if nbytes_of(calls) <= states else None


def _of_clip(states: Sequence[Tensor], row: int, prompted: Prompted, device: torch.device) -> Tensor:
    return torch.stack([state[row, :, -prompted.n_pos :].to(device) for state in states])


def logit_lens(subject: Subject, run: CleanRun) -> Tensor:
    """Read every layer's residual stream as if it were the last.

    Returns:
        [n_layers + 1, n_classes] float32 logits; row l is what block l is given, the last row the model's own logits.
    Raises:
        InterpError: a readout that does not fit behind an earlier layer.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    if (refusal := subject.lens_refusal()) is not None:
        raise InterpError(f"the logit lens does not apply to {subject.name}: {refusal}.")
    with torch.inference_mode(), subject.lock:
        return torch.cat([subject.readout(state[None], [run.prompted]) for state in run.resid])
