"""The command line as a process of its own: killed, interrupted, resumed, and run by a user who may not write."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT, DONE, INTERRUPTED
from interp_core.runs import read_config
from tests.corpus import write_corpus
from tests.processes import Command

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def command(tiny_folder, tmp_path_factory):
    """A run of seventy small chunks, without its --out."""
    manifest = write_corpus(tmp_path_factory.mktemp("corpus"))
    shared = ["patch", "--model", str(tiny_folder), "--manifest", str(manifest), "--device", "cpu"]
    shared += ["--kinds", "prosody", "--max-pairs", "10", "--batch-size", "1", "--flow", "lens,knockout"]
    # Many strengths, so that a signal that comes late on a busy machine still finds the run at work.
    return [*shared, "--alpha", ",".join(f"{i / 40:g}" for i in range(40, 0, -1))]


def environment():
    """As many threads as here: sums are split among them, which shows in the last digit."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def start(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "interp_core", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # Where the tests run in the background, the shell has SIGINT ignored, and a process would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def kept(out):
    """Complete lines in the record files so far."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*_records*.jsonl"))


def wait_for_lines(process, out, lines):
    end = time.monotonic() + 240
    while kept(out) < lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it never got that far"
        time.sleep(0.005)


def files_of(folder):
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    config = json.loads(found.pop("patching_config.json"))
    assert config.pop("created") and config.pop("finished")
    return {**found, "config": config}


@pytest.mark.slow
def test_a_run_that_was_interrupted_then_killed_ends_with_the_files_of_one_that_was_not(command, tmp_path, capsys):
    out, whole = tmp_path / "broken off", tmp_path / "whole"
    process = start([*command, "--out", str(out)])
    wait_for_lines(process, out, 12)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED == 130
    assert f"interrupted; the same command with --resume goes on with {out}" in said[1]
    assert "Traceback" not in said[1] and said[0] == ""
    before = kept(out)
    assert before >= 12 and not read_config(out)["finished"]

    process = Command([*command, "--out", str(out), "--resume"], env=environment())
    wait_for_lines(process, out, before + 12)
    process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert kept(out) > before and not read_config(out)["finished"]

    assert main([*command, "--out", str(out), "--resume"]) == DONE
    assert main([*command, "--out", str(whole)]) == DONE
    assert files_of(out) == files_of(whole)
    assert read_config(out)["finished"]


# The imports and the checks of a good command come first, because afterwards nothing below /root can be read.
AS_NOBODY = """
import os, sys
from interp_core.__main__ import main
shared = sys.argv[1].split()
assert main(["check", *shared]) == 0
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
for changed in sys.argv[2:]:
    print("----", file=sys.stderr, flush=True)
    line = ["patch", "--no-checks", "--max-pairs=1", *shared, *changed.split()]
    print("code", main(line), file=sys.stderr, flush=True)
os._exit(0)
"""


@pytest.fixture
def public(command):
    """A folder that everybody may read and its owner may not write: temporary folders of tests are private."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        subprocess.run(["cp", "-r", command[2], folder / "model"], check=True)
        write_corpus(folder / "clips")
        for path in [folder / "model", folder / "clips", *(folder / "model").iterdir()]:
            path.chmod(0o755)
        (folder / "closed").mkdir(mode=0o555)
        (folder / "closed").chmod(0o555)
        (folder / "secret").mkdir()
        (folder / "secret" / "clips.csv").write_text("clip_id,path\n")
        (folder / "secret").chmod(0)
        yield folder
        (folder / "closed").chmod(0o755)
        (folder / "secret").chmod(0o755)


@pytest.mark.slow
def test_a_user_without_permission_is_told_in_one_sentence(public):
    cases = {
        "--out closed/run": "closed/run cannot be made or written (Permission denied); choose another --out.",
        "--out closed": "closed cannot be made or written (Permission denied); choose another --out.",
        "--manifest secret/clips.csv --out x": "permission denied",
    }
    shared = "--model model --manifest clips/clips.csv --device cpu"
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, shared, *cases],
        cwd=public,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for said, words in zip(done.stderr.split("----\n")[1:], cases.values(), strict=True):
        message, _, code = said.removesuffix("\n").partition("\ncode ")
        assert code == str(BAD_INPUT), said
        *notes, error = message.splitlines()
        assert error.startswith("error: ") and words in error and not any("Traceback" in note for note in notes)
    assert not list((public / "closed").iterdir()) and not (public / "x").exists()


@pytest.mark.slow
def test_bad_input_ends_the_process_with_code_2_and_one_line(command, tmp_path):
    done = start([*command, "--out", str(tmp_path / "run"), "--manifest", "nowhere.csv"])
    out, err = done.communicate(timeout=120)
    assert done.returncode == BAD_INPUT and out == ""
    assert err == "error: the manifest nowhere.csv does not exist; fix the path.\n"
    assert not (tmp_path / "run").exists()


def test_help_needs_no_model_library():
    code = "import sys; from interp_core.__main__ import main\ntry: main(['patch', '--help'])\nfinally: "
    code += "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in ("--model", "--manifest", "--config", "--out", "--resume", "--kinds", "--alpha", "--skip-bad"):
        assert option in done.stdout


def test_an_output_path_that_is_a_file_is_refused(command, tmp_path, capsys):
    (tmp_path / "run").write_text("mine")
    assert main([*command, "--out", str(tmp_path / "run")]) == BAD_INPUT
    assert "is a file; the run needs a folder: choose another --out" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "mine"
    assert main([*command, "--out", str(tmp_path / "run" / "below")]) == BAD_INPUT
    assert "cannot be made or written" in capsys.readouterr().err
