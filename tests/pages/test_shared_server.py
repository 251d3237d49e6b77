"""A server that several people use: opening in view of all, jobs of others, where models may lie, who may come in."""

import ast
import asyncio
import hashlib
import json
import re
import threading
from pathlib import Path

import pytest
import streamlit as st

from app import SecurityHeaders
from components import models, server, state, visitors
from interp_core import engine as engine_module
from tests.pages.conftest import ROOT, faults, forget, words
from tests.pages.tiny_demo import NAME

RUN = {"patch_max_pairs": "2", "patch_controls": "random", "patch_flow": "last"}


def button(at, label):
    return next((one for one in at.button if one.label == label), None)


class Gate:
    """Opens models when it is let, and asks whether it has been cancelled meanwhile."""

    def __init__(self, monkeypatch):
        self.go, self.begun, self.slow = threading.Event(), threading.Event(), threading.Event()
        self.right = engine_module.open_model
        monkeypatch.setattr(engine_module, "open_model", self)

    def __call__(self, name, *, progress, **options):
        self.begun.set()
        while not self.go.wait(0.02):
            if not self.slow.is_set():
                progress(3, 40, "megabytes fetched")
        return self.right(name, progress=progress, **options)


def test_opening_shows_its_progress_can_be_stopped_and_tried_again(open_app, monkeypatch):
    gate = Gate(monkeypatch)
    monkeypatch.setattr(models, "PATIENCE_S", 0.3)
    at = open_app()
    (job,) = server.engine().openings.jobs()
    assert faults(at) == [] and gate.begun.is_set() and at.get("plotly_chart") == []
    assert any(f"Opening {NAME}" in bar.proto.text.replace("\\", "") for bar in at.get("progress"))
    assert any("3 of 40" in bar.proto.text for bar in at.get("progress"))
    assert any(one.value == "Jobs" for one in at.subheader), "the sidebar is drawn although the page has stopped"
    gate.slow.set()  # to see that it is asked to stop
    at = at.button(key=f"cancel-page-{job.key}").click().run()
    assert job.active and server.engine().openings.jobs() == (job,), "it is not begun again while it stops"
    gate.slow.clear()
    assert job.wait(30) and job.status == "cancelled"
    at = at.run()
    assert "was stopped" in words(at) and len(server.engine().openings.jobs()) == 1, "and is not begun again by itself"
    gate.go.set()
    monkeypatch.setattr(models, "PATIENCE_S", 60)
    at = button(at, "Try again").click().run()
    assert faults(at) == [] and at.get("plotly_chart") != []
    assert "Open models" in "".join(fold.label for fold in at.expander)
    assert any(f"{NAME} · cpu · float32" in one.value.replace("\\", "") for one in at.caption)


def test_a_job_of_somebody_else_is_seen_but_not_stopped(open_app, server, monkeypatch):
    from components import server as running

    started, go_on = threading.Event(), threading.Event()

    def work(progress):
        started.set()
        go_on.wait(30)
        progress(1, 2)

    mine, other = open_app(), open_app()
    job = running.engine().jobs.submit("k", "Their work", work)
    mine.session_state[state.VISITOR] = "session of mine"
    job.asked_by.add(hashlib.sha256(b"session of mine").hexdigest())
    assert started.wait(30)
    mine, other = mine.run(), other.run()
    assert "Their work" in "".join(bar.proto.text for bar in other.get("progress"))
    assert other.button(key="cancel-side-k").disabled and not mine.button(key="cancel-side-k").disabled
    with monkeypatch.context() as patched:
        patched.setattr(visitors, "visitor", lambda: "somebody else")
        visitors.cancel(job)
    assert not job.cancel_requested, "nor where a browser sends the press all the same"
    mine.button(key="cancel-side-k").click().run()
    assert job.cancel_requested
    go_on.set()
    assert job.wait(30) and job.status == "cancelled"


STARTS = {"start", "resume_folder", "start_effect", "submit", "opening"}


def unclaimed(source: str) -> list[int]:
    """Lines that start a job for which nobody is noted as having asked."""
    tree = ast.parse(source)
    claimed = {id(node.args[0]) for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args
               and getattr(node.func, "attr", "") == "asked"}  # fmt: skip
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in claimed and node.args)
    return [node.lineno for node in calls if getattr(node.func, "attr", getattr(node.func, "id", "")) in STARTS]


def test_every_job_that_a_page_starts_is_the_visitor_s():
    files = sorted((ROOT / "components").rglob("*.py"))
    found = {path.name: lines for path in files if (lines := unclaimed(path.read_text("utf-8")))}
    assert found == {}
    assert unclaimed("visitors.asked(start(a, b))\nengine.jobs.submit(key, work)\nstart(a)") == [2, 3]


