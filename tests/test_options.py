"""One declaration a setting: request, command line, config, snippet and key say the same for every experiment."""

import argparse
import json
import math
import random
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from interp_core import cli
from interp_core.command_words import add_options, command_line, from_args, joined_words
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS
from interp_core.experiments.patching.request import PatchRequest
from interp_core.options import (
    deciding,
    declared,
    differences,
    from_config,
    idle,
    option,
    python_call,
    to_config,
)
from interp_core.request import IN_OTHER_PLACES, Request

ASSETS = Path(__file__).resolve().parents[1] / "assets"
COMMANDS = sorted(EXPERIMENTS)
WORDS = (
    *("a", "speaker=s1", "two words", " blanks around ", "a,b", ",", "", "-1", "--seed", "-", "=", "--", "it's", '"'),
    *('""', 'say "x"', "'", '",', '","', "none", "None", "all", "auto", "100", "a\tb", "#", "$HOME", "`ls`", "*", "\\"),
    *("größer", "日本", "🎧", "é,ü", "{}", "%s", "%(prog)s", "@file", "~/x", "split=id_val,ood"),
)  # fmt: skip
NUMBERS = (0.0, 1.0, 0.1, 1 / 3, 1e-9, 123456.789, 0.30000000000000004, 1e300)
LIMITS = (1, 100, {"prosody": 3}, {"prosody": 100, "text_id~speaker": 5}, {"semantic": 7, "日本": 2})


def value_of(rng, one):
    """A value that the field may hold; what a person may type for a text is anything."""
    if one.optional and rng.random() < 0.3:
        return None
    if one.about.read is not None:
        return {"max_pairs": rng.choice(LIMITS), "cka_bytes": rng.randrange(1, 1 << 36)}[one.name]
    if one.several:
        values = tuple(single(rng, one) for _ in range(rng.choice((0, 1, 1, 2, 3, 5))))
        if values == ("none",) and one.name in ("patch", "stages"):
            return ()  # as configs of version 0.1 wrote it; no stage is called so
        # Given once a value, an empty list is said by a word, or it is the default.
        return values if values or not one.about.repeat or one.about.none else one.default
    return single(rng, one)


def single(rng, one):
    if one.choices:
        return rng.choice(one.choices)
    if one.kind is bool:
        return rng.random() < 0.5
    if one.kind is int:
        return rng.choice((rng.randrange(0, 2**31), 0, 1, 7))
    return rng.choice(NUMBERS) if one.kind is float else rng.choice(WORDS)


def random_request(rng, cls):
    chosen = [one for one in declared(cls) if rng.random() < 0.5]
    return cls(**{one.name: value_of(rng, one) for one in chosen})


def parsed(line):
    return cli.request_of(cli.parser().parse_args(shlex.split(line)[3:]))


