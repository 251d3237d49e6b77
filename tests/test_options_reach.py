"""No option is ignored: each one that decides a run changes a number of its result or is refused, no other does."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.experiment import run
from interp_core.options import declared
from tests.corpus import write_corpus
from tests.experiments.heads_cases import CLASSES
from tests.experiments.heads_cases import write_clips as write_noises
from tests.experiments.heads_cases import write_manifest as write_noise_manifest
from tests.experiments.neuron_clips import write_clips, write_model
from tests.families.encoders import save_clap_audio, save_whisper
from tests.spoof_pairs import save_pair, write_spoof_corpus
from tests.tiny import RATE, tone

REFUSED = "refused"
FOR_ALL = {
    "model": ("nothing", REFUSED),
    "manifest": ("nowhere.csv", REFUSED),
    "corpus": ("nonsense", REFUSED),
    "part": ("middle", REFUSED),
    "adapter": ("nowhere", REFUSED),
    "map_labels": (("nobody says this=that",), REFUSED),
    "device": ("tpu", REFUSED),
    "dtype": "bfloat16",
    "max_seconds": (0.01, REFUSED),
    "seed": 7,
}
"""Option -> another value; with what else is asked in both runs, and REFUSED, behind it where that is so."""
TEXTS = {"train": "text_id=t0,text_id=t1,text_id=t2", "id": "text_id=t3,text_id=t4", "ood": "text_id=t5"}
PROBED = {"stages": (), "maps": (), "patch": ("auto:1",), "weights": False}
CODEC = {**PROBED, "domain": "codec", "probe_clips": 16, "probe_draws": 0}
"""Of `compare`, whose probes take their time."""
WORDED, WITHIN = {"kinds": "semantic"}, {"subspace": "mean-difference"}
"""Pairs without whose speakers several classes are left, and a subspace of them."""
CHANGES = {
    "patch": {
        "max_clips": 9, "skip_bad": (True, {"bad row": True}), "pilot": 1, "batch_size": 1,
        "probe": ("prosody_label", REFUSED), "pairs": (("nobody <- nobody else",), REFUSED),
        "kinds": "semantic", "max_pairs": 2, "prompts": ("Judge the voice.",), "labels": ("sad", "happy"),
        "site": "attn_out", "positions": "last", "layers": (1, 3), "align": "resample", "alphas": (0.5,),
        "controls": (), "flow": ("lens",), "method": "reference", "knockout_width": (2, {"flow": ("knockout",)}),
        "several_tokens": ("first", {"labels": ("happy", "melancholic", "sad")}), "checks": True,
        "words": 6, "word_pairs": (1, {"words": 6}),
        "top_heads": (2, {"maps": ("heads",)}), "map_sites": (("mlp_out",), {"maps": ("heads",)}),
        "back_every": (2, {"maps": ("back",)}), "stated": "prosody_label",
        "statement": ("The voice is {label}.", {"stated": "prosody_label"}),
        "donor_state": ("mean", WORDED),
        "subspace": ("mean-difference", WORDED), "rank": (2, {**WORDED, **WITHIN}),
        "subspace_draws": (2, {**WORDED, **WITHIN}), "subspace_label": ("text_id", {**WORDED, **WITHIN}),
        "maps": ("time",), "windows": (3, {"maps": ("time",)}), "window_seconds": (0.1, {"maps": ("time",)}),
    },
    "signflip": {
        "max_clips": 12, "skip_bad": (True, {"bad row": True}), "pilot": 8, "batch_size": 2, "probe": "speaker",
        "target": "happy", "topk": 3, "kind": "zero", "frames": "all", "reduce": "abs_sum", "layers": (1,), "draws": 3,
        "task": "speaker", "units": "text_id", "labels": ("w", "x", "y", "z"), "prompt": ("Which?", REFUSED),
    },
    "ablate": {
        "max_clips": 20, "skip_bad": (True, {"bad row": True}), "pilot": 5, "batch_size": 1,
        "probe": ("speaker", REFUSED), "at": "resid_post:1", "task": ("speaker", REFUSED), "domain": "text_id",
        "train": ("text_id=t0,text_id=t1", TEXTS), "id": ("text_id=t7", TEXTS), "ood": ("text_id=t6", TEXTS),
        "units": "text_id", "labels": ("wxyz", REFUSED), "prompt": ("Which?", REFUSED), "ks": (0, 3), "kind": "flip",
        "score": "univariate", "draws": 4, "refits": 0, "epoch": ("3", REFUSED),
        "words": (6, REFUSED), "word_clips": (2, REFUSED), "during": ("all", REFUSED),
        "erase": True,
    },
    "heads": {
        "max_clips": 14, "skip_bad": (True, {"bad row": True}), "pilot": 3, "batch_size": 1,
        "probe": ("group", {"ablate": ("zero",), "label": "label", "probe": "label"}, REFUSED),
        "label": "group", "per_class": 3, "classes": ("hum", "tone"), "groups": "none", "clips": "all", "draws": 39,
        "probes": "none", "ablate": (("mean",), {"ablate": ("zero",), "probe": "label"}),
        "prompt": ("Which?", REFUSED), "pt": True,
    },
    "steer": {
        "max_clips": 9, "skip_bad": (True, {"bad row": True}), "pilot": 2, "batch_size": 1,
        "probe": ("prosody_label", REFUSED), "targets": ("sad",), "layers": (1,), "alphas": (1.0,), "positions": "last",
        "controls": ("random",), "control_alpha": 1.0, "draws": 2, "every_draw": True,
        "vector": ("nowhere.safetensors", REFUSED), "task": "semantic_label", "units": "text_id", "max_steered": 2,
        "labels": ("sad", "happy", "neutral"), "prompts": ("Judge the voice.",), "told": "It is {label}.",
        "method": "reference", "checks": True,
        "words": 6, "word_clips": (1, {"words": 6}), "during": ("all", {"words": 6}),
    },
    "probes": {
        "max_clips": 20, "skip_bad": (True, {"bad row": True}), "pilot": 14, "batch_size": 1,
        "probe": ("label", REFUSED), "columns": ("label", "group"), "quantities": ("centroid",),
        "sites": ("attn_out",), "layers": (1,), "places": ("last",), "units": "none", "clips": "all", "draws": 39,
        "controls": 1, "folds": 2, "strength": 10.0, "ridge": 3.0,
        "prompt": "Judge the voice.",
    },
    "compare": {
        "max_clips": 12, "skip_bad": (True, {"bad row": True}), "pilot": 10, "batch_size": 2,
        "probe": ("label", REFUSED),
        "donor": ("nothing", REFUSED), "donor_adapter": ("nowhere", REFUSED),
        "patch": ("cumulative",), "stages": (), "maps": ("ridge",),
        "map_at": ("pooled",), "erase": (("pooled",), CODEC),
        "erase_label": ("label", {**CODEC, "erase": ("pooled",)}),
        "weights": False, "reverse": True, "skip_null": True,
        "label": "attack_label", "speaker": "utterance",
        "group": "speaker", "domain": ("attack_label", CODEC), "attack": "codec", "bonafide_index": 1,
        "labels": ("bonafide", REFUSED), "prompt": ("Which?", REFUSED), "probe_draws": (1, CODEC),
        "probe_clips": (12, CODEC),
        "cka_bytes": 1 << 20, "checks": True,
    },
}  # fmt: skip


def _says_more(given):
    return isinstance(given, tuple) and any(isinstance(one, dict) or one == REFUSED for one in given[1:])


PERMITS = ("skip_bad", "several_tokens")
"""These let something through that is refused without them, and change nothing where there is none."""
ROWS = [(command, name) for command in sorted(CHANGES) for name in {**FOR_ALL, **CHANGES[command]}]


@pytest.fixture(scope="module")
def plain(tiny_folder, tmp_path_factory):
    """The request of each command from which one option at a time is changed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("reach")
    neurons, clips = str(write_model(folder / "wavlm")), str(write_clips(folder / "clips"))
    base, donor = map(str, save_pair(folder / "pair", "tuned"))
    clap = str(save_clap_audio(folder / "clap", depths=(1, 1, 1, 1), heads=(1, 2, 4, 8)))
    noises = write_noises(folder / "noises", CLASSES * 8, seconds=(0.5,))
    of = {command: registered.request for command, registered in EXPERIMENTS.items()}
    return {
        "patch": of["patch"](
            str(tiny_folder), str(write_corpus(folder / "corpus")), device="cpu", kinds="prosody", max_pairs=4, flow=(),
            controls=("random",), checks=False, site="resid_post", labels=("happy", "sad", "neutral"),
        ),
        "signflip": of["signflip"](neurons, clips, device="cpu", draws=2, topk=4, layers=(0, 1)),
        "ablate": of["ablate"](neurons, clips, device="cpu", draws=2, ks=(0, 2), refits=1),
        "heads": of["heads"](
            clap, str(write_noise_manifest(folder / "noises", noises, train=6)), device="cpu", draws=19, probes="wide",
        ),
        "steer": of["steer"](
            str(tiny_folder), str(folder / "corpus" / "clips.csv"), device="cpu", layers=(0, 2), alphas=(1.0, 4.0),
            draws=3, checks=False, labels=("happy", "sad", "neutral"),
        ),
        "probes": of["probes"](
            str(tiny_folder), str(write_noise_manifest(folder / "noises", noises, train=6)), device="cpu",
            layers=(0,), draws=19, columns=("label",), quantities=("level",), controls=2,
        ),
        "compare": of["compare"](
            base, str(write_spoof_corpus(folder / "spoof", speakers=4, utterances=2, codecs=("NONE", "C01"))),
            device="cpu", donor=donor, patch=("0", "2,3"), stages=("mixed",), maps=("mean",), domain="none",
            reverse=False, checks=False,
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return save_whisper(tmp_path_factory.mktemp("whisper") / "model")


@pytest.fixture(scope="module")
def engine():
    return Engine(cache_bytes=1 << 28)


@pytest.fixture(scope="module")
def made(engine):
    """Runs in memory, each request once: the tables of numbers, or what was said against it."""
    kept = {}

    def of(request):
        if request not in kept:
            try:
                kept[request] = run(experiment_of(request.command), engine, request)
            except InterpError as error:
                kept[request] = str(error)
        return kept[request]

    return of


def with_bad_row(request):
    """A manifest with a row more, whose clip cannot be taken; the others as they were."""
    path = request.manifest.replace(".csv", "-bad.csv")
    folder = path.rpartition("/")[0]
    soundfile.write(f"{folder}/short.wav", tone(0.01, 200), RATE)
    lines = open(request.manifest).read().splitlines()
    first = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    row = {**first, "clip_id": "short", "path": "short.wav"}
    with open(path, "w") as file:
        file.write("\n".join([*lines, ",".join(row.values())]) + "\n")
    return replace(request, manifest=path)


def numbers(result):
    """Every table and what is reported, as text; not the reports of checks, which say how exact the routes are."""
    tables = {name: table.round(6).to_csv() for name, table in result.tables().items()}
    reports = {name: str(getattr(result, name, "")) for name in ("report", "findings", "notes", "parts")}
    said = getattr(result, "reports", {})
    return {**tables, **reports, **{name: str(said[name]) for name in said if not name.startswith("sanity")}}


def near(one, other):
    """Whether all tables hold the same, numbers but for rounding."""
    for name, table in one.tables().items():
        again = other.tables()[name]
        assert list(again) == list(table) and len(again) == len(table), name
        for column in table:
            if pd.api.types.is_numeric_dtype(table[column]):
                np.testing.assert_allclose(
                    again[column], table[column], rtol=1e-3, atol=1e-4, err_msg=f"{name} {column}"
                )
            elif not table[column].map(lambda value: isinstance(value, list)).any():
                assert (again[column].fillna("") == table[column].fillna("")).all(), (name, column)
    return True


def test_every_declared_option_is_tried():
    for command, registered in EXPERIMENTS.items():
        tried = {**FOR_ALL, **CHANGES[command]}
        assert set(tried) == {one.name for one in declared(registered.request)}, command


@pytest.mark.slow
@pytest.mark.parametrize("command, name", ROWS, ids=lambda value: value)
def test_an_option_changes_the_result_or_is_refused(plain, engine, made, command, name):
    given = {**FOR_ALL, **CHANGES[command]}[name]
    value, *more = given if _says_more(given) else [given]
    base = plain[command]
    [option] = [one for one in declared(type(base)) if one.name == name]
    for beside in filter(lambda one: isinstance(one, dict), more):
        base = with_bad_row(base) if "bad row" in beside else replace(base, **beside)
    other = replace(base, **{name: value})
    assert other != base, "the same value changes nothing"
    result = made(other)
    if REFUSED in more:
        assert isinstance(result, str), f"{option.flag} was taken"
        assert not isinstance(made(base), str), made(base)
        return
    assert not isinstance(result, str), result
    config = json.loads(json.dumps(dict(result.config), default=str))
    kept = {
        **config["settings"],
        **{key: config[key] for key in ("device", "dtype")},
        "donor": other.__dict__.get("donor"),
    }
    assert kept[name] == json.loads(json.dumps(value)), "the config says another value"
    before = made(base)
    if isinstance(before, str):
        assert name in ("skip_bad", "several_tokens"), before
    elif option.about.decides:
        assert numbers(result) != numbers(before), f"{option.flag} changes nothing"
    else:
        assert near(result, before)


ALONE = [
    (command, name)
    for command, tried in CHANGES.items()
    for name, given in tried.items()
    if _says_more(given) and name not in PERMITS and (command, name) != ("compare", "domain")  # its probes take long
]


@pytest.mark.slow
@pytest.mark.parametrize("command, name", ALONE, ids=lambda value: value)
def test_an_option_alone_changes_the_result_or_is_refused(plain, made, command, name):
    """Without what else is asked above to make it act."""
    base = plain[command]
    [option] = [one for one in declared(type(base)) if one.name == name]
    result = made(replace(base, **{name: CHANGES[command][name][0]}))
    if isinstance(result, str):
        assert not option.about.needs or f"{option.flag} means nothing" in result, result
    else:
        assert numbers(result) != numbers(made(base)), f"{option.flag} changes nothing"


RAVDESS = [f"03-01-{emotion}-01-{text}-01-{actor:02}" for emotion in ("01", "03") for text in ("01", "02")
           for actor in range(1, 7)]  # fmt: skip
SPLITS_OF_ACTORS = {"train": "speaker=01,speaker=02,speaker=03", "id": "speaker=04,speaker=05", "ood": "speaker=06"}
OF_RAVDESS = {
    "ablate": {**SPLITS_OF_ACTORS, "domain": "speaker", "task": "prosody_label", "refits": 0},
    "heads": {"label": "prosody_label"},
    "probes": {"columns": ("prosody_label",)},
    "compare": {"label": "none", "speaker": "none"},
}
MAPPED = {"heads": "hum=tone", "probes": "hum=tone", "compare": "bonafide=spoof"}


def write_ravdess(folder):
    for number, name in enumerate(RAVDESS):
        soundfile.write(folder / f"{name}.wav", tone(0.3, 200 + 10 * number), RATE)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(EXPERIMENTS))
def test_clips_of_a_corpus_and_labels_that_are_read_as_answers_reach_every_experiment(command, plain, made, tmp_path):
    base = plain[command]
    corpus = made(replace(base, manifest=str(write_ravdess(tmp_path)), corpus="ravdess", **OF_RAVDESS.get(command, {})))
    assert not isinstance(corpus, str), corpus
    assert corpus.config["manifest"]["clips"] == len(RAVDESS) and corpus.config["settings"]["corpus"] == "ravdess"
    read = made(replace(base, map_labels=(MAPPED.get(command, "happy=sad"),)))
    assert isinstance(read, str) or numbers(read) != numbers(made(base))


@pytest.mark.slow
def test_vectors_of_a_file_take_the_place_of_fitted_ones(plain, engine, made, tmp_path):
    base = replace(plain["steer"], controls=("random",))
    run(experiment_of("steer"), engine, replace(base, seed=5, positions="last"), out=tmp_path / "other")
    given = made(replace(base, vector=str(tmp_path / "other" / "steering_vectors.safetensors")))
    assert not isinstance(given, str), given
    assert numbers(given) != numbers(made(base))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["heads", "probes"])
def test_the_other_list_of_blocks_is_read_where_it_is_named(command, plain, made, whisper):
    base = (
        replace(plain[command], model=str(whisper), layers=None)
        if command == "probes"
        else replace(plain[command], model=str(whisper))
    )
    first, other = made(base), made(replace(base, part="decoder"))
    assert not isinstance(first, str) and not isinstance(other, str), (first, other)
    assert numbers(first) != numbers(other)


@pytest.mark.slow
@pytest.mark.parametrize("command, beside", [("heads", {}), ("probes", {"places": ("mean",)})])
def test_a_question_behind_all_that_is_read_is_refused_and_the_usual_one_is_not(command, beside, plain, made):
    base = replace(plain[command], model=plain["probes"].model, manifest=plain["probes"].manifest, **beside)
    assert "--prompt means nothing here" in made(replace(base, prompt="Judge the voice."))
    usual = made(base)
    assert not isinstance(usual, str), usual
    assert not isinstance(made(replace(base, prompt=usual.config["settings"]["prompt"])), str)