def test_a_model_outside_the_allowed_folders_is_refused_whether_it_is_there_or_not(open_app, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    said = set()
    for name in (str(outside), str(outside / "nothing")):
        at = button(open_app(model=name), "Open this model").click().run()
        assert len(faults(at)) == 1
        said.add(faults(at)[0].replace("\\", "").replace(name, "NAME"))
    assert len(said) == 1 and "NAME lies outside the folders that may be read" in said.pop()


@pytest.mark.parametrize(
    ("address", "says"), [("localhost", False), ("127.0.0.1", False), ("0.0.0.0", True), (None, True)]
)
def test_a_server_that_others_can_reach_says_that_there_is_no_log_in(monkeypatch, address, says):
    monkeypatch.setattr(st, "get_option", lambda name: address if name == "server.address" else None)
    assert ("no log-in" in server.exposed()) == says
    monkeypatch.setattr(server, "has_login", lambda: True)
    assert server.exposed() == ""


def test_where_the_server_has_a_log_in_nothing_is_shown_before_it(open_app, monkeypatch):
    monkeypatch.setattr(server, "has_login", lambda: True)
    at = open_app()
    assert faults(at) == [] and [one.label for one in at.button] == ["Log in"]
    assert at.get("plotly_chart") == [] and len(at.selectbox) == 0 and server.engine().models.opened() == []


def test_after_a_restart_the_page_and_the_sidebar_offer_to_go_on_with_what_was_running(open_app, server):
    from components import server as running

    at = open_app(**RUN)
    at = button(at, "Run on all pairs").click().run()
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    (folder,) = (server / "runs").iterdir()
    config = folder / "patching_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "finished": None}))
    forget()
    at = open_app(**RUN)
    links = [link.proto.label.replace("\\", "") for link in at.get("page_link")]
    assert faults(at) == [] and f"Go on with {folder.name}" in links
    assert "was begun and not finished" in words(at)
    at = button(at, "Go on with it").click().run()
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    at = at.run()
    assert "Computed by this server" in words(at) and button(at, "Go on with it") is None
    assert not any("Go on with" in link.proto.label for link in at.get("page_link"))


def test_a_run_that_waits_is_offered_by_no_page_of_other_settings(open_app, server):
    assert button(open_app(), "Go on with it") is None
    assert Path(server / "runs").is_dir()


def test_every_answer_opens_the_microphone_to_these_pages_alone_and_refuses_the_camera_and_the_place():
    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = []

    async def keep(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(SecurityHeaders(inner)(scope, None, keep))
    policy = dict(sent[0]["headers"])[b"permissions-policy"].decode()
    assert dict(one.split("=") for one in policy.split(", ")) == {
        "camera": "()", "microphone": "(self)", "geolocation": "()",
    }  # fmt: skip
    said = " ".join((ROOT / "SECURITY.md").read_text().split())
    assert "camera and location are refused by header, and the microphone is open to these pages alone" in said


def test_every_setting_of_the_server_stands_where_people_look_for_it():
    read = set(re.findall(r'"(PATCHBAY_\w+)"', (ROOT / "components/server.py").read_text()))
    told = (ROOT / "README.md").read_text() + (ROOT / "SECURITY.md").read_text()
    assert len(read) > 10 and not {name for name in read if name not in told}
    limits = {name for name in read if "_MAX_" in name}
    assert not {name for name in limits if name not in (ROOT / "SECURITY.md").read_text()}


def test_a_link_says_what_it_asks_for_while_its_model_is_opened_and_then_starts_it(open_app, monkeypatch):
    gate = Gate(monkeypatch)
    monkeypatch.setattr(models, "PATIENCE_S", 0.3)
    assert "This link asks for" not in words(open_app(layer="1")), "control: a view is no run"
    monkeypatch.setenv("PATCHBAY_LINKS", "run")
    at = open_app(patch_max_pairs="2", patch_controls="", patch_flow="", patch_checks="false")
    said = words(at)
    assert (
        faults(at) == [] and "This link asks for Most pairs a kind 2;" in said and "opened first. Then the run" in said
    )
    assert at.get("progress"), "how far the opening is stands beside it"
    gate.go.set()
    monkeypatch.setattr(models, "PATIENCE_S", 60)
    at = at.run()
    (job,) = server.engine().jobs.jobs()
    assert faults(at) == [] and "This link asks for" not in words(at)
    job.cancel()
    assert job.wait(60)


def test_a_link_starts_what_it_asks_for_once_on_bundled_models_and_nothing_else_does(open_app, monkeypatch):
    link = {"patch_max_pairs": "2", "patch_controls": "", "patch_flow": "", "patch_checks": "false"}
    jobs = server.engine().jobs
    asking = open_app(**link)  # where the server leaves it to a button, that stands beside what is not as asked
    assert jobs.jobs() == () and button(asking, "Run it now") and "Not what is set now" in words(asking)
    monkeypatch.setenv("PATCHBAY_LINKS", "run")
    assert faults(open_app(layer="1", view="Flip rate")) == [] and jobs.jobs() == ()  # the view of the shipped run
    at = open_app(**link)
    (job,) = jobs.jobs()
    assert faults(at) == [] and len(job.asked_by) == 1  # who may stop it
    job.cancel()
    assert job.wait(60)
    at = at.run().run()
    assert len(jobs.jobs()) == 1 and job.status in ("cancelled", "done")  # once
    if job.status == "cancelled":
        assert faults(open_app(**link)) == [] and jobs.jobs() == (job,)  # nor for another who comes by it
    other = open_app(model="somebody/model", **link)
    assert len(jobs.jobs()) == 1 and not faults(other)
