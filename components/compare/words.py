"""A comparison in words: what is identical, what a point and a transplant say, what none of it proves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from components.charts.words import shortened
from components.compare.charts import point_name
from components.shown import Shown
from components.words import md
from interp_core.data.clips import Clip
from interp_core.errors import few
from interp_core.experiments.compare.limits import LIMITS
from interp_core.experiments.compare.report import undefined_before_onset
from interp_core.experiments.compare.run import Comparison
from interp_core.experiments.compare.transplants import ERASURES
from interp_core.request import short_name


def banner(made: Comparison) -> None:
    """Identical parts and what follows from them, before anything is read off the pictures."""
    null = made.parts["null_by_construction"]
    identical = made.parts["identical_in_words"]
    if identical:
        forward = [name for name in null if not name.startswith("reverse")]
        st.warning(
            f"**Identical in both models: {md(', '.join(identical))}.**"
            + (
                f" {len(forward)} transplants are therefore null by construction: {md(few(forward, 5))}."
                if forward
                else ""
            ),
            icon=":material/content_copy:",
        )


def notes(made: Comparison) -> None:
    """What the two models have in common and what that means for the numbers."""
    st.markdown("\n".join(f"- {md(note)}" for note in made.parts["notes"]))


def best(transplants: pd.DataFrame) -> str:
    """Base, donor, and the transplant that moves the base's rate furthest toward the donor, in a line of markdown."""
    measure = next((name for name in ("eer", "accuracy") if name in transplants), None)
    named = {str(row["model"]): row for row in records(transplants)}
    if measure is None or not {"base", "donor"} <= named.keys():
        return ""
    base, donor = named["base"][measure], named["donor"][measure]
    word = {"eer": "EER", "accuracy": "Accuracy"}[measure]
    said = f"**{word}**: base {base:.2%}, donor {donor:.2%}"
    tried = [
        (name, row[measure]) for name, row in named.items()
        if row["mode"] and row["mode"] not in ERASURES and not row["null"] and not row["reverse"]
        and row[measure] == row[measure]
    ]  # fmt: skip
    if tried and base == base and donor == donor:
        name, value = min(tried, key=lambda one: abs(one[1] - donor))
        said += f"; nearest to the donor with a transplant: {md(name)}, {value:.2%}"
    return f"{said}."


def moved_most(made: Comparison, known: Mapping[str, Clip], model: str) -> pd.DataFrame:
    """One row a clip that is still there: its score in the base and in a model, and how far it moved."""
    scores = made.scores[made.scores["model"].isin(["base", "donor", model])]
    wide = scores.pivot(index="clip_id", columns="model", values="score")
    facts = scores[scores["model"] == "base"].set_index("clip_id")[["label", "half"]]
    table = facts.join(wide).assign(moved=wide[model] - wide["base"])
    table = table.assign(size=table["moved"].abs()).sort_values("size", ascending=False, kind="stable")
    columns = list(dict.fromkeys(["moved", "base", model, "donor", "label", "half"]))
    return table[columns][[clip_id in known for clip_id in table.index]]


def at_point(made: Comparison, point: str, representation: str) -> None:
    """The selected layer or stage in two sentences."""
    rows = made.cka[(made.cka["representation"] == representation) & (made.cka["base_point"] == point)]
    row = rows[rows["donor_point"] == point].iloc[0]
    if row["unbiased"] == row["unbiased"]:
        text = f"**{md(point_name(point)).capitalize()}**: unbiased CKA {row['unbiased']:.3f}"
        if row["unbiased_low"] == row["unbiased_low"]:
            text += f" (95 % interval {row['unbiased_low']:.3f} to {row['unbiased_high']:.3f})"
        text += f", plain {row['plain']:.3f}"
    else:
        text = f"**{md(point_name(point)).capitalize()}**: no CKA, {md(row['reason'])}"
    transplants = made.summary[(made.summary["sites"] == point) & (made.summary["mode"] == "donor")]
    transplants = transplants[~transplants["reverse"].astype(bool)]
    if len(transplants) and transplants["n"].notna().all():
        transplant = transplants.iloc[0]
        moved = (
            "exactly 0"
            if transplant["score_change_max"] == 0
            else f"{transplant['score_change_mean']:.3g} nats on average"
        )
        text += f". The donor's activation there moves the score by {moved}"
        text += " (null by construction)." if transplant["null"] else "."
    else:
        text += "."
    st.markdown(text)


def found(made: Comparison) -> str:
    """Where the models part, where they are least alike, and whether that is where transplants act."""
    onset, least = made.findings["onset"], made.findings["most_divergent"]
    if onset is None:
        said = f"The models are alike at every layer (CKA 1){undefined_before_onset(made.findings)}"
    else:
        said = f"The models **part at layer {md(onset)}**"
        if least is not None:
            said += (
                " and are least alike there too" if least == onset else f" and are **least alike at layer {md(least)}**"
            )
        said += undefined_before_onset(made.findings)
    rank = made.findings["rank_correlation"]
    if rank["rho"] is not None:
        said += ". Rank correlation of 1 − CKA with the effect of patching a layer alone: "
        said += f"{rank['rho']:z.2f} over {md(rank['n'])} layers"
    else:
        said += f". No rank correlation with the effect of patching: {md(rank['reason'])}"
    return said + "."


