"""What can be done with a run: open it on its page, go on with it, take it along, note something, delete it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import streamlit as st

from components import jobs_panel, server, state, visitors
from components.export import file_name
from components.guard import show
from components.runs import pack
from components.runs.rows import Row, job_of, registered
from components.words import md, nbytes
from interp_core.errors import InterpError
from interp_core.experiments.experiment import resume_folder, resume_key
from interp_core.jobs import Job
from interp_core.runs import delete_run, write_notes

MOST_LETTERS = 4000


def bar(row: Row) -> None:
    """The buttons of a run, and its job where it has one."""
    job = _job(row)
    if job is not None and job.active:
        jobs_panel.watch(job)
    elif job is not None and job.error and row.state != "finished":
        show(job.error)
    elif row.state == "running":
        st.caption("A process is writing into this folder now.")
    with st.container(horizontal=True, vertical_alignment="center"):
        _open_on_its_page(row)
        if row.state == "unfinished" and (job is None or not job.active):
            _go_on(row)
        _take_along(row)
        _delete(row)
    if row.state == "finished" and row.folder is None:
        st.caption("This run is in the server's memory alone: its link holds until it is dropped from there.")


def notes(row: Row) -> None:
    """What readers noted about a run, to be changed where its folder may be written."""
    if row.folder is None or not row.writable:
        if row.notes:
            st.caption("Notes")
            st.text(row.notes)
        return
    asked = hashlib.sha256(f"{row.name} {row.notes}".encode()).hexdigest()[:12]
    with st.form(f"form-{asked}", border=False):
        text = st.text_area(
            "Notes",
            row.notes,
            max_chars=MOST_LETTERS,
            key=f"{asked}-{state.RUNS_NOTES}",
            placeholder="What this run was for, what came out; kept in its folder.",
        )
        pressed = st.form_submit_button("Keep the notes", icon=":material/save:")
    if not pressed:
        return
    if len(text or "") > MOST_LETTERS:
        raise InterpError(f"the notes have {len(text or '')} letters; keep them to {MOST_LETTERS}.")
    write_notes(row.folder, text or "")
    st.rerun()


def _open_on_its_page(row: Row) -> None:
    """A link to the experiment's own page; one to a run in memory alone holds as long as the server has it."""
    page = st.session_state.get(state.PAGES, {}).get(row.command)
    if page is None or row.state != "finished":
        return
    st.page_link(
        page,
        label=f"Open on the page {md(page.title)}",
        icon=":material/open_in_new:",
        query_params={state.RUN: row.name},
    )


def _go_on(row: Row) -> None:
    if row.folder is None:
        return
    if not row.writable:
        st.caption("It lies outside the runs folder, the only place where the dashboard writes; its command goes on:")
        asked = registered(row.command).request.from_config(row.config)
        st.code(f"{asked.command_line(out=str(row.folder))} --resume", language="bash", wrap_lines=True)
        return
    missing = _not_permitted(row.config)
    for name in missing:
        st.button(
            f"Open the model {md(name)}, to go on",
            key=f"open-{name}",
            on_click=state.approve,
            args=(name,),
            icon=":material/lock_open:",
            help="It does not ship with Patchbay. Open it only if you trust it.",
        )
    if missing or not st.button("Go on", type="primary", icon=":material/play_arrow:", key=f"go-on-{row.name}"):
        return
    try:
        with st.spinner("Checking the model, the clips and the settings …"):
            visitors.asked(resume_folder(registered(row.command), server.engine(), row.folder, server.runner()))
    except InterpError as error:
        show(error)
        return
    st.rerun()


def _take_along(row: Row) -> None:
    name = file_name(row.folder.name if row.folder else f"{row.command}-{row.name}")
    most = server.most_download_bytes()
    if row.folder is not None:
        size = pack.nbytes_of(row.folder)
        if size > most:
            st.caption(f"{nbytes(size)}: too large for a download of at most {nbytes(most)}; copy its folder.")
            return
    st.download_button(
        "Download as zip",
        lambda: pack.zip_folder(row.folder, most) if row.folder else pack.zip_result(row.opened().result, name),
        f"{name}.zip",
        "application/zip",
        on_click="ignore",
        icon=":material/folder_zip:",
        key=f"zip-{row.name}",
    )


def _delete(row: Row) -> None:
    """Asked twice: the first press arms the button for this run alone."""
    if row.folder is None or not row.writable or row.state == "running":
        return
    if not may_delete(row):
        st.caption("Somebody else asked for this run, so only they can delete it.")
        return
    armed = st.session_state.get(state.RUNS_ARMED) == row.name
    if not armed:
        st.button(
            "Delete …", key=f"delete-{row.name}", on_click=_arm, args=(row.name,), icon=":material/delete:",
            help="Asks once more.",
        )  # fmt: skip
        return
    pressed = st.button(
        "Delete it for good", key=f"really-{row.name}", type="primary", icon=":material/delete_forever:"
    )
    st.button("Keep it", key=f"keep-{row.name}", on_click=_arm, args=("",))
    if pressed:
        delete(row)
        st.rerun()


def may_delete(row: Row) -> bool:
    """Whether this visitor asked for the run, or nobody is known to have, as of those that a command made."""
    jobs = [job for job in server.engine().jobs.jobs() if row.folder is not None and job.place == row.folder]
    jobs += filter(None, [job_of(row)])
    return all(not job.asked_by or visitors.may_cancel(job) for job in jobs)


def delete(row: Row) -> None:
    """Remove a run folder, and the result that a job still holds of it.

    Raises:
        InterpError: a run that ships, one elsewhere than in the runs folder, somebody else's, or one that is being
            written.
    """
    if row.ships:
        raise InterpError(f"{row.name} ships with Patchbay, so it is not deleted.")
    if row.folder is None or not row.writable:
        raise InterpError(f"{row.name} lies outside the runs folder, where nothing is deleted.")
    if not may_delete(row):
        raise InterpError(f"{row.name} was asked for by somebody else, so it is not deleted.")
    made_by = job_of(row)
    delete_run(row.folder)
    if made_by is not None:
        server.engine().jobs.forget(made_by.key)
    _arm("")
    state.link_run("")
    st.session_state[state.RUNS_SAID] = f"Deleted: {row.folder.name}"


def _arm(name: str) -> None:
    st.session_state[state.RUNS_ARMED] = name


def _job(row: Row) -> Job[Any] | None:
    """The job that is on the run in a folder, or was last."""
    if row.folder is None or row.state == "damaged":
        return None
    jobs = server.engine().jobs
    return jobs.get(resume_key(row.folder, row.config)) or jobs.get(row.folder.name.rpartition("-")[2])


def _not_permitted(config: Mapping[str, Any]) -> list[str]:
    """Models of a run that do not ship and that this visitor has not asked for."""
    sides = (config.get("model"), config.get("donor"))
    names = [str(side.get("id", "")) for side in sides if isinstance(side, Mapping)]
    return [name for name in names if not state.may_open(name)]
