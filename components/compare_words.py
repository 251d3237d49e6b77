"""A comparison in words: what is identical, what a point and a transplant say, what none of it proves."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from components.compare_charts import point_name
from components.compare_runs import ShownComparison
from components.words import md
from interp_core.data.clips import Clip
from interp_core.doors.compare import CompareRequest
from interp_core.experiments.compare import Comparison
from interp_core.experiments.compare_settings import CompareSettings

LIMITS = """
- CKA says how alike two sets of activations are, up to rotation and scale. The **least alike layer is not the cause**
  of a different answer: differences from one early block run through all later ones. The rank correlation above says
  how far the two agree here.
- A transplant shows that what stands at a site **has a causal effect** on the score. It does not show that a model
  trained another way would behave like it.
- Transplants of the donor's activations need the donor at inference: two forward passes a clip. Only the donor-free
  maps and the layer weights do not.
- A probe at chance does not prove that a codec cannot be read, only that a linear probe of these clips does not read
  it.
- Sites and modes were chosen on one half of the speakers and all rates are of the other half, where there are speakers
  enough for halves; the notes at the top say so where there are not.
"""


def banner(made: Comparison) -> None:
    """Identical parts and what follows from them, before anything else on the page."""
    notes = list(made.parts["notes"])
    null = made.parts["null_by_construction"]
    identical = made.parts["identical_in_words"]
    if identical:
        forward = [name for name in null if not name.startswith("reverse")]
        st.warning(
            f"**Identical in both models: {md(', '.join(identical))}.**"
            + (
                f" {len(forward)} transplants are therefore null by construction: {md(_few(forward))}."
                if forward
                else ""
            ),
            icon=":material/content_copy:",
        )
    with st.expander("Before you read on", icon=":material/info:"):
        st.markdown("\n".join(f"- {md(note)}" for note in notes))


def notes(found: Any) -> None:
    """What is known before a run: the same, from a question that has not run."""
    for i, note in enumerate(found):
        (st.warning if i == 0 and "dentical" in note else st.caption)(md(note))


def at_point(made: Comparison, point: str, representation: str) -> None:
    """The selected layer or stage in two sentences, and what the whole comparison found."""
    rows = made.cka[(made.cka["representation"] == representation) & (made.cka["base_point"] == point)]
    row = rows[rows["donor_point"] == point].iloc[0]
    if row["unbiased"] == row["unbiased"]:
        text = f"**{md(point_name(point)).capitalize()}**: unbiased CKA {row['unbiased']:.3f}"
        if row["unbiased_low"] == row["unbiased_low"]:
            text += f" (95 % interval {row['unbiased_low']:.3f} to {row['unbiased_high']:.3f})"
        text += f", plain {row['plain']:.3f}"
    else:
        text = f"**{md(point_name(point)).capitalize()}**: no CKA, {md(row['reason'])}"
    arms = made.summary[(made.summary["sites"] == point) & (made.summary["mode"] == "donor")]
    arms = arms[~arms["reverse"].astype(bool)]
    if len(arms) and arms["n"].notna().all():
        arm = arms.iloc[0]
        moved = "exactly 0" if arm["score_change_max"] == 0 else f"{arm['score_change_mean']:.3g} nats on average"
        text += f". The donor's activation there moves the score by {moved}"
        text += " (null by construction)." if arm["null"] else "."
    else:
        text += "."
    st.markdown(text)
    st.markdown(found(made))


def found(made: Comparison) -> str:
    """Where the models part, where they are least alike, and whether that is where transplants act."""
    onset, least = made.findings["onset"], made.findings["most_divergent"]
    if onset is None:
        said = "The models are alike at every layer (CKA 1)"
    else:
        said = f"The models **part at layer {onset}**"
        if least is not None:
            said += " and are least alike there too" if least == onset else f" and are **least alike at layer {least}**"
    rank = made.findings["rank_correlation"]
    if rank["rho"] is not None:
        said += ". Rank correlation of 1 − CKA with the effect of patching a layer alone: "
        said += f"{rank['rho']:.2f} over {rank['n']} layers"
    else:
        said += f". No rank correlation with the effect of patching: {md(rank['reason'])}"
    return said + "."


def rates(rows: pd.DataFrame, measure: str, arm: str) -> str:
    """The chosen transplant against the model it changes, in a line of markdown."""
    named = {str(row["model"]): row for row in records(rows)}
    row = named.get(arm)
    if row is None or row[measure] != row[measure]:
        return "Line: the base. Hollow: null by construction."
    own = "donor" if row["reverse"] else "base"
    said = f"{md(arm)}: {row[measure]:.2%}, {own} {named[own][measure]:.2%}" if own in named else md(arm)
    if gap := _gap(row, measure):
        said += f", difference {gap} points"
    method = row.get("interval_method", "")
    counted = f"n = {int(row['n'])} clips of the reporting half"
    return f"{said}. {md(method) if isinstance(method, str) else ''}; {counted}. Line: the base."


def table(arms: pd.DataFrame) -> pd.DataFrame:
    """The result table as a person reads it: rates in percent, intervals in one cell."""
    rows = records(arms)
    shown = pd.DataFrame({"model": arms["model"]})
    for measure, name in (("eer", "EER"), ("accuracy", "accuracy")):
        if measure in arms:
            shown[f"{name}, %"] = [_rate(row, measure) for row in rows]
            shown[f"Δ {name}, points"] = [_gap(row, measure) for row in rows]
    for column in [str(c) for c in arms if str(c).startswith("probe_") and str(c).endswith("_accuracy")]:
        subset = column.removeprefix("probe_").removesuffix("_accuracy")
        chance = arms[f"probe_{subset}_chance"].dropna()
        title = f"domain probe, {subset}" + (f" (chance {chance.iloc[0]:.2f})" if len(chance) else "")
        shown[title] = arms[column].round(3)
    shown["score moved, mean |Δ|"] = arms["score_change_mean"].round(4)
    shown["toward the other model"] = arms["recovered"].round(3)
    shown["forwards a clip"] = arms["forwards_per_clip"]
    shown["needs donor"] = arms["needs_donor"]
    return shown.assign(notes=[_notes(row) for row in rows])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dicts."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _notes(row: Mapping[str, Any]) -> str:
    probe = row.get("probe_note")
    said = [f"null: {row['null']}" if row["null"] else "", row["chosen"], row["notes"]]
    return "; ".join(filter(None, [*said, f"probe: {probe}" if isinstance(probe, str) and probe else ""]))


def cka_hover(row: Mapping[str, Any], estimate: str) -> str:
    """Interval and count of one cell, or why it has no value."""
    if not math.isfinite(row[estimate]):
        return str(row["reason"])
    low, high = row[f"{estimate}_low"], row[f"{estimate}_high"]
    between = f"95 % interval {low:.3f} to {high:.3f}" if low == low else str(row["interval_method"])
    return f"{between}\nn = {int(row['n'])} clips"


def heard(made: Comparison, clip: Clip) -> str:
    """A clip's name for the player: what it is and in which codec."""
    columns = made.findings["columns"]
    said = [clip.label(columns[name]) for name in ("label", "domain") if columns[name]]
    return " · ".join([clip.clip_id, *filter(None, said)])


