"""Probes: the layer that carries a label is named, against independent fits, chance, memory and broken input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp_core import ProbesRequest
from interp_core.__main__ import main
from interp_core.data.clips import Clip
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.probes import tables
from interp_core.experiments.probes.capture import Read, measure, read_states
from interp_core.experiments.probes.experiment import PROBES
from interp_core.experiments.probes.plan import Point, Target, targets_of
from interp_core.experiments.probes.run import fit
from interp_core.models.bundled import demos
from interp_core.runs import read_config
from interp_core.trace.clean import clean_runs
from tests.experiments.neuron_clips import write_clips, write_model
from tests.tiny import RATE, tone

SETTINGS = ProbesRequest("none", draws=99, controls=1, folds=4)
CARRIES, N_LAYERS = 2, 5


def planted(seed: int, *, shuffled: bool = False) -> tuple[Target, np.ndarray, Read, list[Point]]:
    """States of 12 units x 4 clips at 7 layers, of which one alone holds the label along one direction."""
    rng = np.random.default_rng(seed)
    units = np.repeat([f"u{i}" for i in range(12)], 4)
    labels = np.tile(["happy", "sad"], 24)
    points = [Point("resid_post", "mean", layer) for layer in range(-1, N_LAYERS - 1)]
    at = {}
    for point in points:
        own = rng.normal(size=(12, 8))[np.repeat(range(12), 4)] + rng.normal(size=(48, 8))
        if point.layer == CARRIES:
            own[:, 2] += 4.0 * (labels == "sad")
        at[point] = own.astype(np.float32)
    if shuffled:
        labels = rng.permuted(labels.reshape(12, 4), axis=1).ravel()
    target = Target("emotion", True, np.arange(48), tuple(labels), tuple(units), "unit")
    return target, labels, Read(at, {}), points


def test_the_one_layer_that_carries_a_label_is_named_for_every_seed_and_none_for_shuffled_labels():
    right, false, bare = 0, 0, replace(SETTINGS, controls=0, draws=39, folds=3)
    for seed in range(20):
        found = tables.named(fit(*planted(seed), bare)[0], "emotion")
        right += found is not None and found["layer"] == CARRIES
        if seed < 10:  # tests/maths/test_probes.py holds the rate over more of them
            false += tables.named(fit(*planted(seed, shuffled=True), bare)[0], "emotion") is not None
    assert right == 20
    assert binom.sf(false - 1, 10, 0.05) > 0.01, f"{false} of 10 shuffled runs name a layer"


def test_an_accuracy_is_that_of_an_independent_cross_validation_with_its_control_and_chance():
    target, labels, read, points = planted(0)
    table, said = fit(target, labels, read, points, SETTINGS)
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=42)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=5000))
    for number, point in enumerate(points):
        expected = cross_val_predict(probe, read.at[point].astype(float), labels, groups=target.units, cv=splitter)
        assert (said[number] == expected).mean() > 0.97  # two solvers, an answer on the edge may fall either way
        row = table.iloc[number]
        assert row["score"] == pytest.approx(balanced_accuracy_score(labels, said[number]))
        assert row["accuracy"] == pytest.approx(np.mean(labels == said[number]))
        assert row["selectivity"] == pytest.approx(row["score"] - row["control"])
        assert (row["chance"], row["n"], row["units"], row["classes"]) == (0.5, 48, 12, 2)
    here = table[table["layer"] == CARRIES].iloc[0]
    assert here["score"] > 0.85 > here["control"] and here["score_low"] < here["score"] and here["p_adjusted"] <= 0.02
    assert "label a group" in here["control_method"] and "max-T" in here["test"]


def test_an_r2_is_that_of_an_independent_cross_validation():
    _, labels, read, points = planted(1)
    value = (labels == "sad") * 2.0 + 0.02 * np.arange(48)
    target = Target("level", False, np.arange(48), (), planted(1)[0].units, "unit")
    table, said = fit(target, value, read, points, replace(SETTINGS, ridge=0.2))
    for number, point in enumerate(points):
        x = read.at[point].astype(float)
        splitter = GroupKFold(4, shuffle=True, random_state=42)  # 36 clips in every fold
        one = make_pipeline(StandardScaler(), Ridge(alpha=0.2 * 36))
        expected = cross_val_predict(one, x, value, groups=target.units, cv=splitter)
        np.testing.assert_allclose(said[number], expected, atol=1e-6)
        assert table.iloc[number]["score"] == pytest.approx(r2_score(value, expected), abs=1e-6)
    best = tables.best_points(table).iloc[0]
    assert best["layer"] == CARRIES and best["chance"] == 0 and best["beyond"] >= 1


def test_states_are_those_of_the_clean_run_at_the_recordings_positions_and_at_the_last(tiny_folder, corpus, engine):
    asked = ProbesRequest(str(tiny_folder), str(corpus), device="cpu", sites=("resid_post", "attn_out"))
    ready = PROBES.prepare(engine, asked)
    reader, plan = ClipReader(ready.store, ready.request.prompt), ready.plan
    assert ready.request.places == ("mean", "last") and ready.request.layers == tuple(range(-1, 5))
    plan = replace(plan, clips=plan.clips[:2], settings=replace(plan.settings, quantities=()))
    read = read_states(reader, plan)
    for row, clip in enumerate(plan.clips):
        [clean] = clean_runs(ready.store.subject, [ready.store.prompted(clip, reader.prompt)], ("attn_out",))
        start, stop = clean.prompted.audio
        assert 0 < start < stop < clean.prompted.n_pos
        for point in plan.points:
            state = clean.resid[point.layer + 1] if point.kind == "resid_post" else clean.at("attn_out", point.layer)
            wanted = state[start:stop].mean(0) if point.place == "mean" else state[-1]
            np.testing.assert_allclose(read.at[point][row], wanted, atol=2e-5)


def test_quantities_follow_the_sound_and_are_counted_as_ears_count():
    seconds = np.arange(RATE) / RATE
    soft, loud, high = 0.1 * tone(1.0, 200), 0.2 * tone(1.0, 200), 0.1 * tone(1.0, 400)
    of = {name: measure(wave, RATE, ("f0", "level", "centroid", "duration")) for name, wave in
          (("soft", soft), ("loud", loud), ("high", high))}  # fmt: skip
    assert of["loud"]["level"] - of["soft"]["level"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert of["high"]["f0"] - of["soft"]["f0"] == pytest.approx(1, abs=0.02)  # an octave
    assert of["high"]["centroid"] > of["soft"]["centroid"] and of["soft"]["duration"] == 0
    rates = [
        measure((soft * (1 + np.sin(2 * np.pi * hertz * seconds))).astype(np.float32), RATE, ("rate",))["rate"]
        for hertz in (3, 9)
    ]
    assert rates[0] < 6 < rates[1] < 14, rates
    assert np.isnan(measure(np.zeros(RATE, np.float32), RATE, ("level",))["level"])


def clips_of(*rows: dict[str, str]) -> list[Clip]:
    return [Clip(f"c{i}", Path("x"), row, str(i)) for i, row in enumerate(rows)]


def test_columns_units_and_classes_are_chosen_or_what_is_wrong_is_said():
    rows = [{"word": f"w{i % 8}", "tone": "abc"[i % 2 if i < 15 else 2], "who": f"s{i % 4}"} for i in range(16)]
    clips = clips_of(*({**row, "text_id": row["word"], "speaker": row["who"]} for row in rows))
    found = {one.name: one for one in targets_of(clips, ProbesRequest("m"))}
    assert set(found) == {"speaker", "tone", "who", "f0", "level", "rate", "centroid"}  # each text is there twice alone
    assert found["tone"].left_out == "c (from under 3 text_id)" and len(found["tone"].rows) == 15
    assert found["tone"].unit == "text_id" and found["speaker"].unit == "none"  # a speaker says two texts
    with pytest.raises(InterpError, match="no clip has a column 'colour'"):
        targets_of(clips, ProbesRequest("m", columns=("colour",)))
    with pytest.raises(InterpError, match="under two of its values come from 3 or more different who"):
        targets_of(clips, ProbesRequest("m", columns=("word",), units="who"))
    with pytest.raises(InterpError, match="nothing to read"):
        targets_of(clips_of({"tone": "a"}, {"tone": "b"}), ProbesRequest("m", quantities=()))


@pytest.mark.parametrize(
    "more, said",
    [
        ({"sites": ("mlp_out",), "layers": (-1, 0)}, "layer -1, what enters layer 0, is read at resid_post alone"),
        ({"layers": (0, 9)}, r"layers \[9\] are outside"),
        ({"places": ("last",)}, "has no last position"),
        ({"sites": ()}, "no site was given"),
        ({"columns": ("speaker", "speaker")}, "--columns: give each once"),
        ({"units": "colour"}, "no clip has a column 'colour' for the units"),
        ({"prompt": "Which?"}, "is asked no question"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_anything_runs(encoder, more, said):
    with pytest.raises(InterpError, match=said):
        PROBES.prepare(encoder[0], replace(encoder[1], **more))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, ProbesRequest]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("probes")
    model, clips = write_model(folder / "wavlm"), write_clips(folder / "clips")
    return Engine(), ProbesRequest(str(model), str(clips), device="cpu", draws=19, controls=1, clips="all")


def test_a_folder_is_read_back_as_it_was_and_says_in_sentences_what_is_in_it(encoder, tmp_path):
    engine, asked = encoder
    made = run(PROBES, engine, replace(asked, sites=("resid_post", "mlp_out")), out=tmp_path / "run")
    again = open_result(PROBES, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "probes_config.json", "probes.csv", "probes_clips.csv", "probes_predictions.npz", "probes.png",
    }  # fmt: skip
    for name, table in made.tables().items():
        assert again.tables()[name].round(9).to_csv() == table.round(9).to_csv(), name
    assert made.profile().equals(again.profile()) and len(made.table) == 7 * len(made.clips)
    lines = list(PROBES.summary(again))
    assert any(line.startswith("level: ") and "n = 24 clips of 3 speaker" in line for line in lines), lines
    assert any("by construction" in line for line in lines)  # its head reads the last layer
    row = made.best.iloc[0]
    read = again.at(row["target"], row["site"], row["place"], row["layer"])
    assert (read["value"] == read["read"]).mean() == pytest.approx(row["accuracy"])
    (tmp_path / "run" / "probes_predictions.npz").write_bytes(b"PK nothing")
    with pytest.raises(InterpError, match="probes_predictions"):
        open_result(PROBES, tmp_path / "run")


def test_the_command_writes_a_run_says_it_and_repeats_it_from_its_config(encoder, tmp_path, capsys):
    asked, out = encoder[1], tmp_path / "run"
    given = ["probes", "--model", asked.model, "--manifest", asked.manifest, "--device", "cpu", "--clips", "all"]
    given += ["--columns", "prosody_label", "--quantities", "level,duration", "--sites", "resid_post,attn_out"]
    given += ["--layers=-1,1", "--units", "text_id", "--draws", "39", "--controls", "0", "--folds", "4", "--seed", "3"]
    assert main([*given, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n" and "24 clips (8 text_id): about 24 forward passes" in said.err
    assert "36 fits of probes" in said.err  # 3 targets at 3 points in 4 folds
    assert "level: " in said.err and "prosody_label: " in said.err
    settings = read_config(out)["settings"]
    told = {"columns": ["prosody_label"], "quantities": ["level", "duration"], "sites": ["resid_post", "attn_out"]}
    told |= {"layers": [-1, 1], "units": "text_id", "draws": 39, "controls": 0, "folds": 4, "seed": 3, "clips": "all"}
    told |= {"places": ["mean"], "strength": 0.1, "ridge": 0.1, "prompt": ""}
    assert {name: settings[name] for name in told} == told
    assert main(["probes", "--config", str(out / "probes_config.json"), "--out", str(tmp_path / "again")]) == 0
    for name in ("probes.csv", "probes_clips.csv", "probes_predictions.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_the_run_that_ships_is_of_the_weights_and_clips_that_ship(engine):
    folder = next(one for one in demos()["demo-emotion"].saved_runs if one.name == "run-probes")
    made = open_result(PROBES, folder)
    asked = replace(ProbesRequest.from_config(made.config), device="cpu", dtype="float32")
    ready = PROBES.prepare(engine, asked)
    assert ready.store.subject.weights_hash == made.config["model"]["weights_sha256"]
    assert ready.manifest.digest == made.config["manifest"]["sha256"] and made.config["finished"]
    for name in ("f0", "level", "rate", "centroid"):
        kept = made.clips[name].set_index("clip_id")["value"]
        for clip in (ready.plan.clips[0], ready.plan.clips[77]):
            samples = ready.store.samples(clip)
            here = measure(samples, ready.store.subject.sample_rate, (name,))[name]
            assert kept[clip.clip_id] == pytest.approx(here, abs=1e-3), (name, clip.clip_id)
    last = made.table[(made.table["place"] == "last") & made.table["is_label"]].set_index(["target", "layer"])
    assert last.loc[("prosody_label", -1), "score"] == pytest.approx(0.2), "nothing has been read there"
    assert last.loc[("prosody_label", 9), "selectivity"] > 0.4


def test_a_quantity_that_few_clips_have_is_not_read_and_says_so(encoder):
    _, _, read, points = planted(2)
    target = Target("f0", False, np.arange(4), (), ("a", "b", "c", "d"), "unit")
    table, said = fit(target, np.arange(4.0), read, points, SETTINGS)
    assert table["score"].isna().all() and said.shape == (5, 0)
    [line] = tables.summary(table)
    assert line == "median F0: not read: 4 clips have a f0, 10 needed"