def in_a_file(request, tmp_path):
    """The config of a finished run of a request, as `Ready` writes it, through a file."""
    settings = {name: value for name, value in to_config(request).items() if name not in IN_OTHER_PLACES}
    config = {
        "command": request.command,
        "model": {"id": request.model},
        "donor": {"id": getattr(request, "donor", "")},
        "device": request.device,
        "dtype": request.dtype,
        "manifest": {"path": request.manifest},
        "clip_seconds": {"min": 0.1, "max": 30.0},
        "settings": settings,
    }
    path = tmp_path / request.config_file
    path.write_text(json.dumps(config), "utf-8")
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_thousand_random_requests_go_round_every_form_without_a_difference(command, tmp_path, monkeypatch):
    cls, rng = EXPERIMENTS[command].request, random.Random(command)
    made = cli.parser()
    monkeypatch.setattr(cli, "parser", lambda: made)
    seen = set()
    for _ in range(1000):
        asked = random_request(rng, cls)
        line = asked.command_line("runs/x")
        first = parsed(line)
        assert first == asked, line
        saved = json.loads(json.dumps(to_config(first)))
        second = from_config(cls, saved)
        kept = json.loads(in_a_file(second, tmp_path).read_text("utf-8"))
        assert second == cls.as_saved(kept) == asked and cls.from_config(kept) == asked.counting()
        assert idle(asked.counting()) == [] and (idle(asked) == []) is (asked.counting() == asked)
        assert second.command_line("runs/x") == line
        there = {cls.__name__: cls, "nan": math.nan, "inf": math.inf}
        exec(f"made = {python_call(second)}", there)
        assert there["made"] == asked and there["made"].key == asked.key
        seen |= {one.name for one in declared(cls) if getattr(asked, one.name) != one.default}
    assert seen == {one.name for one in declared(cls)}, "every option was away from its default"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_of_a_request_is_declared_and_the_default_of_each_is_fine(command):
    cls = EXPERIMENTS[command].request
    assert [one.name for one in declared(cls)] == [field.name for field in fields(cls)]
    cls("m").check()
    flags = [one.flag for one in declared(cls)]
    assert len(set(flags)) == len(flags)
    for one in declared(cls):
        assert one.about.help and not one.about.help.endswith("."), one.name
        assert one.faults(one.default) == []
        if one.kind is not bool and (one.default is not None or one.about.none):
            assert one.read(one.write(one.default)) == one.default


@pytest.mark.parametrize("command", COMMANDS)
def test_the_snippet_makes_the_request_and_a_request_shows_itself_as_its_call(command):
    cls = EXPERIMENTS[command].request
    asked = cls("a model", "c.csv", seed=5)
    there = {}
    exec(asked.snippet().partition("result = ")[0] + f"made = {asked!r}", there)
    assert there["made"] == asked and repr(asked) == f"{cls.__name__}(model='a model', manifest='c.csv', seed=5)"
    assert callable(there["run"])


NOTHING = {
    "patch": {"maps": (), "positions": "last", "flow": (), "stated": "", "subspace": "none", "words": 0},
    "steer": {"controls": (), "prompts": ("Why?",), "words": 0},
    "compare": {"patch": (), "stages": (), "maps": (), "weights": False, "erase": (), "domain": "none"},
    "probes": {"quantities": ()},
    "heads": {"ablate": (), "words": 0},
    "ablate": {"words": 0, "ks": (0,)},
    "signflip": {},
}
"""What every need of an experiment's options names, without anything in it."""


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_needs_another_is_refused_without_it_and_left_out_of_what_counts(command):
    cls, rng = EXPERIMENTS[command].request, random.Random(command)
    bare = cls("m", **NOTHING[command])
    assert idle(bare) == [], "what is at its default is never refused"
    needy = [one for one in declared(cls) if one.about.needs]
    assert {need.name for one in needy for need in one.about.needs} == set(NOTHING[command])
    for one in needy:
        value = one.default
        while value == one.default:
            value = value_of(rng, one)
        given = replace(bare, **{one.name: value})
        said = one.flag.replace("--", "--(no-)?", 1)
        with pytest.raises(InterpError, match=f"{said} means nothing without .*leave {said} out"):
            given.check()
        assert given.counting() == bare and given.counting(keep=[one.name]) == given
        assert one.needed in one.help
        for need in one.about.needs:
            met = {need.name: next(v for v in met_by(need, cls))}
            assert idle(replace(given, **met)) == [], (one.name, met)


def met_by(need, cls):
    """Values that meet a need."""
    [other] = [one for one in declared(cls) if one.name == need.name]
    if need.several:
        yield ("a", "b")
    elif need.among:
        yield (need.among[0],) if other.several else need.among[0]
    else:
        yield (
            {int: 3, bool: True}.get(other.kind, "mean-difference")
            if not other.several
            else ((3,) if other.kind is int else (other.choices or ("all",))[:1])
        )


