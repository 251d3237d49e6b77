"""The curves beside the patching curve against the library's own hidden states and a mask of our own making."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from interp_core.choices import EMOTIONS
from interp_core.data.columns import cluster_map
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.flow import knockout_table, lens_table
from interp_core.maths.stats import rate_intervals
from tests.experiments.conftest import PROMPTS
from tests.experiments.plain_loop import PlainLoop


@pytest.fixture(scope="module")
def loop(ready):
    return PlainLoop(ready.store.subject, PROMPTS[1], EMOTIONS)


@torch.inference_mode()
def lens_of(loop, clip):
    """[n_layers + 1, n_labels]: every state of the library's own list, through its norm and its head."""
    model = loop.hf
    states = model(**loop.inputs(clip), use_cache=False, output_hidden_states=True).hidden_states
    norm, flat = model.model.language_model.norm, [ids[0] for ids in loop.ids]
    # The library's last state has passed the norm already.
    rows = [model.lm_head(norm(state[0, -1])) for state in states[:-1]] + [model.lm_head(states[-1][0, -1])]
    return torch.stack(rows)[:, flat].numpy()


def test_the_lens_reads_the_librarys_own_hidden_states(result, ready, loop):
    table = result.lens[result.lens.prompt == 1]
    assert len(table) == 2 * 2 * 6  # kinds, runs, layers
    curves = {clip.clip_id: lens_of(loop, clip) for clip in ready.manifest.clips}
    for (kind, side), rows in table.groupby(["kind", "run"]):
        pairs = ready.plan.pairs.of(kind)
        member = {"base": "recipient", "donor": "donor"}[side]
        stack = np.stack([curves[getattr(pair, member).clip_id] for pair in pairs])  # [pairs, layers, labels]
        target = [EMOTIONS.index(pair.target) for pair in pairs]
        assert rows.layer.tolist() == list(range(-1, 5)) and set(rows.n) == {len(pairs)} == {6}
        for at, row in enumerate(rows.itertuples()):
            logprob = [log_softmax(s[at])[t] for s, t in zip(stack, target, strict=True)]
            assert row.target_logprob_mean == pytest.approx(np.mean(logprob), abs=1e-4)
            first = [s[at].argmax() for s in stack]
            assert row.target_rate == pytest.approx(np.mean([f == t for f, t in zip(first, target, strict=True)]))
            answers = [s[-1].argmax() for s in stack]
            assert row.agree_rate == pytest.approx(np.mean([f == a for f, a in zip(first, answers, strict=True)]))
        assert rows.agree_rate.iloc[-1] == 1
    assert table.agree_rate.min() < 1, "were every layer's answer the last one's, nothing would be tested"


@torch.inference_mode()
def cut(loop, clip, first, stop, readers):
    """Label logits when `readers` may not read the audio in layers first..stop-1, by a mask in each block's call."""
    start, end, n = loop.span(clip)
    mask = torch.full((n, n), torch.finfo(torch.float32).min).triu(1)[None, None]
    mask[..., (n - 1 if readers == "last" else end) :, start:end] = torch.finfo(torch.float32).min

    def before(_module, args, kwargs):
        return args, {**kwargs, "attention_mask": mask}

    blocks = loop.hf.model.language_model.layers
    handles = [blocks[i].register_forward_pre_hook(before, with_kwargs=True) for i in range(first, stop)]
    try:
        logits = loop.hf(**loop.inputs(clip), use_cache=False).logits[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()
    return loop.read(logits)[0]


def test_knockout_is_a_mask_in_the_blocks_of_the_window(result, ready, loop):
    table = result.knockout[result.knockout.prompt == 1]
    assert len(table) == 2 * 2 * 3  # kinds, readers, windows of three of five layers
    assert set(zip(table.layer_from, table.layer_to, strict=True)) == {(0, 2), (1, 3), (2, 4)}
    found = {}
    for clip in ready.manifest.clips:
        base = loop.read(loop.forward(clip))[0]
        for readers in ("last", "text"):
            for first in range(3):
                after = cut(loop, clip, first, first + 3, readers)
                lost = log_softmax(after)[base.argmax()] - log_softmax(base)[base.argmax()]
                found[clip.clip_id, readers, first] = after.argmax() != base.argmax(), lost
    for row in table.itertuples():
        clips = {c.clip_id for pair in ready.plan.pairs.of(row.kind) for c in (pair.recipient, pair.donor)}
        changed, lost = zip(*(found[clip, row.readers, row.layer_from] for clip in sorted(clips)), strict=True)
        assert row.n == len(clips)
        assert row.changed_rate == pytest.approx(np.mean(changed))
        units = cluster_map(ready.manifest.clips, "speaker")
        limits = rate_intervals(np.array(changed)[:, None], [units[clip] for clip in sorted(clips)])[0]
        np.testing.assert_array_equal([row.changed_rate_low, row.changed_rate_high], [limits.low[0], limits.high[0]])
        assert row.delta_logprob_base_mean == pytest.approx(np.mean(lost), abs=1e-4)
    assert table.changed_rate.max() > 0 and table.delta_logprob_base_mean.abs().min() > 1e-4


def test_each_clip_is_read_once_and_a_window_is_no_wider_than_the_model(ready):
    pairs, labels, steps = ready.plan.pairs.pairs[:3], ready.plan.labels[0], Counter()
    clips = {c.clip_id for pair in pairs for c in (pair.recipient, pair.donor)}
    alone = {clip: clip for clip in clips}
    lens_table(ready.store, pairs, PROMPTS[0], labels, lambda: steps.update(["lens"]))
    wide = knockout_table(
        ready.store, pairs, PROMPTS[0], labels, 99, lambda: steps.update(["knockout"]), clusters=alone
    )
    assert steps == {"lens": len(clips), "knockout": len(clips)}
    assert set(zip(wide.layer_from, wide.layer_to, strict=True)) == {(0, 4)}


def test_other_sites_have_no_flow(engine, plain):
    asked = replace(plain, pilot=1, site="mlp_out", flow=("lens", "knockout"))
    found = run(PATCHING, engine, asked)
    assert found.lens.empty and found.knockout.empty
