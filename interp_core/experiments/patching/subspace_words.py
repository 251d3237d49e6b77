"""What patches within a subspace say, in a sentence."""

import pandas as pd

from interp_core.experiments.wording import p_said
from interp_core.maths.stats import SIGNIFICANT

RATE, CHANGE = "flip_to_target_rate_reachable", "delta_logprob_target_mean"


def at_layer(rows: pd.DataFrame, layer: int) -> dict[str, pd.Series]:
    """Condition -> its row, of one kind of pair at one layer."""
    here = rows[rows["layer"] == layer]
    return {str(row["condition"]): row for _, row in here.iterrows()}


def subspace_summary(rows: pd.DataFrame) -> str:
    """The layer at which the subspace moves the target most, beside the whole state and random subspaces."""
    own = rows[rows["condition"] == "subspace"].set_index("layer")[CHANGE]
    return sentence(rows, int(own.index[int(own.to_numpy().argmax())]))


def sentence(rows: pd.DataFrame, layer: int) -> str:
    """What was exchanged at a layer and what came of it."""
    found = at_layer(rows, layer)
    own, random = found["subspace"], found["random"]
    where = "the embeddings" if layer == -1 else f"layer {layer}"
    rank = int(own["rank"])
    draws = int(own["draws"])
    whole = found["whole"][CHANGE]
    said = (
        f"{rank} direction{'s' * (rank > 1)} at {where}, {own['share']:.1%} of the squared difference of A and B, "
        f"change{'s' * (rank == 1)} the target's log-probability by {own[CHANGE]:+z.2f} nats; {draws} random "
        f"subspace{'s' * (draws > 1)} by {random[CHANGE]:+z.2f} ({random['share']:.1%}), "
        f"the whole state by {whole:+z.2f}"
    )
    p = own["p_adjusted"]
    if p == p:
        said += f"; adjusted {p_said(p)} against the random ones"
        said += "" if p < SIGNIFICANT else ", not told from them"
    elif "not testable" in own["interval_method"]:
        said += f"; {own['interval_method'][own['interval_method'].index('not testable') :]}"
    if own["reachable_count"]:
        said += f". Flips of {int(own['reachable_count'])} reachable pairs: {own[RATE]:.0%}, {random[RATE]:.0%} and "
        said += f"{found['whole'][RATE]:.0%}"
    return said