def test_what_an_experiment_cannot_use_is_refused_with_the_reason_and_not_in_its_help(capsys):
    with pytest.raises(InterpError, match="--probe means nothing here: the states of the blocks are read"):
        EXPERIMENTS["probes"].request("m", probe="label").check()
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["probes", "--help"])
    assert "--probe " not in capsys.readouterr().out


def test_a_word_that_stands_for_nothing_can_be_a_value_and_blanks_that_were_meant_stay():
    @dataclass(frozen=True)
    class Sample(Request):
        classes: tuple[str, ...] = option(("a",), "some", none="none")
        many: tuple[str, ...] = option((), "some", repeat=True)
        top: int | None = option(None, "some", none="auto")

        command: ClassVar[str] = "sample"

    def back(**values):
        asked = Sample("m", **values)
        parser = argparse.ArgumentParser()
        add_options(parser, Sample)
        line = command_line("sample", asked)
        assert Sample(**from_args(Sample, parser.parse_args(shlex.split(line)[4:]))) == asked, line
        return line

    assert "--classes=none" in back(classes=())
    assert back(classes=("none",)) != back(classes=())
    back(classes=(" a ", "none", "b,c", '"'))
    back(many=("a, b", "none", "", " x"))
    assert "--top" not in back(top=None)
    [classes] = [one for one in declared(Sample) if one.name == "classes"]
    assert classes.read(" a , b ") == ("a", "b"), "blanks after a comma are slips"


def test_all_that_is_wrong_is_said_in_one_message():
    cls = EXPERIMENTS["patch"].request
    asked = cls(
        "", align="stretch", controls=("random", "shuffle"), alphas=(0.5, 1.5, -1.0, math.nan), batch_size=0,
        seed=2**31, pilot=0, site="resid_pst", prompts=("a", "a"),
    )  # fmt: skip
    with pytest.raises(InterpError) as refused:
        asked.check()
    message = str(refused.value)
    for words in (
        "--model is missing; give a bundled name (demo-emotion)",
        "--align 'stretch' is none of truncate, resample",
        "--controls 'shuffle' is none of random, noise, no-conflict, prefix",
        "--alpha 1.5 is too large; give 1 or less",
        "--alpha -1 is too small; give 0 or more",
        "--alpha nan is not a number",
        "--batch-size 0 is too small; give 1 or more",
        "--seed 2147483648 is too large; give 2147483647 or less",
        "--pilot 0 is too small; give 1 or more",
        "did you mean 'resid_post'",
        "one prompt is given twice",
    ):
        assert words in message, words
    assert message.count("; ") >= 10 and "\n" not in message
    assert "--controls 'random'" not in message and "--alpha 0.5" not in message


