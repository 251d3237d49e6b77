"""A heads run and its folder: what goes into which file, and back.

    {model}_head_outputs.npz    [clips, heads, d_head] a block
    {model}_block_outputs.npz   [clips, width] a block: the residual stream between attention and MLP
    {model}_layer_outputs.npz   [clips, width] a stage, after and before its merge, or a layer of a model without stages
    fisher.csv, fisher_heatmap.png, clips.csv, notes.json; ablation.csv where heads were ablated, answers.csv in words

Every npz names its clips, their labels and groups beside the vectors.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp_core.errors import InterpError
from interp_core.experiments.edited_words import TABLE, read_answers
from interp_core.experiments.figures import save_png
from interp_core.experiments.heads.capture import Rows, Vectors
from interp_core.experiments.heads.points import Geometry
from interp_core.experiments.heads.run import HeadsResult
from interp_core.runs import RunWriter
from interp_core.sites import Site
from interp_core.storage import read_csv, read_json, replace_file

GRANULARITY_OF = {"head": "head_outputs", "block": "block_outputs", "layer": "layer_outputs"}


def write(writer: RunWriter, result: HeadsResult) -> None:
    """Write everything but the config."""
    name = Path(str(result.config["model"]["id"])).stem
    about = {column: result.clips[column].to_numpy(str) for column in ("clip_id", "label", "group")}
    for kind, arrays in arrays_of(result.vectors).items():
        npz = io.BytesIO()
        np.savez(npz, **about, **arrays)  # type: ignore[arg-type]
        replace_file(writer.path(f"{name}_{GRANULARITY_OF[kind]}.npz"), npz.getvalue())
    if result.config["settings"]["pt"]:
        replace_file(writer.path(f"{name}_outputs.pt"), torch_file(result))
    writer.write_csv("fisher.csv", result.table)
    writer.write_csv("clips.csv", result.clips)
    writer.write_json("notes.json", result.notes)
    if len(result.ablation):
        writer.write_csv("ablation.csv", result.ablation)
    if len(result.words):
        writer.write_csv(TABLE, result.words)
    save_png(result.figure(), writer.path("fisher_heatmap.png"))


def read(folder: Path, config: Mapping[str, Any]) -> HeadsResult:
    """Read back what `write` wrote."""
    table, clips = (read_csv(folder / name) for name in ("fisher.csv", "clips.csv"))
    clips = clips.astype(str)
    ablation = folder / "ablation.csv"
    try:
        geometry = Geometry(
            tuple(range(*ends) for ends in config["geometry"]["stages"]), tuple(config["geometry"]["heads"])
        )
        name = Path(str(config["model"]["id"])).stem
        at: dict[Site, Rows] = {}
        for kind, ending in GRANULARITY_OF.items():
            with np.load(folder / f"{name}_{ending}.npz", allow_pickle=False) as kept:
                if list(kept["clip_id"]) != list(clips["clip_id"]):
                    raise InterpError(f"{folder / f'{name}_{ending}.npz'} is about other clips than clips.csv.")
                at |= {site: kept[key].reshape(len(clips), -1) for key, site in _keys(geometry)[kind].items()}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InterpError(f"{folder} cannot be read as a heads run ({error}); restore it or run again.") from error
    table["name"] = table["name"].astype(str)
    return HeadsResult(
        config=config,
        table=table,
        clips=clips,
        notes=read_json(folder / "notes.json"),
        ablation=read_csv(ablation) if ablation.exists() else pd.DataFrame(),
        vectors=Vectors(geometry, at),
        words=read_answers(folder, config),
    )


def _keys(geometry: Geometry) -> dict[str, dict[str, Site]]:
    """Name of an array -> the site whose vectors it holds, a file at a time."""
    place = {layer: (s, layer - layers.start) for s, layers in enumerate(geometry.stages) for layer in layers}

    def block(layer: int) -> str:
        stage, number = place[layer]
        return f"stage{stage}_block{number}" if geometry.staged else f"layer{layer}"

    layers = range(geometry.n_layers)
    outputs = {}
    for when, granularity in (("after", "stage"), ("before", "stage_before")):
        for point in geometry.points(granularity):  # type: ignore[arg-type]
            key = f"stage{point.stage}_{when}" if geometry.staged else f"layer{point.layer}"
            outputs[key] = geometry.site_of(point)
    return {
        "head": {block(layer): Site("head_out", layer) for layer in layers},
        "block": {block(layer): Site("resid_mid", layer) for layer in layers},
        "layer": outputs,
    }


def arrays_of(vectors: Vectors) -> dict[str, dict[str, Rows]]:
    """The vectors as the files hold them: by file, by name."""
    found = {
        kind: {key: vectors.at[site] for key, site in keys.items()} for kind, keys in _keys(vectors.geometry).items()
    }
    heads = vectors.geometry.heads
    found["head"] = {
        key: value.reshape(len(value), heads[layer], -1) for layer, (key, value) in enumerate(found["head"].items())
    }
    return found


def torch_file(result: HeadsResult) -> bytes:
    """One dict of tensors [clips, width]: head by (stage, block, head), block by (stage, block), layer by stage."""
    vectors = result.vectors
    geometry = vectors.geometry

    def tensor(rows: Rows) -> torch.Tensor:
        return torch.from_numpy(np.array(rows))

    made = {
        "head": {(max(p.stage, 0), p.block, p.head): tensor(vectors.of(p)) for p in geometry.points("head")},
        "block": {(max(p.stage, 0), p.block): tensor(vectors.of(p)) for p in geometry.points("block")},
        "layer": {(p.stage if geometry.staged else p.layer): tensor(vectors.of(p)) for p in geometry.points("stage")},
        "labels": list(result.clips["label"]),
        "clip_ids": list(result.clips["clip_id"]),
    }
    file = io.BytesIO()
    torch.save(made, file)
    return file.getvalue()
