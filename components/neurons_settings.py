"""The settings of the pages Neurons and Sign flip as widgets."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from components import state
from components.neurons_runs import common
from interp_core.data.clips import Clip
from interp_core.doors.ablate import AblateRequest, resolve
from interp_core.doors.signflip import SignflipRequest
from interp_core.experiments.ablation import SweepSettings
from interp_core.experiments.ablation_behind import KINDS
from interp_core.experiments.signflip import SignflipSettings
from interp_core.models.subject import Subject
from interp_core.request import PatchRequest
from interp_core.sites import STAGES

FOUND = "found by itself"
FRAMES = {"loudest frame": "max", "all frames": "all"}
REDUCED = {"sum of |gradient × activation|": "sum_abs", "|sum of gradient × activation|": "abs_sum"}


def sites(subject: Subject) -> list[str]:
    """The sites whose neurons can be ablated, as `ablate --at` takes them; the default first."""
    stages = [kind for kind in subject.stages if kind not in ("logits", "mixed")]
    stages.sort(key=lambda kind: (kind != "pooled", STAGES.index(kind)))
    inside = [kind for kind in ("resid_post", "mlp_act", "attn_out", "mlp_out", "head_out") if kind in subject.kinds]
    return [*stages, *(f"{kind}:{layer}" for kind in inside for layer in range(subject.n_layers))]


def ablation_form(request: PatchRequest, subject: Subject, clips: Sequence[Clip]) -> tuple[AblateRequest, bool]:
    """Draw the widgets; the request that they make, and whether Run was pressed."""
    columns = [FOUND, *sorted({name for clip in clips for name in clip.labels})]
    with st.form("neurons_form", border=False):
        left, right = st.columns(2)
        places = sites(subject)
        at = left.selectbox(
            "Site", places, key=state.NEU_SITE, bind=state.BOUND, accept_new_options=True,
            help="Whose neurons are ablated. Behind pooled features only the head runs, so a sweep takes seconds; "
            "inside the blocks everything behind the site runs for every set of neurons.",
        )  # fmt: skip
        kind = right.selectbox(
            "Replaced by", KINDS, key=state.NEU_KIND, bind=state.BOUND,
            help="mean over training clips; zero; the value in a random training clip (resample); its sign turned.",
        )  # fmt: skip
        task = left.selectbox("Task", columns, key=state.NEU_TASK, bind=state.BOUND, help="What the head answers.")
        domain = right.selectbox(
            "Domain", columns, key=state.NEU_DOMAIN, bind=state.BOUND, help="The shortcut: codec, speaker, hospital."
        )
        score = left.selectbox(
            "Ranked by", ("coef", "univariate"), key=state.NEU_SCORE, bind=state.BOUND,
            help="coef: weight in a probe of all neurons. univariate: each neuron by itself.",
        )  # fmt: skip
        draws = right.number_input(
            "Random draws", 0, 1000, 0, key=state.NEU_DRAWS, bind=state.BOUND,
            help="0: 100 where only the head is behind the site, else 10.",
        )  # fmt: skip
        train = left.text_input("Train", "", key=state.NEU_TRAIN, bind=state.BOUND, placeholder="split=train")
        inside = right.text_input("In domain", "", key=state.NEU_ID, bind=state.BOUND, placeholder="split=id_val")
        ood = left.text_input("Out of domain", "", key=state.NEU_OOD, bind=state.BOUND, placeholder="split=ood")
        seed = right.number_input("Seed", 0, 2**31 - 1, 42, key=state.NEU_SEED, bind=state.BOUND)
        refit = st.checkbox("Fit probes again", True, key=state.NEU_REFITS, bind=state.BOUND)
        pressed = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:")
    made = AblateRequest(
        **common(request),
        at="" if at in (None, places[0]) else at,
        task=_named(task),
        domain=_named(domain),
        train=(train or "").strip(),
        id=(inside or "").strip(),
        ood=(ood or "").strip(),
        draws=int(draws) or None,
        sweep=SweepSettings(kind=kind or "mean", score=score or "coef", refits=5 if refit else 0, seed=int(seed)),
    )
    return resolve(made), pressed


def signflip_form(request: PatchRequest, labels: Sequence[str]) -> tuple[SignflipRequest, bool]:
    """Draw the widgets; the request that they make, and whether Run was pressed."""
    with st.form("signflip_form", border=False):
        left, right = st.columns(2)
        target = left.selectbox(
            "Neurons of", labels, key=state.SF_TARGET, bind=state.BOUND, help="The label whose logit is attributed."
        )
        topk = right.number_input(
            "How many", 0, 100_000, 0, key=state.SF_TOPK, bind=state.BOUND,
            help="Of a layer; 0: 50, or an eighth of a narrower one.",
        )  # fmt: skip
        kind = left.selectbox("Edit", ("flip", "zero", "mean", "resample"), key=state.SF_KIND, bind=state.BOUND)
        frames = right.selectbox(
            "At", list(FRAMES), key=state.SF_FRAMES, bind=state.BOUND, help="each neuron's loudest frame, or all frames"
        )
        reduce = st.selectbox(
            "Attribution over time", list(REDUCED), key=state.SF_REDUCE, bind=state.BOUND,
            help="In the second, moments of unlike sign cancel.",
        )  # fmt: skip
        draws = left.number_input("Random draws", 0, 500, 20, key=state.SF_DRAWS, bind=state.BOUND)
        seed = right.number_input("Seed", 0, 2**31 - 1, 42, key=state.SF_SEED, bind=state.BOUND)
        pressed = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:")
    settings = SignflipSettings(
        target="" if target in (None, labels[0]) else target,
        topk=int(topk) or None,
        frames=FRAMES.get(frames or "", "max"),  # type: ignore[arg-type]
        kind=kind or "flip",  # type: ignore[arg-type]
        reduce=REDUCED.get(reduce or "", "sum_abs"),  # type: ignore[arg-type]
        draws=int(draws),
        seed=int(seed),
    )
    return SignflipRequest(**common(request), settings=settings), pressed


def _named(column: str | None) -> str:
    return "" if column in (None, FOUND) else str(column)