@pytest.mark.parametrize("command", COMMANDS)
def test_each_bound_and_each_choice_is_kept_at_its_edge_and_refused_beyond_it(command):
    cls, tried = EXPERIMENTS[command].request, 0
    for one in declared(cls):
        edges = [(one.about.least, -1), (one.about.most, 1)]
        for edge, step in [(edge, step) for edge, step in edges if edge is not None]:
            for value, fine in ((edge, True), (edge + step, False)):
                value = one.kind(value)
                faults = one.faults((value,) if one.several else value)
                assert (faults == []) is fine and (fine or one.flag in faults[0])
                tried += 1
        if one.choices:
            assert all(one.faults((value,) if one.several else value) == [] for value in one.choices)
            [fault] = one.faults(("nonsense",) if one.several else "nonsense")
            assert fault.startswith(f"{one.flag} 'nonsense' is none of {one.choices[0]}")
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("given", ["--seed=x", "--seed=1.5", "--max-seconds=long", "--max-clips="])
def test_a_text_that_is_no_number_is_refused_with_the_option(given):
    with pytest.raises(InterpError, match=f"^{given.partition('=')[0]} '.*' is not a (whole )?number"):
        parsed(f"python -m interp_core heads --model=m --out=x {given}")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_key_moves_with_every_option_that_decides_a_run_and_with_no_other(command):
    cls, rng = EXPERIMENTS[command].request, random.Random(0)
    plain = cls("m", "c.csv")
    keys = {plain.key}
    for one in declared(cls):
        value = getattr(plain, one.name)
        while value == getattr(plain, one.name):
            value = value_of(rng, one)
        other = replace(plain, **{one.name: value})
        assert (other.key != plain.key) is one.about.decides, one.name
        if one.about.decides:
            assert other.key not in keys
            keys.add(other.key)
        assert bool(differences(plain, other)) is one.about.decides
    undecided = {one.name for one in declared(cls) if not one.about.decides}
    assert {"device", "batch_size"} <= undecided <= {"device", "batch_size", "checks", "cka_bytes", "pt"}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_that_is_added_later_moves_no_key_and_opens_old_configs(command):
    cls = EXPERIMENTS[command].request
    Later = dataclass(frozen=True)(
        type("Later", (cls,), {"__annotations__": {"twist": int}, "twist": option(3, "a later setting")})
    )
    for asked in (cls("m"), cls("m", "c.csv", seed=1, labels=("a",)) if hasattr(cls, "labels") else cls("m", seed=1)):
        same = {one.name: getattr(asked, one.name) for one in declared(cls)}
        assert Later(**same).key == asked.key and deciding(Later(**same)) == deciding(asked)
        assert Later(**same, twist=4).key != asked.key
        assert from_config(Later, to_config(asked)).twist == 3
    with pytest.raises(InterpError, match="the config holds unknown settings 'twist'; it is from another version"):
        from_config(cls, to_config(Later("m")))


def test_differences_are_said_in_the_words_of_the_form():
    heads, patch = EXPERIMENTS["heads"].request, EXPERIMENTS["patch"].request
    asked, made = heads("m", draws=99, batch_size=2), heads("m", clips="all", ablate=("zero",), batch_size=64, pt=True)
    assert differences(asked, made) == [
        "Clips: not those of split = train asked, all in this run",
        "Shuffles: 99 asked, 999 in this run",
        "Ablate every head: none asked, zero in this run",
    ]
    assert differences(patch("m", skip_bad=True), patch("m", layers=(0, 3))) == [
        "skip bad: yes asked, no in this run",
        "Layers: all asked, 0,3 in this run",
    ]
    assert differences(asked, asked) == []


# ---- what earlier runs saved -----------------------------------------------------------------------------------------

SHIPPED = sorted(ASSETS.glob("*/run*/*_config.json"))
OLD = sorted((Path(__file__).parent / "data/old_configs").glob("*.json"))
"""Of runs that shipped before settings were declared once, some of them with their request nested."""
SAVED = [*SHIPPED, *OLD]


