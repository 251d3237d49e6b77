"""What a reader of a curve has to know: the numbers behind it, how they were made, and what they do not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pandas as pd
import streamlit as st

from components import state
from components.patching.results import Indexed
from components.shown import Shown
from components.widgets import folded
from components.words import md
from interp_core.experiments.patching.limits import LIMITS

LOW_MASS = 0.5


CONDITIONS = {
    "random": "**random donor**: the same patch from another clip, not of the target, in B's place",
    "noise": "**matched noise**: noise as strong as the activation that it replaces, and no B",
    "no-conflict": "**no conflict**: A and B agree in voice and words, so no answer should change",
}
OF_MEANS = {
    **CONDITIONS,
    "random": "**random donor**: the mean of another class, that of a clip drawn at random, in the target's place",
    "no-conflict": "**no conflict**: A agrees with the class in voice and words, so no answer should change",
}
COUNTED = {
    "reachable": "**reachable**: A does not answer the target yet, and B itself does",
    "eligible": "**eligible**: A does not answer the target yet",
}
WHAT_A_KIND_ASKS = {
    "prosody": "**prosody**: the same words in another voice",
    "semantic": "**semantic**: other words in the same voice",
}

EDITED = "**edit**: B is A with its sound edited, and the target the model's own answer to B"


def words(kind: str, question: str, counted: str, conditions: Collection[str], means: bool) -> None:
    """The question that was asked, and what the words in the curve mean, for who sees it the first time."""
    said = [f"Asked: “{md(question)}”"] if question else []
    said += [WHAT_A_KIND_ASKS[kind]] if kind in WHAT_A_KIND_ASKS else [EDITED] if kind.startswith("edit~") else []
    said += [COUNTED[counted]] if counted in COUNTED else []
    said += [text for condition, text in (OF_MEANS if means else CONDITIONS).items() if condition in conditions]
    if said:
        st.caption("; ".join(said) + ".")


def donor(shown: Shown) -> None:
    """What the donor was and of how many clips, where it is a class mean."""
    for said in shown.result.remarks():
        st.caption(
            f"{md(said[0].upper() + said[1:])}. It stands at every position that is replaced; B is the clip that says "
            "which pairs are reachable."
        )


def numbers(index: Indexed, kind: str, prompt: int, alpha: float) -> None:
    """The curve as a table."""
    fold = folded("Numbers behind the curve", ":material/table:", key=state.FOLD_NUMBERS)
    if not fold.open:  # a table that nobody sees would be sent and laid out at each click
        return
    with fold:
        table = index.metrics(kind, prompt, alpha)
        first = ["condition", "layer", "n", "reachable_count", "flip_to_target_rate_reachable"]
        st.dataframe(
            table[first + [column for column in table if column not in [*first, "kind", "prompt", "alpha"]]],
            hide_index=True,
            alt="The metrics table of this kind, question and strength.",
        )


def computed(shown: Shown, index: Indexed) -> None:
    """Methods, checks, intervals and versions of the run."""
    config, reports = shown.result.config, shown.result.reports
    metrics = shown.result.metrics
    fold = folded("How this was computed", ":material/fact_check:", key=state.FOLD_COMPUTED)
    if not fold.open:
        return
    with fold:
        methods = ", ".join(f"{md(name)} {count:,} patches" for name, count in index.methods.items())
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
        lines.append(f"On {md(device)}, seed {md(config['settings']['seed'])}; {md(versions)}.")
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
        f"a logistic probe of {md(probe['column'])} on the last layer, fitted to {md(probe['clips'])} clips; "
        f"{scored or 'not scored: ' + md(probe['reason'])}."
    )


def by_construction(shown: Shown) -> None:
    """Say so where every position of the residual stream was replaced and nothing, or padding alone, is read beside."""
    if shown.result.config.get("donors_answer_by_construction"):
        st.warning(
            "All positions of the residual stream were replaced, and this model reads nothing else: the donor's answer "
            "comes out by construction, at every layer. Patch attn_out, mlp_out, single heads or a time window instead."
        )
    elif shown.result.config.get("donors_answer_but_for_padding"):
        st.warning(
            "All heard positions of the residual stream were replaced, and only the padding stays the recipient's: the "
            "donor's answer comes out nearly by construction, at every layer. Patch attn_out, mlp_out, single heads or "
            "a time window instead."
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


def counted(shown: Shown) -> list[str]:
    """How many pairs of each kind the run on show has, in markdown."""
    kinds = Counter(line["kind"] for line in shown.result.pairs)
    return [" + ".join(f"{count:d} {md(kind)}" for kind, count in kinds.items()) + " pairs"]


def base_accuracy(shown: Shown | None, names: list[str]) -> None:
    """Base accuracy of the run on show against the label columns, one row a question."""
    saved = shown.result.reports.get("pair_construction_report", {}).get("base_accuracy", []) if shown else []
    table = saved if isinstance(saved, pd.DataFrame) else pd.DataFrame(saved)
    if table.empty:
        return
    table = table.assign(
        question=[names[int(number)] if int(number) < len(names) else str(number) for number in table["prompt"]]
    )
    table = table[["question", "column", "n", "accuracy", "majority"]]
    st.dataframe(table, hide_index=True, alt="Base accuracy a question and label column.")
    st.caption("Over the clips of the pairs of the run on show; majority is what a constant answer gets.")