def rates(rows: pd.DataFrame, measure: str, transplant: str) -> str:
    """The chosen transplant against the model it changes, in a line of markdown."""
    named = {str(row["model"]): row for row in records(rows)}
    row = named.get(transplant)
    if row is None or row[measure] != row[measure]:
        return "Line: the base. Hollow: null by construction."
    own = "donor" if row["reverse"] else "base"
    said = f"{md(transplant)}: {row[measure]:.2%}, {own} {named[own][measure]:.2%}" if own in named else md(transplant)
    if gap := _gap(row, measure):
        said += f", difference {gap} points"
    method = row.get("interval_method", "")
    counted = f"n = {int(row['n'])} clips of the reporting half"
    return f"{said}. {md(method) if isinstance(method, str) else ''}; {counted}. Line: the base."


def table(transplants: pd.DataFrame) -> pd.DataFrame:
    """The result table as a person reads it: rates in percent, intervals in one cell."""
    rows = records(transplants)
    shown = pd.DataFrame({"model": transplants["model"]})
    for measure, name in (("eer", "EER"), ("accuracy", "accuracy")):
        if measure in transplants:
            shown[f"{name}, %"] = [_rate(row, measure) for row in rows]
            shown[f"Δ {name}, points"] = [_gap(row, measure) for row in rows]
    for column in [str(c) for c in transplants if str(c).startswith("probe_") and str(c).endswith("_accuracy")]:
        subset = column.removeprefix("probe_").removesuffix("_accuracy")
        chance = transplants[f"probe_{subset}_chance"].dropna()
        title = f"domain probe, {subset}" + (f" (chance {chance.iloc[0]:.2f})" if len(chance) else "")
        shown[title] = transplants[column].round(3)
    shown["score moved, mean |Δ|"] = transplants["score_change_mean"].round(4)
    shown["toward the other model"] = transplants["recovered"].round(3)
    shown["forwards a clip"] = transplants["forwards_per_clip"]
    shown["needs donor"] = transplants["needs_donor"]
    return shown.assign(notes=[_notes(row) for row in rows])


def erased(made: Comparison) -> str:
    """What erasing the concept in the base did at each site beside its control, in markdown; "" of a run without."""
    found = made.findings.get("erased")
    if not found:
        return ""
    lines, rows = [], records(made.summary)
    for site, about in found["sites"].items():
        said = f"- **{md(site)}**, rank {about['rank']:d}, learned on {about['clips']:d} clips of the choosing half: "
        parts = []
        for mode, name in (("erasure", "erased"), ("random erasure", "a random subspace")):
            row = next(one for one in rows if one["mode"] == mode and one["sites"] == site)
            measured = [
                f"{word} {row[measure]:.2%}, by {_gap(row, measure)} points"
                for measure, word in (("eer", "EER"), ("accuracy", "accuracy"))
                if measure in row and row[measure] == row[measure]
            ]
            probes = [c for c in row if c.startswith("probe_") and c.endswith("_accuracy") and row[c] == row[c]]
            for column in probes:
                subset = column.removeprefix("probe_").removesuffix("_accuracy")
                chance, gap = row[f"probe_{subset}_chance"], row[f"probe_{subset}_difference"]
                measured.append(f"domain probe of {md(subset)} {row[column]:.2f} ({gap:+z.2f}, chance {chance:.2f})")
            parts.append(f"{name}: {', '.join(measured)}")
        lines.append(said + "; ".join(parts) + ".")
    return "\n".join([f"**{md(found['column'])} erased in the base** (LEACE)", "", *lines])


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
    return " · ".join([shortened(clip.clip_id, 16), *filter(None, said)])


def absent(made: Comparison, view: str) -> str:
    """Why a view has nothing to show."""
    if view == "Domain probe":
        return "No probe was fitted: no column says the domain (codec, channel), or nothing was left to probe."
    return "The clips are not of two classes with a bona fide one, so there are no error rates."


def counted(shown: Shown) -> list[str]:
    """The donor and the halves of the run on show, in markdown."""
    donor = shown.config["donor"]
    named = f"with {md(short_name(str(donor['id'])))}, weights {md(str(donor['weights_sha256'])[:12])}"
    return [named, md(shown.result.findings["split"])]


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
            f"Probes on at most {md(findings['probed_clips'])} clips; related clips stay on one side of every split.",
            f"On {md(config.get('device'))} in {md(config.get('dtype'))}, seed {md(seed)}; {md(versions)}.",
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
    return f"{100 * value:+z.2f}" + (f" ({100 * low:+z.1f} to {100 * high:+z.1f})" if low == low else "")