def named(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def test_the_configs_of_every_experiment_are_there():
    shipped, old = ({json.loads(path.read_text("utf-8"))["command"] for path in paths} for paths in (SHIPPED, OLD))
    assert shipped == set(EXPERIMENTS)
    assert len(old) == 5 and old < set(EXPERIMENTS), "what there was before settings were declared once"


@pytest.mark.parametrize("path", SAVED, ids=named)
def test_a_config_that_was_saved_opens_as_a_request_whose_command_asks_for_the_same(path):
    config = json.loads(path.read_text("utf-8"))
    cls = EXPERIMENTS[config["command"]].request
    made = cls.from_config(config)
    made.check()
    assert made.model == config["model"]["id"] and made.manifest is None and made.dtype == "float32"
    kept = {**config.get("request", {}), **config["settings"]}
    assert len(kept) > 10
    for name, value in kept.items():
        if hasattr(made, name):
            found = getattr(made, name)
            assert (list(found) if isinstance(found, tuple) else found) == value or value == ["none"], name
        else:
            assert name in ("head", "held_out"), f"{name} is dropped without a word"
    assert parsed(made.command_line()) == made
    assert cls.from_config(json.loads(json.dumps(config))) == made
    its_own = {name: value for name, value in config.get("asked", {}).items() if name not in ("model", "device")}
    asked = replace(cls(made.model), **its_own)
    assert asked.differences_from(config) == []
    assert asked.differences_from({**config, "settings": {**config["settings"], "seed": 7}}) == []
    assert len(replace(asked, seed=5).differences_from(config)) == 1


@pytest.mark.parametrize("path", SAVED, ids=named)
def test_the_config_of_another_experiment_or_version_is_refused(path):
    config = json.loads(path.read_text("utf-8"))
    cls = EXPERIMENTS[config["command"]].request
    other = next(found.request for command, found in EXPERIMENTS.items() if command != config["command"])
    with pytest.raises(
        InterpError, match=f"the config is one of '{config['command']}'; give that of a '{other.command}'"
    ):
        other.from_config(config)
    with pytest.raises(InterpError, match="unknown settings 'shape'"):
        cls.from_config({**config, "settings": {**config["settings"], "shape": 1}})
    with pytest.raises(InterpError, match="is missing or wrong"):
        cls.from_config({name: value for name, value in config.items() if name != "settings"})


# ---- --config and options beside it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_options_beside_a_config_win_and_are_named(command, tmp_path, capsys):
    cls = EXPERIMENTS[command].request
    saved = cls("the model", "c.csv", seed=5, max_clips=9, skip_bad=True)
    path = in_a_file(saved, tmp_path)
    line = f"python -m interp_core {command} --config {shlex.quote(str(path))} --out x"
    assert parsed(line) == saved
    assert capsys.readouterr().err == "", "nothing is said where nothing else is asked"
    found = parsed(f"{line} --seed 6 --max-clips 9 --no-skip-bad --batch-size=3")
    assert found == replace(saved, seed=6, skip_bad=False, batch_size=3)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"not as in {path}: ")
    assert "--seed=6" in said and "--no-skip-bad" in said and "--batch-size=3" in said and "--max-clips" not in said
    default = parsed(f"{line} --seed 42")
    assert default.seed == 42, "an option that is given at its default wins too"
    assert "--seed=42" in capsys.readouterr().err


def test_what_counts_for_nothing_in_a_config_is_left_out_and_said(tmp_path, capsys):
    path = in_a_file(PatchRequest("m", maps=("time",), windows=3, seed=5), tmp_path)
    line = f"python -m interp_core patch --config {shlex.quote(str(path))} --out x"
    assert parsed(f"{line} --map heads") == PatchRequest("m", maps=("heads",), seed=5)
    assert f"left out of {path}, as it changes nothing here: --windows=3" in capsys.readouterr().err
    kept = parsed(f"{line} --map heads --windows 3")
    with pytest.raises(InterpError, match="--windows means nothing without --map time"):
        kept.check()  # what was given is refused


def test_a_literal_of_numbers_is_read_as_numbers_or_not_declared():
    """No request declares one; were one declared, its command line would not go back."""
    for registered in EXPERIMENTS.values():
        for one in declared(registered.request):
            assert all(isinstance(choice, str) for choice in one.choices), one.name
    assert Literal  # the choices above are of this


@pytest.mark.parametrize(
    ("typed", "joined"),
    [
        (["--layers", "-1,2,5"], ["--layers=-1,2,5"]),
        (["patch", "--layers", "-1", "--seed", "3"], ["patch", "--layers=-1", "--seed", "3"]),
        (["--layers=-1,2", "--out", "x"], ["--layers=-1,2", "--out", "x"]),
        (["--skip-bad", "--out", "-x"], ["--skip-bad", "--out", "-x"]),
    ],
)
def test_a_list_that_begins_below_zero_belongs_to_the_option_before_it(typed, joined):
    assert joined_words(typed) == joined


def test_layers_from_the_embeddings_on_reach_the_request():
    words = joined_words(["patch", "--model", "m", "--out", "o", "--layers", "-1,2,5"])
    assert from_args(PatchRequest, cli.parser().parse_args(words))["layers"] == (-1, 2, 5)
