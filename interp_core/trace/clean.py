"""The unedited runs: the stem of a clip, and everything of its pass through the blocks that patching reads."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from interp_core.models.audio_llm import AudioLLM, expanded_ids
from interp_core.models.subject import Prompted, Subject
from interp_core.sites import Kind, Site
from interp_core.trace.hooks import captured


@dataclass(frozen=True, eq=False)
class CleanRun:
    """One clip's unedited run.

    Attributes:
        prompted: the clip under its prompt.
        resid: [n_layers + 1, pos, d_model]; row l enters block l, the last row leaves the last block (before any
            final norm).
        keys, values: [n_layers, n_kv_heads, pos, d_head] as the blocks cached them; None where the model keeps none.
        sites: activations at further kinds of site, [n_layers, pos, width] each.
        logits: [d_vocab] float32 at the readout position.
    """

    prompted: Prompted
    resid: Tensor
    keys: Tensor | None
    values: Tensor | None
    sites: Mapping[Kind, Tensor]
    logits: Tensor

    def at(self, kind: Kind, layer: int) -> Tensor:
        """Return the activation [pos, width] at a site; layer -1 of `resid_post` is what enters block 0."""
        if kind == "resid_post":
            return self.resid[layer + 1]
        if kind == "resid_pre":
            return self.resid[layer]
        return self.sites[kind][layer]


def prompt_clip(subject: AudioLLM, samples: np.ndarray, prompt: str, clip_id: str) -> Prompted:
    """Run the stem of one clip: everything up to what enters block 0.

    Args:
        subject: the model.
        samples: [n_samples] float32 mono at the subject's rate.
        prompt: the question.
        clip_id: for messages.
    Raises:
        InterpError: no audio position, or more than one run of them.
    """
    inputs = subject.model_inputs(samples, prompt)
    with torch.inference_mode(), captured(subject, calls=[subject.decoder], stop=True) as store:
        subject.hf(**inputs, use_cache=False)
    embeds = store.calls[subject.decoder][1]["inputs_embeds"][0]
    ids = expanded_ids(subject, inputs, embeds)
    content = hashlib.sha256(np.ascontiguousarray(samples, np.float32).tobytes() + b"|" + prompt.encode())
    return Prompted(
        key=content.hexdigest(),
        clip_id=clip_id,
        inputs=inputs,
        embeds=embeds,
        token_ids=ids,
        audio=subject.audio_span(ids, clip_id),
        seconds_per_position=subject.seconds_per_position(),
    )


def clean_runs(subject: Subject, prompted: Sequence[Prompted], kinds: Sequence[Kind] = ()) -> list[CleanRun]:
    """Run several clips unedited in one left-padded batch.

    Args:
        subject: the model.
        prompted: the clips, one or more.
        kinds: sites to keep beside the residual stream.
    Returns:
        One run a clip, in order, without padding.
    """
    if not prompted:
        return []
    subject.check_ready()
    layers = range(subject.n_layers)
    extra = [kind for kind in kinds if kind not in ("resid_pre", "resid_post")]
    sites = [Site("resid_pre", layer) for layer in layers] + [Site("resid_post", subject.n_layers - 1)]
    sites += [Site(kind, layer) for kind in extra for layer in layers]
    keep_keys = subject.shortcut_refusal() is None
    cache = DynamicCache(config=subject.text_config) if keep_keys else None
    with torch.inference_mode(), captured(subject, sites) as store:
        subject.decoder(**subject.padded(prompted), past_key_values=cache, use_cache=keep_keys)
        last = store[Site("resid_post", subject.n_layers - 1)]
        logits = subject.readout(last[:, -1])
    main = last.device
    runs = []
    for row, p in enumerate(prompted):
        real = slice(-p.n_pos, None)
        resid = [store[Site("resid_pre", layer)] for layer in layers] + [last]
        runs.append(
            CleanRun(
                prompted=p,
                resid=torch.stack([state[row, real].to(main) for state in resid]),
                keys=torch.stack([c.keys[row, :, real].to(main) for c in cache.layers]) if cache else None,
                values=torch.stack([c.values[row, :, real].to(main) for c in cache.layers]) if cache else None,
                sites={k: torch.stack([store[Site(k, la)][row, real].to(main) for la in layers]) for k in extra},
                logits=logits[row],
            )
        )
    return runs


def logit_lens(subject: Subject, run: CleanRun) -> Tensor:
    """Read every layer's residual stream at the readout position as if it were the last.

    Returns:
        [n_layers + 1, d_vocab] float32 logits; row l is what block l is given, the last row the model's own logits.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    with torch.inference_mode(), subject.lock:
        return subject.readout(run.resid[:, -1])
