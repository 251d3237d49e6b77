"""A tiny audio LLM in which one head alone brings what was heard to the readout, and clips labelled by its answers."""

from pathlib import Path

import pandas as pd
import torch

from interp_core.choices import EMOTIONS
from interp_core.engine import Engine
from interp_core.experiments.patching.experiment import base_table
from interp_core.experiments.patching.request import PatchRequest
from interp_core.sites import Site
from interp_core.trace.hooks import captured
from tests.tiny import save_qwen2_audio

FAINT = 0.03
"""What the other heads write, beside what they would."""


def planted_request(folder: Path, manifest: Path, seed: int, engine: Engine) -> tuple[PatchRequest, tuple[int, int]]:
    """(request, (layer, head) that was planted): pairs of unlike labels at the last position, a map of heads.

    Every head looks at all positions alike. All but one write next to nothing, as do the MLPs. The rows of the answer
    words read what differs between clips, so that every answer is given, and a clip's label is the model's answer.
    """
    model = save_qwen2_audio(folder / f"planted-{seed}", n_layers=2, seed=seed)
    request = PatchRequest(
        str(model), str(manifest), device="cpu", dtype="float32", kinds="same=text_id,differ=prosody_label",
        max_pairs=48, positions="last", layers=(1,), controls=(), flow=(), checks=False, maps=("heads",), top_heads=4,
    )  # fmt: skip
    subject, (layer, head) = engine.open(str(model), "cpu", "float32"), (seed % 2, seed % 4)
    (store, labels) = engine.store(request), None
    labels = subject.labels(EMOTIONS, request.filled().prompts[0])
    clips = engine.manifest(request).clips
    with torch.no_grad():
        for number, block in enumerate(subject.blocks):
            block.self_attn.q_proj.weight.zero_()
            block.self_attn.q_proj.bias.zero_()
            block.mlp.down_proj.weight.mul_(FAINT)
            for other in range(subject.n_heads):
                if (number, other) != (layer, head):
                    block.self_attn.o_proj.weight[:, other * subject.d_head : (other + 1) * subject.d_head].mul_(FAINT)
        last = Site("resid_post", subject.n_layers - 1)
        states = []
        for clip in clips:
            with captured(subject, [last]) as seen:
                subject.run_blocks([store.prompted(clip, request.filled().prompts[0])])
            states.append(subject.normed(seen[last])[0, -1])
        heard = torch.stack(states)
        common, ids = heard.mean(0), list(labels.ids)
        rows = subject.hf.lm_head.weight[ids]
        rows = rows - (rows @ common)[:, None] * common / common.square().sum()
        subject.hf.lm_head.weight[ids] = 3 * rows / (heard @ rows.T).std()
    answers = base_table(engine, request)
    table = pd.read_csv(manifest)
    table["prosody_label"] = table["clip_id"].map(dict(zip(answers["clip_id"], answers["prediction"], strict=True)))
    own = manifest.with_name(f"planted-{seed}.csv")
    table.to_csv(own, index=False)
    return PatchRequest(**{**request.__dict__, "manifest": str(own)}), (layer, head)
