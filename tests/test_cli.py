"""The command line: what it prints, its exit codes, and one sentence for everything that can be wrong with it."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from interp_core import engine as engine_module
from interp_core.__main__ import main
from interp_core.choices import DEFAULT_PROMPT
from interp_core.cli import BAD_INPUT, DONE
from interp_core.experiments.experiment import open_result
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.runs import read_config
from tests.corpus import COLUMNS, write_corpus, write_manifest
from tests.tiny import RATE, tone

QUICK = ["--device", "cpu", "--kinds", "prosody", "--max-pairs", "2", "--controls", "none", "--flow", "none"]
QUICK += ["--no-checks"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), texts=2)


@pytest.fixture(autouse=True)
def models_stay_open(monkeypatch, tiny):
    """Every command opens its model anew; here the tiny one, when it opens, is the one that is open already."""
    right = engine_module.open_model

    def open_model(name, **options):
        if (Path(name) / "is the tiny one").exists() and options == {"device": "cpu", "dtype": "auto"}:
            return tiny
        return right(name, **options)

    monkeypatch.setattr(engine_module, "open_model", open_model)


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_folder, folder)
    (folder / "is the tiny one").touch()
    return folder


@pytest.fixture
def command(model, corpus, tmp_path):
    """The arguments of a good and quick run, into tmp_path / run; options given later win."""
    return ["patch", "--model", str(model), "--manifest", str(corpus), "--out", str(tmp_path / "run"), *QUICK]


@pytest.fixture
def refused(tmp_path, capsys):
    """Run a command that must fail: code 2, one message on stderr with these words, nothing printed or written."""

    def check(arguments, *words):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == BAD_INPUT == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("error:") == 1, said.err
        assert "Traceback" not in said.err and said.out == ""
        for word in words:
            assert word in said.err, said.err
        out = tmp_path / "run"
        assert not out.exists() or not list(out.iterdir()), "something was written"
        return said.err

    return check


# ---- good input ------------------------------------------------------------------------------------------------------


def test_a_run_prints_its_folder_its_cost_and_what_it_found(command, tmp_path, capsys):
    assert main(command) == DONE == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'run'}\n"
    assert "2 pairs over" in said.err and "forward passes" in said.err
    assert "prosody: 2 pairs; " in said.err and "Traceback" not in said.err
    run = open_result(PATCHING, tmp_path / "run")
    assert run.config["finished"] and len(run.records) == 12
    assert run.config["settings"]["prompts"] == [DEFAULT_PROMPT]


def test_the_donor_reaches_the_run_and_how_many_clips_its_means_are_of_is_said(command, tmp_path, capsys):
    assert main([*command, "--kinds", "semantic", "--donor", "mean:happy"]) == DONE
    config = read_config(tmp_path / "run")
    assert config["settings"]["donor_state"] == "mean:happy"
    (about,) = config["donor_means"]
    assert (about["label"], about["column"]) == ("happy", "semantic_label") and 0 < about["least"] < about["clips"]
    said = f"happy (semantic) of {about['clips']} clips, {about['least']} or more a pair"
    assert capsys.readouterr().err.count(said) == 2  # before the run and behind it


def test_every_option_reaches_the_run(command, tmp_path):
    options = ["--site", "head_out:2", "--layers", "0,3", "--align", "resample", "--alpha", "1.0,0.5", "--seed", "7"]
    options += ["--labels", "happy,sad,neutral", "--prompt", "A?", "--prompt", "B?", "--controls", "noise,random"]
    options += ["--flow", "last", "--method", "wavefront", "--batch-size", "3", "--positions", "0.1-0.3"]
    options += ["--max-pairs", "prosody=3", "--max-clips", "5", "--pilot", "2"]
    assert main([*command, *options]) == DONE
    config = read_config(tmp_path / "run")
    assert config["settings"] == {
        "labels": ["happy", "sad", "neutral"],
        "prompts": ["A?", "B?"],
        "site": "head_out:2",
        "layers": [0, 3],
        "positions": "0.1-0.3",
        "align": "resample",
        "alphas": [1.0, 0.5],
        "controls": ["noise", "random"],
        "flow": ["last"],
        "method": "wavefront",
        "batch_size": 3,
        "seed": 7,
        "several_tokens": "refuse",
        "knockout_width": 3,
        "maps": [],
        "top_heads": 10,
        "map_sites": [],
        "windows": None,
        "back_every": None,
        "stated": "",
        "statement": "The speaker sounds {label}.",
        "window_seconds": None,
        "donor_state": "",
        "subspace": "none",
        "rank": 1,
        "subspace_draws": 5,
        "subspace_label": "",
        "words": 0,
        "word_pairs": 0,
        "pairs": [],
        "checks": False,
        "kinds": "prosody",
        "max_pairs": {"prosody": 3},
        "max_clips": 5,
        "max_seconds": 30.0,
        "map_labels": [],
        "skip_bad": False,
        "pilot": 2,
        "corpus": "",
        "part": "",
        "probe": "",
        "adapter": "",
    }
    assert (config["device"], config["dtype"], config["manifest"]["clips"]) == ("cpu", "float32", 5)
    assert {"torch", "transformers", "python"} <= set(config["versions"])
    assert len(config["model"]["weights_sha256"]) == len(config["manifest"]["sha256"]) == 64


def test_a_config_runs_again_into_another_folder(command, tmp_path):
    assert main([*command, "--alpha", "0.5"]) == DONE
    config = tmp_path / "run" / "patching_config.json"
    assert main(["patch", "--config", str(config), "--out", str(tmp_path / "again")]) == DONE
    for name in ("patching_records_prosody.jsonl", "patching_metrics_prosody.csv", "pair_list_prosody.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_stereo_at_48_khz_is_taken_as_the_same_sound(command, corpus, tmp_path):
    folder = tmp_path / "stereo"
    shutil.copytree(corpus.parent, folder)
    fine = {}
    for path in folder.glob("*.wav"):
        samples, _ = soundfile.read(path, dtype="float32")
        time = np.arange(3 * len(samples)) / (3 * RATE)
        smooth = np.interp(time, np.arange(len(samples)) / RATE, samples).astype(np.float32)
        soundfile.write(path, np.stack([smooth * 1.5, smooth * 0.5], 1), 3 * RATE, subtype="FLOAT")
        fine[path.stem] = soundfile.info(path)
    assert {info.channels for info in fine.values()} == {2}
    assert main([*command, "--manifest", str(folder / "clips.csv")]) == DONE
    assert main([*command, "--out", str(tmp_path / "mono")]) == DONE
    columns = ["recipient", "donor", "span_covered"]
    stereo, mono = (open_result(PATCHING, tmp_path / name).records[columns] for name in ("run", "mono"))
    assert stereo.equals(mono), "the clips take the same number of positions"


def test_a_reader_that_stops_reading_ends_a_command_without_a_word(monkeypatch, capsys):
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["models"]) == 141
    assert not capsys.readouterr().err


def test_the_models_command_lists_what_can_be_opened(capsys):
    assert main(["models"]) == DONE
    said = capsys.readouterr().out
    assert (
        "bundled (" in said
        and "--part decoder" in said
        and "countermeasure" in said
        and "qwen2_audio" in said
        and "resid_post" in said
        and "shortcut" in said
    )
    assert (
        "runs        ablate, steer\n" in said
        and "runs        patch, compare, heads, ablate, signflip, probes, steer\n" in said
    )
    assert "cannot be opened:" in said and "encodec, dac: there are no transformer blocks" in said


# ---- clips and manifests ---------------------------------------------------------------------------------------------

GOOD = [(f"t0-{voice}", f"t0-{voice}.wav", "t0", voice, "neutral", "s0") for voice in ("neutral", "happy", "sad")]


def not_finite(value):
    samples = tone(0.5, 200)
    samples[4000:4010] = value
    return samples


BAD_FILES = {
    "missing": (None, "does not exist (looked in the manifest's folder); fix the path"),
    "text": (b"this is no audio at all", "cannot be decoded"),
    "nothing": (b"", "is empty (0 bytes); replace it or leave it out"),
    "zero": (tone(0, 200), "holds 0 samples; replace it or leave it out"),
    "short": (tone(0.01, 200), "lasts 0.01 s, shorter than the 0.1 s minimum; leave it out"),
    "hour": (tone(31, 200), "lasts 31.0 s, longer than the 30 s limit; cut it or raise --max-seconds"),
    "nan": (not_finite(np.nan), "holds 10 NaN or infinite samples of 8000, the first at 0.250 s; export it again"),
    "inf": (not_finite(np.inf), "holds 10 NaN or infinite samples"),
    "long": (tone(4.5, 200), "lasts 4.5 s, longer than the 4 s limit; cut it, because"),
}


@pytest.fixture
def with_bad(corpus, tmp_path):
    """Write a manifest of three good rows and one row for each of these bad files."""

    def write(*names):
        folder = tmp_path / "clips"
        shutil.copytree(corpus.parent, folder, dirs_exist_ok=True)
        rows = [*GOOD]
        for name in names:
            content = BAD_FILES[name][0]
            if isinstance(content, bytes):
                (folder / f"{name}.wav").write_bytes(content)
            elif content is not None:
                soundfile.write(folder / f"{name}.wav", content, RATE, subtype="FLOAT")
            rows.append((name, f"{name}.wav", "t0", "happy", "neutral", "s0"))
        return write_manifest(folder / "mine.csv", rows)

    return write


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_used_is_named_with_its_row_and_what_to_do(command, with_bad, refused, name):
    said = refused([*command, "--manifest", with_bad(name)], f"mine.csv row 5: {name}.wav {BAD_FILES[name][1]}")
    assert "pass --skip-bad to leave out 1 bad row." in said and said.count("\n") == 1


def test_all_bad_rows_are_listed_at_once(command, with_bad, refused):
    names = [name for name in BAD_FILES if name != "long"]
    manifest = with_bad(*names)
    with manifest.open("a") as file:
        file.write("t0-sad,t0-sad.wav,t0,sad,neutral,s0\n,t0-sad.wav,t0,sad,neutral,s0\nlost,,t0,sad,neutral,s0\n")
        file.write("comma,t0-sad.wav,t0,sad,neutral,s0,one,two\n")
    said = refused([*command, "--manifest", manifest], "mine.csv: 12 of 15 rows cannot be used")
    for row, name in enumerate(names, 5):
        assert f"- row {row}: {name}.wav {BAD_FILES[name][1]}" in said
    assert "- row 13: t0-sad.wav has the clip_id 't0-sad' of row 4; make it unique" in said
    assert "- row 14: t0-sad.wav has no clip_id" in said and "- row 15 has no path; fill it in" in said
    assert "- row 16: t0-sad.wav has 8 values for 6 columns" in said
    assert said.rstrip().endswith("or pass --skip-bad to leave out 12 bad rows.")


def test_skip_bad_goes_on_without_them_and_says_which(command, with_bad, tmp_path, capsys):
    manifest = with_bad(*BAD_FILES)
    assert main([*command, "--manifest", str(manifest), "--skip-bad"]) == DONE
    said = capsys.readouterr().err
    for row, name in enumerate(BAD_FILES, 5):
        assert f"left out: row {row}: {name}.wav " in said
    run = open_result(PATCHING, tmp_path / "run")
    assert len(run.config["skipped_rows"]) == len(BAD_FILES) and run.config["manifest"]["clips"] == 3
    assert set(run.records.recipient) | set(run.records.donor) <= {row[0] for row in GOOD}


@pytest.mark.parametrize(
    "columns, keep, said",
    [
        (("clip_id", "file"), 2, ("has no column 'path'", "'clip_id', 'file'", "A manifest needs clip_id and path")),
        (("name", "path"), 2, ("has no column 'clip_id'",)),
        (COLUMNS[:2], 2, ("pairs of kind 'prosody' need the column 'text_id' and 'prosody_label'",)),
        (COLUMNS[:3], 3, ("need the column 'prosody_label', in which no clip has a value", "values: text_id")),
        (("clip_id", "path", "path"), 3, ("more than one column 'path'",)),
    ],
)
def test_missing_columns_are_named_with_those_that_are_there(command, corpus, refused, columns, keep, said):
    manifest = write_manifest(corpus.parent / "columns.csv", [row[:keep] for row in GOOD], columns)
    refused([*command, "--manifest", manifest], *said)


def test_duplicate_clip_ids_are_refused(command, corpus, refused):
    manifest = write_manifest(corpus.parent / "twice.csv", [*GOOD, GOOD[0]])
    refused([*command, "--manifest", manifest], "row 5: t0-neutral.wav has the clip_id 't0-neutral' of row 2")


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("nowhere.csv", None, "nowhere.csv does not exist"),
        ("clips.xlsx", b"x", "ends in '.xlsx'; give a .csv or a .parquet file"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("header.csv", b"clip_id,path\n", "has a header but no rows"),
        ("latin.csv", "clip_id,path\né,x.wav\n".encode("latin-1"), "is not UTF-8 text"),
        ("broken.parquet", b"PAR1 nothing", "cannot be read as Parquet"),
        ("a folder.csv", "folder", "is a folder; give the CSV or Parquet file"),
        ("x" * 300 + ".csv", None, "cannot be opened"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why(command, tmp_path, refused, name, content, said):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    refused([*command, "--manifest", path], said)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, said",
    [
        (["--prompt", "Hear <|AUDIO|>: what is it?"], "gives 2 audio spans; Patchbay patches exactly one"),
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "A?", "--prompt", "A?"], "one prompt is given twice; give different ones"),
        (["--labels", "happy,melancholic"], "label 'melancholic' is"),
        (["--labels", "happy,sad,happy"], "labels 'happy' and 'happy' start with the same token. Choose other words."),
        (["--labels", "happy, melancholic", "--multi-token", "first", "--max-pairs", "0"], "max_pairs=0"),
        (["--labels", "happy"], "1 label(s) given: happy; a decision needs two or more"),
        (["--labels", "happy,,sad"], "an empty label; write a word"),
        (["--kinds", "prosdy"], "unknown kind of pair 'prosdy' in 'prosdy'; did you mean 'prosody'?"),
        (["--kinds", "same=text_id"], "needs differ=COLUMN right after it"),
        (["--kinds", "prosody,prosody"], "is there more than once"),
        (["--kinds", "edit:pitch"], "edit 'pitch': give a dose of -24 to 24 semitones, like pitch=+4."),
        (["--kinds", "edit:tempo=2"], "unknown edit 'tempo' in 'tempo=2'; give pitch=+4, rate=1.2"),
        (["--kinds", "edit:band=300-9000"], "(2 of 2 copies): it has no sound above 8000 Hz"),
        (["--site", "resid_pst"], "unknown site kind 'resid_pst'; did you mean 'resid_post'?"),
        (["--site", "head_out:9"], "head=9 is outside"),
        (["--site", "head_out:x"], "site 'head_out:x': give one head by its number, like head_out:3"),
        (["--site", "head_out:1,2"], "give one head by its number, like head_out:3, or head_out for all"),
        (["--site", "mlp_out:1"], "a head is patched at site head_out or cross_head_out, not at mlp_out"),
        (["--layers", "99"], "layers [99] do not exist at resid_post (valid: -1 to 4)"),
        (["--layers", "0,x"], "--layers 'x' is not a whole number (or a list of them)"),
        (["--site", "attn_out", "--layers", "-1"], "layers [-1] do not exist at attn_out (valid: 0 to 4)"),
        (["--alpha", "1.5"], "--alpha 1.5 is too large; give 1 or less"),
        (["--alpha", "half"], "--alpha 'half' is not a number (or a list of them)"),
        (["--alpha", "1,1.0"], "give each strength once"),
        (["--positions", "middle"], "positions 'middle' is none of"),
        (["--positions", "9-10"], "the window 9-10 s lies behind the end of"),
        (["--align", "stretch"], "--align 'stretch' is none of truncate, resample"),
        (["--controls", "shuffle"], "--controls 'shuffle' is none of random, noise, no-conflict, prefix"),
        (["--flow", "lens,rays"], "--flow 'rays' is none of question, last, lens, knockout"),
        (["--method", "quick"], "--method 'quick' is none of fast, wavefront, reference"),
        (["--max-pairs", "many"], "--max-pairs 'many': give a number like 100, or prosody=100,semantic=50"),
        (["--max-pairs", "melody=3"], "max_pairs names 'melody'; the kinds are prosody"),
        (["--batch-size", "0"], "--batch-size 0 is too small; give 1 or more"),
        (["--pilot", "x"], "--pilot 'x' is not a whole number"),
        (["--seed", "-1"], "--seed -1 is too small; give 0 or more"),
        (["--pilot", "0"], "--pilot 0 is too small; give 1 or more"),
        (["--max-clips", "0"], "--max-clips 0 is too small; give 1 or more"),
        (["--max-seconds", "0"], "leave no clip"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--dtype", "int3"], "dtype 'int3' is none of auto, float32"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_setting_without_meaning_is_refused_in_one_sentence(command, refused, options, said):
    assert refused([*command, *options], said).count("\n") == 1


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\x00\xff", "is no JSON file"),
        (b"{", "is no JSON file"),
        (b"[1, 2]", "holds no settings"),
        (b'{"title": "my notes"}', "the config"),
        (b'{"command": "compare", "clip_seconds": {"min": 0.1, "max": 30}}', "the config is one of 'compare'"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path, refused, content, said):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    refused(["patch", "--config", path, "--out", tmp_path / "run"], said)
    refused(["check", "--config", path], said)


def test_what_the_parser_refuses_also_ends_with_code_2(command, capsys):
    for arguments in ([], ["patsh"], ["patch", "--model", "m"], [*command, "--nonsense"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("usage: ") and "error: " in said and "Traceback" not in said


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    return tmp_path / "model"


def test_a_model_without_a_processor_says_which_files_to_copy(command, copied, refused):
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink(missing_ok=True)
    said = refused([*command, "--model", copied], "has no processor", "copy processor_config.json")
    assert "its folder." in said


def test_a_model_that_cannot_be_opened_says_why(command, copied, tmp_path, corpus, refused):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused([*command, "--model", copied], "the weights of", "cannot be read")
    (copied / "config.json").write_text('{"model_type": "mamba"}')
    refused([*command, "--model", copied], "mamba")
    (copied / "config.json").unlink()
    refused([*command, "--model", copied], "holds no config.json")
    refused([*command, "--model", corpus], "is a file; give the folder")
    refused([*command, "--model", "demo-nothing"], "'demo-nothing' is no bundled model")
    refused(["patch", "--out", tmp_path / "run"], "--model is missing")
    refused(["patch", "--model", copied, "--out", tmp_path / "run"], "has no clips of its own; give a manifest")


# ---- the run folder --------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_left_alone_without_resume(command, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command) == DONE
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(command) == BAD_INPUT
    assert "already holds a run (patching_config.json); add --resume to go on with it" in capsys.readouterr().err
    assert main([*command, "--resume", "--alpha", "0.5"]) == BAD_INPUT
    said = capsys.readouterr().err
    assert "was started with other settings: settings.alphas was [1.0], is [0.5]" in said and "--config" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    config = str(out / "patching_config.json")
    assert main(["patch", "--config", config, "--out", str(out), "--resume"]) == DONE, "its own config may go on"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before, "a finished run is read back"