def absent(made: Comparison, view: str) -> str:
    """Why a view has nothing to show."""
    if view == "Domain probe":
        return "No probe was fitted: no column says the domain (codec, channel), or nothing was left to probe."
    return "The clips are not of two classes with a bona fide one, so there are no error rates."


def provenance(shown: ShownComparison) -> str:
    """Where the comparison comes from, in a line of markdown."""
    config = shown.result.config
    made = str(config.get("finished") or config.get("created") or "")[:16].replace("T", " ")
    origin = {
        "job": "Computed by this server",
        "folder": f"From the run folder {md(shown.folder.name if shown.folder else '')}",
        "shipped": "Saved run that ships with the demo, made by the command line",
    }[shown.source]
    hashes = " and ".join(md(str(config[side]["weights_sha256"])[:12]) for side in ("model", "donor"))
    return f"{origin}{' on ' + made if made else ''} · weights {hashes} · {md(shown.result.findings['split'])}"


def computed(made: Comparison) -> None:
    """Methods, checks, versions."""
    config, findings = made.config, made.findings
    with st.expander("How this was computed", icon=":material/fact_check:"):
        columns = ", ".join(f"{name}: {value or 'none'}" for name, value in findings["columns"].items())
        seed, positive = config["settings"]["seed"], findings["positive"] or findings["labels"][0]
        versions = ", ".join(f"{name} {number}" for name, number in config.get("versions", {}).items())
        lines = [
            f"Columns: {md(columns)}.",
            f"CKA intervals: {md(made.cka['interval_method'].iloc[0])}; onset is the first layer below 1 by more than "
            f"{findings['onset_tolerance']:g} (plain, all clips).",
            f"Scores are logit differences ({md(positive)} against the rest), which do not saturate. EER at unique "
            "scores; as the thesis and the challenge compute it, it is in the summary table of the run.",
            f"Probes on at most {findings['probed_clips']} clips; related clips stay on one side of every split.",
            f"On {md(config.get('device'))} in {md(config.get('dtype'))}, seed {seed}; {md(versions)}.",
        ]
        st.markdown("\n".join(f"- {line}" for line in lines))
        checks = findings["checks"].get("checks", [])
        if checks:
            st.caption("Checks before the transplants: largest difference of a logit, and what is allowed.")
            st.dataframe(pd.DataFrame(checks), hide_index=True, alt="The checks before the transplants.")


