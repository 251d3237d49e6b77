"""The frame of every experiment's page: title, settings and Run, its job, the run on show with its export.

A page brings what only it knows: which models suit it, what they have to choose from, and the view of a run. Without a
view the run's own figure and tables are shown, so that an experiment needs no more than its line in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import streamlit as st

from components import (
    defaults,
    export,
    form,
    heard,
    jobs_panel,
    label_map,
    models,
    page_style,
    server,
    state,
    toolbar,
    visitors,
)
from components import shown as runs
from components.charts import clicks, so_far
from components.clips import owner
from components.guard import Ended, readable_errors, show
from components.shown import Shown
from components.widgets import choosing
from components.words import md
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.basis import TITLE
from interp_core.experiments.basis import line as basis
from interp_core.experiments.experiment import start
from interp_core.jobs import Job
from interp_core.models.subject import Subject
from interp_core.options import declared
from interp_core.request import Request, short_name

View = Callable[[Shown, Any, Subject], export.Drawn | None]


def draw(
    command: str,
    *,
    title: str,
    lead: str,
    explore: View | None = None,
    without_run: Callable[[Any, Subject], None] | None = None,
    suits: Callable[[Subject, Any], None] = lambda subject, usual: None,
    offers: Callable[[Subject, Any], form.Offers] = lambda subject, usual: {},
    ask: Callable[[Request], Any | None] | None = None,
    fill: Callable[[Any], Any] = lambda request: request,
    facts: Callable[[Shown], Collection[str]] = lambda shown: [f"{md(shown.config['manifest']['clips'])} clips"],
    skip: Collection[str] = (),
    run: str = "Run",
    answers: bool = True,
) -> None:
    """Draw the whole page of an experiment.

    Args:
        explore: draws a run, in a fragment of its own: (run, request, model) -> the figure on screen, for its export.
        without_run: draws, where there is no run, what needs none: (request, model).
        suits: InterpError that says why this model has nothing to show here.
        offers: choices that only an open model and its clips know, by field; see `form.draw`.
        ask: the request with its usual settings, where the page asks for more than the sidebar's; None while something
            is missing.
        fill: what a request leaves open, so that the form can show it.
        facts: what the line about the run on show says beside its origin, as markdown; how many clips it has.
        skip: settings that are asked for elsewhere. run: what the form's button says.
        answers: whether the model has to answer something.
    """
    heading = st.container(key=page_style.HEADING, horizontal=True, vertical_alignment="center")
    heading.title(title, anchor=False)
    heading.markdown(lead)
    actions = heading.container(width="content")
    if linked := state.linked_run():
        _linked(command, linked, explore, facts)
        return
    base: Request = st.session_state[state.REQUEST]
    usual = ask(base) if ask else defaults.usual(defaults.with_common(EXPERIMENTS[command].request(), base))
    if usual is None:
        _offer_demos(command)
        return
    coming = st.container()
    try:
        subject = models.require(usual, answers=answers)
    except Ended:
        with coming:
            _says_what_comes(usual)
        _preview(usual, facts)
        raise
    try:
        suits(subject, usual)
    except InterpError as error:
        st.info(f"This page has nothing to show for {md(short_name(usual.model))}: {md(error)}")
        _offer_demos(command)
        return
    usual = fill(usual)
    offered = offers(subject, usual)
    opened = state.open_settings(command)
    with actions.popover("Settings and run", icon=":material/tune:", key=opened, on_change=lambda: None):
        filled, above_buttons = form.draw(usual, offers=offered, skip=skip, run=run)
    for fault in filled.faults:
        show(fault)
    asked = fill(filled.request)
    if filled.pressed:
        if begin(asked, offers=True):
            state.note_begun()
            st.rerun()
        return
    try:
        key = server.engine().key_of(asked)
    except InterpError as error:
        show(error)
        return
    if filled.weighed:
        with above_buttons:
            if cost := _weigh(key, asked):
                st.info(md(f"{cost}."), icon=":material/timer:")
    if not _current(asked, key, explore, facts) and without_run is not None:
        _needs_no_run(asked, without_run)


def begin(asked: Request, offers: bool = False) -> bool:
    """Check a request and start it as a job; False, and a sentence on the page, where something is wrong with it.

    Args:
        offers: whether labels that are no answers can be mapped there; a page has room for one such form.
    """
    try:
        with st.spinner("Checking the model, the clips and the settings …"):
            made = experiment_of(asked.command)
            visitors.asked(start(made, server.engine(), asked, server.runs_folder(), server.runner()))
    except InterpError as error:
        show(error)
        if offers:
            label_map.offer_beside(error, asked.command, asked)
        return False
    return True


@st.fragment
def _needs_no_run(asked: Request, draw_it: Callable[[Any, Subject], None]) -> None:
    with readable_errors():
        draw_it(asked, models.require(asked, answers=False, donor=False))


def _current(asked: Request, key: str, explore: View | None, facts: Callable[[Shown], Collection[str]]) -> bool:
    """The job of a request that the engine knows by `key`, and the run to show for it; whether there is one."""
    job = server.engine().jobs.get(key)
    running = job is not None and job.active
    if job is not None and job.active:
        jobs_panel.watch(job, _so_far)
    elif job is not None and job.error:
        show(job.error)
    folders = runs.kept_folders(asked, key)
    waits = not running and bool(folders) and runs.waits(folders[0])
    if waits:
        stopped = "stopped" if job is not None and job.status == "cancelled" else "begun and not finished"
        st.info(f"A run with these settings was {stopped}; what is done is not computed again.")
        if st.button("Go on with it", type="primary", icon=":material/resume:", key="go_on") and begin(asked):
            st.rerun()
    elif job is not None and job.status == "cancelled":
        st.info("The run was stopped before anything was done.")
    shown = runs.current(asked, key)
    if state.link_asks(asked.command) and job is None and not waits and _is_another(shown) and _may_start(asked):
        if begin(asked):
            st.rerun()
    if shown is not None:
        if shown.differences:
            _says_other(asked, shown, idle=not (running or waits))
        _run(shown, asked, explore, facts)
        return True
    if not (running or waits):
        cost = _weigh(key, asked)
        nothing = "Nothing has been computed for these settings yet."
        if cost is None:
            st.info(f"{nothing} They can be mended under *Settings and run* and in the sidebar.")
            if st.session_state.get(state.CLIPS) and server.engine().demo(asked.model):
                st.button(
                    "Back to the model's own clips", icon=":material/undo:", key="back_to_own",
                    on_click=choosing(state.CLIPS), args=("",),
                    help=f"Now *Clips* in the sidebar are those of {md(st.session_state[state.CLIPS])}.",
                )  # fmt: skip
            return False
        st.info(f"{nothing} {md(cost)}.")
        with st.container(horizontal=True):
            pressed = st.button("Run it now", type="primary", icon=":material/play_arrow:", key=f"run_{asked.command}")
            _offer_demos(asked.command)
        if pressed and begin(asked):
            st.rerun()
    return False


def _says_what_comes(usual: Request) -> None:
    """What a link asks for, while its model is still being opened."""
    said = state.asked_by_link(usual.command, {one.name: one.title for one in declared(type(usual))})
    if said:
        then = "Then the run starts, and its curves stand here as they come." if _may_start(usual) else ""
        st.info(f"This link asks for {md('; '.join(said))}. The model is opened first. {then}", icon=":material/link:")


def _is_another(shown: Shown | None) -> bool:
    """Whether nothing that is kept answers what is asked."""
    return shown is None or bool(shown.differences)


def _may_start(asked: Request) -> bool:
    """Whether a link alone may start a run: of bundled models, where the server lets it."""
    return server.links_run() and all(map(state.ships, (*asked.models, *asked.adapters)))


def _says_other(asked: Request, shown: Shown, *, idle: bool) -> None:
    """In what the run on show is not what is set, and the way to that."""
    st.info(f"Not what is set now: {'; '.join(map(md, shown.differences))}.{' Run it to see that.' if idle else ''}")
    if idle and st.button("Run it now", icon=":material/play_arrow:", key=f"run_{asked.command}") and begin(asked):
        st.rerun()


def _weigh(key: str, asked: Request) -> str | None:
    """Say what there is to know before a run, and return what it will cost; None where something is wrong with it."""
    try:
        notes, cost = _prepared(key, asked)
    except InterpError as error:  # to be set before it can run
        st.warning(md(form.for_a_person(str(error), type(asked))))
        label_map.offer_beside(error, asked.command, asked)
        return None
    for note in notes:
        (st.warning if "dentical" in note else st.caption)(md(note))
    return cost


def _so_far(job: Job[Any]) -> None:
    """The curves of a run that goes on, in the place where its result will be."""
    curves = job.so_far() if job.so_far is not None else None
    if curves is None or curves.empty:
        return
    fewest, most = int(curves["n"].min()), int(curves["n"].max())
    n = f"{most:d}" if fewest == most else f"{fewest:d} to {most:d}"
    st.caption(f"So far, of n = {n}: no intervals and no controls yet, and the numbers still move.")
    clicks.show(so_far.figure(curves), key=state.SO_FAR, alt=so_far.alt(curves))


@st.cache_resource(max_entries=8, show_spinner="Opening the models and reading the clips …")
def _prepared(key: str, _asked: Request) -> tuple[tuple[str, ...], str]:
    """What there is to know before a run, and what it will cost; `key` names the request."""
    made = experiment_of(_asked.command)
    ready = made.prepare(server.engine(), _asked)
    return ready.notes, str(made.cost(ready))


def _linked(command: str, name: str, explore: View | None, facts: Callable[[Shown], Collection[str]]) -> None:
    """The run that a link names, in the place of what is set."""
    where = "that this server has in memory" if server.engine().jobs.get(name) is not None else f"in {md(name)}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Shown is the run {where}, whatever is set.")
        st.button("Back to the settings", on_click=state.leave_linked_run, icon=":material/arrow_back:")
    shown = runs.linked(name)
    owner.refuse_foreign((shown.config.get("manifest") or {}).get("path"))
    if shown.command != command:
        raise InterpError(f"{name} holds a run of {shown.command!r}, which another page shows.")
    asked = replace(shown.request, device="auto", dtype="auto", max_seconds=server.clip_limits().max_seconds)
    for model, adapter in zip(asked.models, asked.adapters, strict=True):
        models.require_approval(model)
        models.require_approval(adapter, "an adapter")
    _run(shown, asked, explore, facts)


@st.fragment
def _run(shown: Shown, asked: Request, explore: View | None, facts: Callable[[Shown], Collection[str]]) -> None:
    """The run on show: where it comes from and its export above it, then the view. A click reruns this alone.

    The model is no argument: a fragment keeps its arguments for as long as somebody has the page open.
    """
    with readable_errors():
        subject = models.require(asked, answers=False, donor=False)
        bar = st.container(key=page_style.BAR, horizontal=True, vertical_alignment="center")
        since = runs.changed_since(shown, asked)
        bar.caption(runs.origin(shown, *facts(shown)))
        exports = bar.container(width="content")
        sound = runs.sound(shown, subject.weights_hash, since)
        if not sound:
            st.caption(runs.checked(shown, subject.weights_hash, since))
        if since:
            st.warning(
                f"Not of the files as they are now. Changed since this run: {md('; '.join(since))}. Run it again."
            )
        label_map.offer(shown.command, asked, shown.config)
        drawn = (explore or plain)(shown, asked, subject)
        with exports, st.container(horizontal=True, gap="small"):
            toolbar.draw(shown.key)
            export.menu(shown, drawn, asked)
        if sound:
            st.caption(runs.checked(shown, subject.weights_hash, since))
        st.caption(f"{TITLE}: {md(form.for_a_person(basis(shown.config), type(asked)))}")


def plain(shown: Shown, asked: Request, subject: Subject | None) -> None:
    """A run without a view of its own: its figure and its tables."""
    st.image(export.picture(shown.result.figure(), "png"))
    tables = {name: table for name, table in shown.result.tables().items() if len(table)}
    clips = heard.clips_of(shown) if any(map(heard.names_clips, tables.values())) else {}
    for name, table in tables.items():
        with st.expander(f"{md(name)} ({len(table)} rows)", icon=":material/table:"):
            heard.table(table, clips, alt=f"The table {name} of the run.")


def _preview(usual: Request, facts: Callable[[Shown], Collection[str]]) -> None:
    """The run that ships with a model, as its folder has it, where the model itself cannot be asked yet."""
    saved = runs.shipped(usual)
    if saved is not None:
        st.caption(f"{runs.origin(saved, *facts(saved))}. Once the model is open it can be clicked and heard.")
        if since := runs.changed_since(saved, usual):
            st.warning(f"Not of the files as they are now. Changed since this run: {md('; '.join(since))}.")
        plain(saved, usual, None)
        st.caption(f"{TITLE}: {md(form.for_a_person(basis(saved.config), type(usual)))}")


def _offer_demos(command: str) -> None:
    """The bundled models that have a run to show here, where another one is chosen in the sidebar."""
    base = st.session_state[state.REQUEST]
    names = [name for name in runs.demos_with(command) if name != base.model]
    with st.container(horizontal=True):
        for name in names:
            st.button(
                f"Look at {md(short_name(name))} instead",
                key=f"instead_{name}",
                on_click=state.choose_model,
                args=(name,),
                icon=":material/graphic_eq:",
            )


def plain_page(command: str) -> Callable[[], None]:
    """The page of an experiment that is registered and has no page of its own."""

    def page() -> None:
        about = EXPERIMENTS[command].request.about
        draw(command, title=md(command.capitalize()), lead=md(f"{about[:1].upper()}{about[1:]}."), answers=False)

    page.__name__ = command
    return page
