"""What a map of heads says, in sentences: it names verified heads only."""

import math

import pandas as pd

from interp_core.experiments.patching.head_table import named

MOST_NAMED = 5


def head_name(row: pd.Series) -> str:
    """L3H5."""
    return f"L{int(row['layer'])}H{int(row['head'])}"


def headline(rows: pd.DataFrame, agreement: pd.Series) -> str:
    """The verified heads whose effect is told from a random donor's, or that there is none; then the agreement.

    Args:
        rows, agreement: of `summarise_heads`, one kind and question.
    """
    found, verified = named(rows), int((rows["verified"] != "").sum())
    of = f"{verified} of {int(agreement['n_heads'])} heads verified by patches"
    if len(found):
        said = ", ".join(_effect(row) for _, row in found.head(MOST_NAMED).iterrows())
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        said = f"{said}{more} move the target otherwise than a random donor does (adjusted p < .05)"
    elif rows["p_adjusted"].notna().any():
        verified_rows = rows[rows["verified"] != ""]
        best = verified_rows.iloc[int(verified_rows["true_mean"].abs().to_numpy().argmax())]
        said = (
            f"no head moves the target otherwise than a random donor does (adjusted p < .05); the largest verified is "
            f"{_effect(best)}, a random donor {best['random_donor_mean']:+z.2f}"
        )
    else:
        method = rows.loc[rows["verified"] != "", "interval_method"].iloc[0].partition("p: ")[2]
        said = f"no head is named: {method}"
    return f"heads: {said}; {of}, {agreement_text(agreement)}"


def _effect(row: pd.Series) -> str:
    interval = ""
    if not math.isnan(row["true_low"]):
        interval = f", 95 % {row['true_low']:+z.2f} to {row['true_high']:+z.2f}"
    return f"{head_name(row)} ({row['true_mean']:+z.2f} nats{interval})"


def agreement_text(agreement: pd.Series) -> str:
    """Spearman with its interval, and the share of signs that are wrong with its n."""
    rho, low, high = (agreement[name] for name in ("spearman", "spearman_low", "spearman_high"))
    told = "Spearman of estimate and truth "
    told += "undefined" if math.isnan(rho) else f"{rho:z.2f}"
    told += "" if math.isnan(low) else f" (95 % {low:.2f} to {high:.2f})"
    wrong = agreement["wrong_sign_rate"]
    if not math.isnan(wrong):
        told += f", wrong sign in {100 * wrong:.0f} % of {int(agreement['n_signs'])} pairs and heads"
    return told
