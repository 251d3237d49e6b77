"""Properties of what is read and written, over inputs that hypothesis makes up: tables, configs, folders."""

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp_core.data.corpora import read_corpus
from interp_core.data.manifest import read_manifest
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS
from interp_core.options import declared, from_config, to_config
from interp_core.resuming import settings_changed
from interp_core.runs import RunWriter
from interp_core.sinks import FolderSink
from interp_core.storage import plain

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
NAME = st.text("abcdefghäß日_-", min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


# ---- manifests and protocols ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    soundfile.write(folder / "a.wav", np.full(2000, 0.1), 8000)
    return folder


@QUICK
@given(st.dictionaries(NAME, st.lists(TEXT, min_size=3, max_size=3), max_size=3), st.sampled_from(["\n", "\r\n"]))
def test_every_label_of_a_manifest_is_read_as_it_was_written(recording, labels, ends):
    labels = {name: values for name, values in labels.items() if name not in ("id", "clip_id", "path")}
    rows = [dict(clip_id=f"c{i}", path="a.wav", **{name: labels[name][i] for name in labels}) for i in range(3)]
    path = recording / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator=ends, quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(rows)
    read = read_manifest(path)
    assert [clip.clip_id for clip in read.clips] == ["c0", "c1", "c2"]
    for clip, row in zip(read.clips, rows, strict=True):
        assert clip.labels == {name: row[name].strip() for name in labels if row[name].strip()}


FIELD = st.text("ABCXYZ0123456789_", min_size=1, max_size=8)
LINE = st.tuples(
    FIELD, st.sampled_from(["F", "M"]), st.sampled_from(["-", *(f"C{i:02}" for i in range(1, 12))]),
    st.sampled_from(["-", "1", "3"]), st.sampled_from(["bonafide", "spoof"]), FIELD, FIELD, st.booleans(),
)  # fmt: skip


@QUICK
@given(st.dictionaries(FIELD, LINE, min_size=1, max_size=6))
def test_every_line_of_a_protocol_is_a_clip_with_its_fields(lines):
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        (root / "flac_T").mkdir()
        written = []
        for name, (speaker, sex, codec, quality, key, tag, attack, short) in lines.items():
            (root / "flac_T" / f"T_{name}.flac").touch()
            attack = "-" if key == "bonafide" else f"A{attack}"
            head = f"T_{speaker} T_{name} {sex} {codec}"
            written.append(
                f"{head} {attack} {key}" if short else f"{head} {quality} - AC{tag} {attack} {key} -"
            )  # both forms of the two phases
        (root / "ASVspoof5.train.tsv").write_text("\n".join(written) + "\n")
        clips = read_corpus("asvspoof5", root).clips.set_index("clip_id")
        assert sorted(clips.index) == sorted(f"T_{name}" for name in lines)
        for name, (speaker, sex, codec, _, key, _, attack, _) in lines.items():
            row = clips.loc[f"T_{name}"]
            assert (row["speaker"], row["label"], row["split"]) == (f"T_{speaker}", key, "train")
            assert row["sex"] == {"F": "female", "M": "male"}[sex] and row["codec"] == codec.replace("-", "NONE")
            assert row["attack_label"] == ("" if key == "bonafide" else f"A{attack}")
        (root / "flac_T" / f"T_{next(iter(lines))}.flac").unlink()  # control: a line without its recording is told
        with pytest.raises(InterpError, match=f"T_{next(iter(lines))}"):
            read_corpus("asvspoof5", root)


# ---- configs --------------------------------------------------------------------------------------------------------


@QUICK
@pytest.mark.parametrize("command", sorted(EXPERIMENTS))
@given(data=st.data())
def test_a_config_of_anything_is_a_request_that_goes_round_or_is_refused(command, data):
    cls = EXPERIMENTS[command].request
    names = [one.name for one in declared(cls)]
    config = data.draw(st.dictionaries(st.sampled_from(names) | TEXT, JSON, max_size=4))
    try:
        request = from_config(cls, {"model": "m", **config})
        request.check()
    except InterpError as error:
        assert str(error).endswith(".")
        return
    assert from_config(cls, json.loads(json.dumps(to_config(request)))) == request


@QUICK
@given(st.dictionaries(NAME, JSON, min_size=1, max_size=4), JSON, st.data())
def test_settings_differ_where_one_was_changed_and_nowhere_else(config, other, data):
    config = {"command": "patch", "settings": plain(config)}
    assert settings_changed(config, json.loads(json.dumps(config))) == []
    name = data.draw(st.sampled_from(sorted(config["settings"])))
    after = {**config, "settings": {**config["settings"], name: plain([other, "changed"])}}
    if after != config:
        told = settings_changed(config, after)
        assert told and all(one.startswith(f"settings.{name}") for one in told)


# ---- run folders ----------------------------------------------------------------------------------------------------

ROWS = st.lists(st.dictionaries(NAME.filter(lambda name: name != "chunk"), JSON, min_size=1, max_size=3), max_size=3)
HARM = st.tuples(st.floats(0, 1), st.sampled_from(["cut", "bit", "noise", "twice", "gone"]), st.binary(max_size=8))
RECORDS = "patching_records_x.jsonl"
CONFIG = {"command": "patch"}


def harmed(data: bytes, harm) -> bytes:
    where, kind, noise = harm
    at = min(int(where * len(data)), max(0, len(data) - 1))
    return {
        "cut": data[:at],
        "bit": data[:at] + bytes(byte ^ 1 for byte in data[at : at + 1]) + data[at + 1 :],
        "noise": data[:at] + noise + data[at:],
        "twice": data + data[at:],
        "gone": data[:at] + data[at + 7 :],
    }[kind]


def resumed(folder: Path, chunks: list[list[dict]]) -> bytes:
    """The records after a run went on with what is in its folder; every row is as an unharmed run has it."""
    with RunWriter.create(folder, CONFIG, "patching_config.json", resume=True) as writer:
        sink = FolderSink(writer)
        sink.expect(RECORDS, {number: len(rows) for number, rows in enumerate(chunks)})
        for number, rows in enumerate(chunks):
            kept = sink.records(RECORDS, number)
            if kept is None:
                kept = sink.keep_records(RECORDS, number, rows)
            assert kept == [json.loads(json.dumps(plain(row))) for row in rows]
        sink.sort()
    return (folder / RECORDS).read_bytes() if any(chunks) else b""


@QUICK
@given(st.lists(ROWS, min_size=1, max_size=4), st.lists(HARM, min_size=1, max_size=3))
def test_whatever_is_done_to_records_a_resumed_run_has_the_bytes_of_a_whole_one(chunks, harms):
    chunks = [
        [{key: value for key, value in row.items() if key != "chunk"} or {"a": 1} for row in one] for one in chunks
    ]
    with tempfile.TemporaryDirectory() as made:
        whole = resumed(Path(made) / "whole", chunks)
        assert resumed(Path(made) / "run", chunks) == whole
        path = Path(made) / "run" / RECORDS
        for harm in harms if path.exists() else ():
            path.write_bytes(harmed(path.read_bytes(), harm))
        assert resumed(Path(made) / "run", chunks) == whole


ARRAYS = st.dictionaries(
    NAME, st.lists(st.floats(width=32), max_size=5).map(lambda values: np.array(values, np.float32)), max_size=3
)


@QUICK
@given(ARRAYS, HARM)
def test_a_chunk_of_arrays_is_read_as_it_was_written_or_not_at_all(arrays, harm):
    with tempfile.TemporaryDirectory() as made:
        with RunWriter.create(Path(made) / "run", CONFIG, "patching_config.json") as writer:
            sink = FolderSink(writer)
            assert sink.arrays("part", 0) is None
            sink.keep_arrays("part", 0, arrays)
            read = sink.arrays("part", 0)
            assert read is not None and list(read) == list(arrays)
            assert all(np.array_equal(read[name], arrays[name], equal_nan=True) for name in arrays)
            (path,) = writer.folder.glob("chunk_*.npz")
            before = path.read_bytes()
            path.write_bytes(harmed(before, harm))
            assert path.read_bytes() == before or sink.arrays("part", 0) is None
