"""What the model answers unedited, as far as it is known, and the pairs and clips of a run as they are now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pandas as pd
import streamlit as st

from components import server, visitors
from components.shown import Shown
from interp_core.content import key_parts
from interp_core.data.clips import Clip
from interp_core.data.edits import clip_named
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError
from interp_core.experiments.patching.experiment import base_table
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.result import PatchingResult
from interp_core.request import Request, short_name


def clips_by_id(request: Request) -> dict[str, Clip]:
    """The clips of a request."""
    engine = server.engine()
    # A spinner is a thread and two messages, which a click would wait for.
    with nullcontext() if engine.has_manifest(request) else st.spinner("Reading the clips …"):
        return {clip.clip_id: clip for clip in engine.manifest(request).clips}


def pair_of(line: Mapping[str, Any], clips: Mapping[str, Clip]) -> Pair:
    """The pair that a line of a run's pair list describes, with the clips as they are now."""
    a, b = (clip_named(line[side], clips) for side in ("recipient", "donor"))
    if a is None or b is None:
        missing = line["recipient" if a is None else "donor"]
        raise InterpError(f"the run's clip {missing!r} is not in the manifest; choose the manifest that it was run on.")
    return Pair(line["pair_id"], line["kind"], a, b, line["target"], line["column"])


def prompt_names(model: str, prompts: tuple[str, ...]) -> list[str]:
    """A short name for each prompt: the bundled ones have names, others are counted."""
    demo = server.engine().demo(model)
    known = {text: name for name, text in demo.prompts} if demo else {}
    return [known.get(text, f"question {number}") for number, text in enumerate(prompts, 1)]


def base_answers(asked: PatchRequest, shown: Shown | None) -> pd.DataFrame | None:
    """What the model answers unedited, one row a clip and prompt (clip_id, prompt, prediction), as far as it is known.

    From the job that asked about every clip, else from the run on show, which knows the clips of its pairs.
    """
    job = server.engine().jobs.get(_job_key(asked))
    if job is not None and job.result is not None:
        return job.result[["clip_id", "prompt", "prediction"]]
    if shown is None or shown.result.prompts != asked.prompts:
        return None
    return _answers_of(shown.key, shown.result)


def ask_about_every_clip(asked: PatchRequest) -> None:
    """The button that asks the model about every clip, as a job."""
    engine, key = server.engine(), _job_key(asked)
    job = engine.jobs.get(key)
    if job is not None and (job.active or job.status == "done"):
        return

    def start() -> None:
        title = f"Answers to every clip: {short_name(asked.model)}"
        visitors.asked(engine.jobs.submit(key, title, lambda step: base_table(engine, asked, step)))

    st.button("Ask the model about every clip", on_click=start, icon=":material/quiz:")


def _job_key(asked: PatchRequest) -> str:
    """Names the job that asks a model about every clip of a manifest."""
    content = key_parts(server.engine().content(asked))
    named = [asked.model, asked.device, asked.dtype, asked.part, asked.probe, content, asked.prompts, asked.labels]
    return "base-" + hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


@st.cache_data(max_entries=8, show_spinner=False)
def _answers_of(key: str, _result: PatchingResult) -> pd.DataFrame:
    records = _result.records[_result.records["condition"] == "matched"]
    sides = [
        records[["recipient", "prompt", "base_prediction"]].set_axis(["clip_id", "prompt", "prediction"], axis=1),
        records[["donor", "prompt", "donor_prediction"]].set_axis(["clip_id", "prompt", "prediction"], axis=1),
    ]
    return pd.concat(sides, ignore_index=True).dropna().drop_duplicates(["clip_id", "prompt"])