def limits() -> None:
    """What a comparison does not prove."""
    with st.expander("What this does not prove", icon=":material/info:"):
        st.markdown(LIMITS)


def command(request: CompareRequest, out: str = "runs/again") -> str:
    """The command line that runs a request; settings at their default are left out."""
    s, default = request.settings, CompareSettings()
    said: list[tuple[str, Any, Any]] = [
        ("--model", request.model, None), ("--donor", request.donor or None, None),
        ("--manifest", request.manifest, None), ("--device", request.device, "auto"),
        ("--dtype", request.dtype, "auto"), ("--max-clips", request.max_clips, None), ("--pilot", request.pilot, None),
        ("--part", request.part, ""), ("--probe", request.probe, ""),
        *(("--patch", word, None) for word in (s.patch if s.patch != default.patch else ())),
        ("--stages", ",".join(s.stages), "all"), ("--transplants", ",".join(s.maps) or "none", ",".join(default.maps)),
        ("--transplant-at", ",".join(s.map_at) or None, None), ("--bonafide-index", s.bonafide_index, None),
        *((f"--{name}-column", getattr(s, name), "") for name in ("label", "speaker", "group", "domain", "attack")),
        ("--labels", ",".join(s.labels) or None, None), ("--prompt", s.prompt or None, None),
        ("--probe-draws", s.probe_draws, default.probe_draws), ("--probe-clips", s.probe_clips, default.probe_clips),
        ("--batch-size", s.batch_size, default.batch_size), ("--seed", s.seed, default.seed),
    ]  # fmt: skip
    options = [f"{name}={value}" for name, value, usual in said if value is not None and value != usual]
    flags = {
        "--skip-bad": request.skip_bad, "--no-weights": not s.weights, "--no-reverse": not s.reverse,
        "--skip-null": s.skip_null, "--no-checks": not s.checks,
    }  # fmt: skip
    options += [flag for flag, on in flags.items() if on]
    return " ".join(["python -m interp_core compare", *map(shlex.quote, options), f"--out={shlex.quote(out)}"])


def model_name(model: str) -> str:
    """A model for a person: its bundled name, or the last parts of its path."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.suffix else path.name


def _rate(row: Mapping[str, Any], measure: str) -> str:
    value, low, high = row[measure], row.get(f"{measure}_low", np.nan), row.get(f"{measure}_high", np.nan)
    if value != value:
        return "–"
    return f"{100 * value:.2f}" + (f" ({100 * low:.1f} to {100 * high:.1f})" if low == low else "")


def _gap(row: Mapping[str, Any], measure: str) -> str:
    value = row.get(f"{measure}_difference", np.nan)
    low, high = row.get(f"{measure}_difference_low", np.nan), row.get(f"{measure}_difference_high", np.nan)
    if value != value:
        return ""
    return f"{100 * value:+.2f}" + (f" ({100 * low:+.1f} to {100 * high:+.1f})" if low == low else "")


def _few(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
