"""What a reader of a curve has to know: the numbers behind it, how they were made, and what they do not show."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from components.results import Indexed, Shown
from components.words import md

LIMITS = """
- A flip shows that the representation at this layer and these positions **has a causal effect** on the answer. It does
  not show that the information lives only there: other layers and positions may carry it too.
- A patched state can be one that the model never meets by itself. That is what the strength alpha and the matched-noise
  control are for: an effect that noise of the same norm has as well is damage, not information.
- Semantic pairs differ in words, and so in sound: the report of the pairs says by how much in duration, F0 and level.
- *Reachable* pairs are those whose answer is not yet the target and whose donor itself gets the target; the rate over
  all pairs is lower by what the model cannot do in the first place.
- The logit lens reads layers with the final readout, for which only the last of them was trained.
"""
LOW_MASS = 0.5


def numbers(index: Indexed, kind: str, prompt: int, alpha: float) -> None:
    """The curve as a table."""
    with st.expander("Numbers behind the curve", icon=":material/table:"):
        table = index.metrics(kind, prompt, alpha)
        first = ["condition", "layer", "n", "reachable_count", "flip_to_target_rate_reachable"]
        st.dataframe(
            table[first + [column for column in table if column not in [*first, "kind", "prompt", "alpha"]]],
            hide_index=True,
            alt="The metrics table of this kind, question and strength.",
        )


def computed(shown: Shown) -> None:
    """Methods, checks, intervals and versions of the run."""
    config, reports = shown.result.config, shown.result.reports
    metrics = shown.result.metrics
    with st.expander("How this was computed", icon=":material/fact_check:"):
        methods = ", ".join(f"{name} {count:,} patches" for name, count in shown.index.methods.items())
        lines = [f"Routes taken: {methods}."]
        if refusal := config.get("shortcut_refusal"):
            lines.append(f"The causal shortcut was not used: {md(refusal)}.")
        if probe := config["model"].get("probe"):
            lines.append(f"Readout: {_probe_line(probe)}")
        for method in metrics.loc[metrics["condition"] == "matched", "interval_method"].dropna().unique()[:3]:
            lines.append(f"Intervals: {md(method)}.")
        lines.append(
            "Adjusted p: signs of matched minus random flipped a cluster, maximum over layers; ✱ marks p < .05."
        )
        device = f"{config.get('device')} in {config.get('dtype')}"
        versions = ", ".join(f"{name} {number}" for name, number in config.get("versions", {}).items())
        lines.append(f"On {md(device)}, seed {config['settings']['seed']}; {md(versions)}.")
        st.markdown("\n".join(f"- {line}" for line in lines))
        mass = metrics.loc[metrics["condition"] == "matched", "label_mass_mean"].min()
        if mass < LOW_MASS:
            st.warning(
                f"At some layers only {100 * mass:.0f} % of the probability is on the answer words: the model wants to "
                "say something else there."
            )
        _checks(reports.get("sanity_check_self_patch", {}))


def _probe_line(probe: dict) -> str:
    held_out, chance = probe["held_out_balanced_accuracy"], f"chance {probe['chance']:.2f}"
    scored = f"balanced accuracy on held-out {md(probe['groups'])}s {held_out:.2f}, {chance}" if held_out else ""
    return (
        f"a logistic probe of {md(probe['column'])} on the last layer, fitted to {probe['clips']} clips; "
        f"{scored or 'not scored: ' + md(probe['reason'])}."
    )


def by_construction(shown: Shown) -> None:
    """Say so where every position of the residual stream was replaced and nothing else is read."""
    if shown.result.config.get("donors_answer_by_construction"):
        st.warning(
            "All positions of the residual stream were replaced, and this model reads nothing else: the donor's answer "
            "comes out by construction, at every layer. Patch attn_out, mlp_out, single heads or a time window instead."
        )


def _checks(report: dict) -> None:
    checks = report.get("checks", [])
    if not checks:
        st.caption("The checks before the sweep were skipped.")
        return
    st.caption("Checks before the sweep: largest difference of a label logit, and what is allowed.")
    table = pd.DataFrame(
        {
            "check": [check["check"] for check in checks],
            "method": [check.get("method", "") for check in checks],
            "difference": [f"{check['max_difference']:.1e}" for check in checks],
            "allowed": [f"{check['allowed']:.1e}" for check in checks],
            "passed": ["yes" if check["passed"] else "no" for check in checks],
        }
    )
    st.dataframe(table, hide_index=True, alt="The checks that ran before the sweep.")


def limits() -> None:
    """What a flip does not prove."""
    with st.expander("What a flip does not prove", icon=":material/info:"):
        st.markdown(LIMITS)


def provenance(shown: Shown, weights_agree: bool) -> str:
    """Where the run on show comes from, in a line of markdown."""
    config = shown.result.config
    made = str(config.get("finished") or config.get("created") or "")[:16].replace("T", " ")
    kinds: dict[str, int] = {}
    for line in shown.result.pairs:
        kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
    counted = " + ".join(f"{count} {md(kind)}" for kind, count in kinds.items())
    origin = {
        "job": "Computed by this server",
        "folder": f"From the run folder {md(shown.folder.name if shown.folder else '')}",
        "shipped": f"Saved run that ships with {md(Path(str(config['model']['id'])).name)}, made by the command line",
    }[shown.source]
    parts = [origin + (f" on {made}" if made else ""), f"{counted} pairs"]
    if weights_agree:
        parts.append("weights checked: those of the open model")
    return " · ".join(parts)


def base_accuracy(shown: Shown, names: list[str]) -> pd.DataFrame:
    """Base accuracy against the label columns, one row a question."""
    saved = shown.result.reports.get("pair_construction_report", {}).get("base_accuracy", [])
    table = saved if isinstance(saved, pd.DataFrame) else pd.DataFrame(saved)
    if table.empty:
        return table
    table = table.assign(
        question=[names[int(number)] if int(number) < len(names) else str(number) for number in table["prompt"]]
    )
    return table[["question", "column", "n", "accuracy", "majority"]]
