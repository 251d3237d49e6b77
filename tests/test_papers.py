"""What docs/ and the papers beside the README say: commands are understood, links lead somewhere, numbers are those of
the saved runs, and container, citation and package agree with what is there."""

import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement

from interp_core.cli import parser, request_of
from interp_core.models.bundled import demos
from interp_core.options import declared

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAPERS = [*DOCS, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
EXPERIMENTS = {
    "patching.md": "patch",
    "compare.md": "compare",
    "heads.md": "heads",
    "neurons.md": "ablate",
    "signflip.md": "signflip",
    "steering.md": "steer",
    "probes.md": "probes",
}
RUNS = {
    "patching.md": "demo-emotion/run",
    "compare.md": "demo-spoof-erm/run-compare",
    "heads.md": "demo-events/run-heads",
    "neurons.md": "demo-shortcut/run-ablate",
    "signflip.md": "demo-emotion-wavlm/run-signflip",
    "steering.md": "demo-emotion/run-steer",
    "probes.md": "demo-emotion/run-probes",
}
SECTIONS = ["What is computed", "Try it", "The command", "The run folder", "What it does not prove", "Sources"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def text_of(name: str) -> str:
    """A page on one line, as a browser flows it, without the stars of bold words."""
    return re.sub(r"\s+", " ", (ROOT / "docs" / name).read_text("utf-8")).replace("**", "")


def commands(text: str) -> list[str]:
    """Command lines and commands in running text, `patchbay` being the same as `python -m interp_core`."""
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    found = [line for line in lines if line.startswith(("python -m interp_core ", "patchbay "))]
    inline = re.findall(r"`((?:python -m interp_core|patchbay) [^`]+)`", text)
    return [re.sub(r"^(python -m interp_core|patchbay) ", "", line) for line in (*found, *inline)]


def understood(line: str) -> None:
    """Parse a command. SystemExit where the parser refuses it, or where an option is written shorter than it is."""
    words = [word for word in shlex.split(line) if not word.startswith(">")]
    if "--" in words:  # a command about another command
        inner = words[words.index("--") + 1 :]
        understood(shlex.join(inner))
    parser().parse_args(words)
    words = words[: words.index("--")] if "--" in words else words
    commands_of = next(action for action in parser()._actions if isinstance(action.choices, dict))
    known = commands_of.choices[words[0]]._option_string_actions
    if short := [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in known]:
        raise SystemExit(f"{short} in {line!r}")


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_the_index_and_one_page_an_experiment_with_its_sections_are_there():
    assert {path.name for path in DOCS} == {
        "README.md",
        "recordings.md",
        "countermeasures.md",
        "kimi-audio.md",
        *EXPERIMENTS,
    }
    index = (ROOT / "docs/README.md").read_text("utf-8")
    for name, command in EXPERIMENTS.items():
        assert f"({name}) | `{command}` |" in index, name
        headings = re.findall(r"^## (.+)$", (ROOT / "docs" / name).read_text("utf-8"), re.M)
        assert headings == SECTIONS, name
        assert commands((ROOT / "docs" / name).read_text("utf-8"))[0].startswith(f"{command} --model demo-"), name


def test_the_neurons_page_says_in_its_first_line_that_its_command_is_ablate():
    assert "`ablate`" in (ROOT / "docs/neurons.md").read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_one_that_the_parser_takes(paper):
    for line in commands(paper.read_text("utf-8")):
        understood(line)


def test_a_command_that_the_parser_does_not_take_would_be_noticed():
    text = "go:\n```\npython -m interp_core patch --model x --no-such-option 1 --out y\n```\nor `patchbay nothing`."
    assert len(commands(text)) == 2
    for line in (*commands(text), "signflip --model x --top 24 --out y"):
        with pytest.raises(SystemExit):
            understood(line)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(paper):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", paper.read_text("utf-8")) if ":" not in link]
    assert links or paper.name in ("SECURITY.md", "signflip.md", "steering.md", "probes.md", "recordings.md")
    assert [link for link in links if not (paper.parent / link).exists()] == []


@pytest.mark.parametrize("page", EXPERIMENTS)
def test_the_files_of_a_run_folder_are_those_of_the_saved_run(page):
    section = (ROOT / "docs" / page).read_text("utf-8").split("## The run folder")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w{}.-]+\.\w+)`", row.split("|")[1])}
    folder = ROOT / "assets" / RUNS[page]
    model = json.loads(next(folder.glob("*_config.json")).read_text("utf-8"))["model"]["id"]
    told = {name.format(kind=kind, model=model) for name in named for kind in ("prosody", "semantic")}
    assert told == {path.name for path in folder.iterdir()}


def test_demos_that_are_named_ship():
    named = {name for page in DOCS for name in re.findall(r"`(demo-[\w-]+)`", page.read_text("utf-8"))}
    assert named and named <= set(demos())


# ---- numbers ---------------------------------------------------------------------------------------------------------


def table(page: str, name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "assets" / RUNS[page] / name)


def read(page: str, name: str) -> dict[str, Any]:
    return json.loads((ROOT / "assets" / RUNS[page] / name).read_text("utf-8"))


def pick(frame: pd.DataFrame, **wanted: Any) -> dict[str, Any]:
    """The one row with these values."""
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1, wanted
    return frame.iloc[0].to_dict()


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def share(row: dict[str, Any], rate: str, count: str) -> str:
    return f"{percent(row[rate])} ({round(row[rate] * row[count])} of {row[count]})"


def of_patching() -> Iterator[str]:
    page, rate, count = "patching.md", "flip_to_target_rate_reachable", "reachable_count"
    matched, controls = table(page, "patching_metrics_prosody.csv"), table(page, "control_metrics_prosody.csv")
    six, seven = (pick(matched, prompt=0, layer=layer) for layer in (6, 7))
    flips = matched[matched["prompt"] == 0].set_index("layer")[rate]
    assert (flips.loc[-1:5] == 1).all() and flips[9] > 0 and flips[10] == 0
    yield "stands at 100 % from the embeddings to layer 5 and falls to 0 % at layer 10"
    low, high = (100 * six[f"{rate}_{end}"] for end in ("low", "high"))
    yield f"Click layer 6: {share(six, rate, count)} of the reachable pairs flip"
    yield f"of the reachable pairs flip, 95 % interval {low:.0f} to {high:.0f} %"
    random = share(pick(controls, prompt=0, layer=6, condition="random"), rate, count)
    yield f"with a random donor {random}; over all pairs adjusted p = {six['p_adjusted']:.3f}"
    yield f"At layer 7 it is {share(seven, rate, count)}"
    words = matched[matched["prompt"] == 2]
    assert (words["reachable_count"] == 0).all() and (words["flip_to_target_rate_eligible"] == 0).all()
    yield f"of {words['eligible_count'].iloc[0]} eligible pairs none flips at any layer"
    semantic = table(page, "patching_metrics_semantic.csv")
    asked = {layer: pick(semantic, prompt=2, layer=layer) for layer in (6, 7, 8, 9)}
    at = ", ".join(f"{percent(row[rate])}{' flip' if n == 6 else ''} at layer {n}" for n, row in asked.items())
    yield f"{asked[6][count]} pairs are reachable; {at}"
    last = {n: pick(controls, prompt=0, layer=n, condition="last")[rate] for n in (6, 7, 8, 9, 10, 11)}
    assert last[9] == last[10] == last[11] == 1
    yield ", ".join(f"{percent(last[n])} at layer {n}" for n in (6, 7, 8)) + ", 100 % from layer 9 on"
    noise = pick(controls, prompt=0, layer=1, condition="noise")
    yield f"Noise turns {share(noise, rate, count)} of the reachable pairs to the target at layer 1"
    calm = controls[(controls["prompt"] == 0) & (controls["condition"] == "no-conflict")].set_index("layer")
    changed = calm["flip_from_base_rate"]
    assert changed.loc[-1:5].nunique() == 1
    told = {"rate": float(changed[5]), "n": int(calm["n"][5])}
    yield f"of the no-conflict pairs {share(told, 'rate', 'n')} change their answer up to layer 5"


def of_compare() -> Iterator[str]:
    page = "compare.md"
    cka, summary, found = table(page, "cka.csv"), table(page, "summary.csv"), read(page, "findings.json")
    diagonal = cka[(cka["base_point"] == cka["donor_point"]) & cka["base_point"].str.startswith("resid_post")]
    layers = diagonal[diagonal["representation"] == "time mean"].reset_index(drop=True)
    least, most = int(layers["unbiased"].idxmin()), int(layers["unbiased"].idxmax())
    assert (found["onset"], found["most_divergent"]) == (0, least)
    row = layers.iloc[least]
    yield f"highest at layer {most} ({layers['unbiased'][most]:.3f}), and lowest at layer {least}"
    yield f"lowest at layer {least}: {row['unbiased']:.3f}"
    yield f"95 % interval {row['unbiased_low']:.3f} to {row['unbiased_high']:.3f}"
    yield f"part at layer 0 and are least alike at layer {least}"
    rank = found["rank_correlation"]
    yield f"is {rank['rho']:.2f} over {rank['n']} layers"
    models = summary.set_index("model")
    moved = models["score_change_mean"][[f"layer {n}" for n in range(6)]]
    assert (moved.idxmin(), moved.idxmax()) == ("layer 5", "layer 1")
    yield f"layer 5 by {moved['layer 5']:.2f} nats on average, layer 1 by {moved['layer 1']:.2f}"
    eer = {name: f"{value:.1%}".replace("%", " %") for name, value in models["eer"].items()}
    yield f"moves its score by {models['score_change_mean']['mixed']:.2f} nats"
    yield f"goes from {eer['base']} to {eer['mixed']}. The donor itself has {eer['donor']}"
    yield f"the last three layers gives {eer['layers 3, 4, 5']}, layer 5 alone {eer['layer 5']}"
    probes = table(page, "probe.csv")
    probes = probes[probes["site"] == "projection"]
    accuracy = {
        (row["measured"], row["model"], row["clips"]): f"{row['accuracy']:.3f}" for row in probes.to_dict("records")
    }

    def both(measured: str, model: str) -> tuple[str, str]:
        return accuracy[measured, model, "bonafide"], accuracy[measured, model, "spoof"]

    yield "balanced accuracy of {} (people) and {} (synthesisers)".format(*both("site", "base"))
    yield "off the donor's with {} and {}; chance is 0.200".format(*both("site", "donor"))
    halves = [*both("transplant", "base"), *both("transplant", "donor")]
    yield "of the reporting half: base {} and {}, donor {} and {}".format(*halves)
    yield "layer mix it is {} and {}".format(*both("transplant", "mixed"))
    yield "last three layers it is {} and {}".format(*both("transplant", "layers 3, 4, 5"))
    numbers = re.findall(r"\d+", str(models["interval_method"]["base"]))
    yield "has {} bona fide and {} spoof speakers and {} of each".format(*numbers)
    yield f"with {int(models['n']['base'])} clips"
    yield f"has all {found['probed_clips']} clips"


def of_heads() -> Iterator[str]:
    page = "heads.md"
    points, ablation, config = table(page, "fisher.csv"), table(page, "ablation.csv"), read(page, "heads_config.json")
    heads = points[points["granularity"] == "head"]
    sure = heads[heads["p_adjusted"] < 0.05].groupby("stage").size()
    of = heads.groupby("stage").size()
    yield f"{config['classes']['wind']} held-out clips a class, {sum(config['classes'].values())} in all"
    yield f"of {table(page, 'clips.csv')['group'].nunique()} groups"
    yield f"{sure.sum()} of {len(heads)} heads separate the classes beyond chance"
    yield f"{sure[0]} of {of[0]} in the first stage, {sure[3]} of {of[3]} in the last"
    best = heads.loc[heads["fisher_f"].idxmax()].to_dict()
    limits = f"{best['fisher_f_low']:.2f} to {best['fisher_f_high']:.2f}"
    yield f"`{best['name']}`, already chosen: F = {best['fisher_f']:.2f}, 95 % interval {limits}"
    yield f"probe accuracy {best['probe_accuracy']:.2f} where chance is {1 / len(config['classes']):.2f}"
    without = pick(ablation, layer=best["layer"], head=best["head"])
    assert without["change"] == 0
    yield f"{without['changed']} of {without['n']} answers change"
    yield f"answers change and the accuracy stays at {percent(without['accuracy'])}"
    most = float(ablation["change"].abs().max())
    assert most == pytest.approx(2 / 72) and ablation["change"].max() == -ablation["change"].min()
    yield f"at most {100 * most:.1f} points (two clips)"
    yield f"for {(ablation['changed'] == 0).sum()} heads no answer changes"
    joined = heads.merge(ablation, on=["layer", "head"])
    rho = joined["fisher_f"].corr(-joined["logprob_change"], method="spearman")
    yield f"is {rho:.2f} over {len(joined)} heads"
    stage = pick(points, granularity="stage", stage=3)
    blocks = points[points["granularity"] == "block"]["fisher_f"]
    assert stage["fisher_f"] >= max(blocks)
    yield f"F = {stage['fisher_f']:.2f} ({stage['fisher_f_low']:.2f} to {stage['fisher_f_high']:.2f})"


def of_neurons() -> Iterator[str]:
    page = "neurons.md"
    made, curve = read(page, "neuron_ablation.json")["report"], table(page, "ablation_curve.csv")
    evidence, counts, base = made["evidence"], made["counts"], made["base"]
    metrics = json.loads((ROOT / "assets/demo-shortcut/metrics.json").read_text("utf-8"))
    yield f"{made['width']} pooled features"
    yield f"ranked on {counts['train']['clips']} clips and measured on {counts['id']['clips']} in domain"
    yield f"and {counts['ood']['clips']} out of it"
    k = evidence["k"]
    at = {name: pick(curve, set=name, k=k) for name in ("domain", "task", "random", "matched")}
    heads = {name: percent(row["head_ood"]) for name, row in at.items()}
    yield f"At K = {k}: {made['verdict']}"
    yield f"from {percent(base['head_ood'])} to {heads['domain']}"
    limits = f"{evidence['ood_low']:+.2f} to {evidence['ood_high']:+.2f}"
    yield f"(change {evidence['ood_change']:+.2f}, 95 % interval {limits})"
    yield f"{heads['task']} without the task's, {heads['random']} without random ones"
    yield f"{heads['matched']} without random ones of like weight"
    yield f"In domain it goes from {percent(base['head_id'])} to {percent(at['domain']['head_id'])}"
    yield f"The domain probe drops by {evidence['domain_drop']:.2f}"
    yield f"the task probe changes by {evidence['task_change']:+.3f}"
    yield f"refitted, it is {at['domain']['domain_refit']:.2f} against {base['domain_refit']:.2f}"
    scores = table(page, "neuron_scores.csv").sort_values("domain_rank")["neuron"].tolist()
    planted = metrics["planted_features"]
    assert set(scores[: len(planted)]) == set(planted)
    yield f"The first {len(planted)} are the planted ones"
    answers = table(page, "ablation_answers.csv")
    here = answers[(answers["set"] == "domain") & (answers["k"] == k)]
    right = int(((here["base"] != here["task"]) & (here["answer"] == here["task"])).sum())
    wrong = int(((here["base"] == here["task"]) & (here["answer"] != here["task"])).sum())
    changed = int((here["base"] != here["answer"]).sum())
    yield f"{changed} of {len(here)} answers change, {right} put right, {wrong} put wrong"
    yield from _a_null()


def _a_null() -> Iterator[str]:
    """The demo in which nothing was planted."""
    folder = ROOT / "assets/demo-emotion-wavlm/run-ablate"
    made = json.loads((folder / "neuron_ablation.json").read_text("utf-8"))["report"]
    evidence, answers = made["evidence"], pd.read_csv(folder / "ablation_answers.csv")
    here = answers[(answers["set"] == "domain") & (answers["k"] == evidence["k"])]
    yield f"at K = {evidence['k']} it is {made['verdict']}"
    yield f"drops by {evidence['domain_drop']:.3f}, random sets reach {evidence['random_drop']:.3f}"
    yield f"{int((here['base'] != here['answer']).sum())} of {len(here)} answers change"
    shared = made["overlap"][str(evidence["k"])]
    yield f"{shared['shared']} of the 8 best for the domain are among the 8 best for the task"


def of_signflip() -> Iterator[str]:
    page = "signflip.md"
    made, changes = read(page, "signflip_report.json"), table(page, "proxy_changes.csv")
    yield f'the {made["topk"]} of {made["width"]} neurons that matter most for "{made["target"]}"'
    yield f"in each of {len(made['layers'])} layers"
    measured = made["measured_on"]
    yield f"attributed on {made['attributed_on']['clips']} clips of that class"
    yield f"measured on {measured['clips']} clips of {measured['units']} sentences"
    energy = changes[(changes["proxy"] == "rms") & (changes["flipped"] == changes["measured"])]
    assert energy["by_construction"].all() and (energy["change"] == 0).all()
    out, behind = (pick(changes, flipped=0, measured=at, proxy="centroid") for at in (-1, 1))
    yield f"a change of {100 * out['change']:.1f} %, standard error {100 * out['se']:.1f} %"
    yield f"random neurons {100 * out['random_mean']:.1f} %"
    yield f"it is {100 * behind['change']:.1f} % against {100 * behind['random_mean']:.1f} %"
    last, end = (pick(changes, flipped=0, measured=at, proxy="rms")["change"] for at in (5, -1))
    yield f"gives {100 * last:.1f} % at layer 5 and {100 * end:.1f} % at the output"
    p = changes.loc[~changes["by_construction"], "p_random"]
    assert (p.round(4) == round(1 / 21, 4)).mean() > 0.9 and p.min() > 1 / 22
    effects = table(page, "prediction_effects.csv")
    top, random = (pick(effects, flipped=0, condition=name) for name in ("top", "random"))
    assert (effects[(effects["condition"] == "top") & (effects["flipped"] > 0)]["changed_rate"] == 0).all()
    yield f"changes {round(top['changed_rate'] * top['n'])} of {top['n']} answers"
    yield f"by {top['target_probability_change']:+.3f} ± {top['target_probability_change_se']:.3f}"
    yield f"random neurons change it by {random['target_probability_change']:+.3f}"
    links = table(page, "acoustic_links.csv")
    rho = {name: pick(links, layer=5, proxy=name)["rho"] for name in ("rms", "zcr", "centroid")}
    yield f"rank correlation of {rho['rms']:.2f} with the recording's RMS, zero crossings {rho['zcr']:.2f}"
    yield f"the modulation centroid {rho['centroid']:+.2f} with the spectral centroid"


def of_steering() -> Iterator[str]:
    page = "steering.md"
    config, dose = read(page, "steering_config.json"), table(page, "steering_dose.csv")
    fitted, steered = config["halves"]["fitted_on"], config["halves"]["steered"]
    yield f"on {fitted['clips']} clips of {fitted['units']} sentences"
    yield f"adds them to {steered['clips']} clips of {steered['units']} others"
    first = dose[dose["prompt"] == 0]
    vectors = first[first["condition"] == "vector"]
    assert vectors["label"].nunique() == 5 and vectors["layer"].nunique() == 6
    reached = vectors[vectors["moved_rate"] >= 0.5]["layer"].unique()
    assert set(vectors["layer"]) - set(reached) == {8, 10}
    here = first[(first["label"] == "angry") & (first["layer"] == 2)]
    two, four = (pick(here, condition="vector", alpha=alpha) for alpha in (2, 4))
    yield f"Alpha 2 moves {percent(two['moved_rate'])} of {two['eligible']} clips"
    limits = f"{percent(four['moved_rate_low'])[:-2]} to {percent(four['moved_rate_high'])}"
    yield f"alpha 4 moves {percent(four['moved_rate'])} ({limits}, adjusted p = {four['p_adjusted']:.3f})"
    random = [percent(pick(here, condition="random", alpha=alpha)["moved_rate"]) for alpha in (2, 4)]
    yield f"Random vectors as long move {random[0]} and {random[1]}"
    own, long, other = (pick(here, condition=name) for name in ("shuffled", "shuffled_long", "layer"))
    yield f"Shuffled labels move {percent(own['moved_rate'])} at their own length"
    yield f"Made as long as the vector they move {percent(long['moved_rate'])}"
    yield f"The vector of layer 8, as long, moves {percent(other['moved_rate'])} behind layer 2"
    calm = vectors[vectors["label"] == "neutral"]
    yield f"at most {percent(calm['moved_rate'].max())} of {calm['eligible'].iloc[0]} clips"
    words = pick(dose, prompt=2, condition="vector", label="angry", layer=2)
    before = pick(dose, prompt=2, condition="base")
    yield f"the same vector moves {percent(words['moved_rate'])} of {words['eligible']} clips"
    right = percent(words["accuracy_semantic_label"])
    yield f"of the words {right} are still answered right where it was {percent(before['accuracy_semantic_label'])}"
    told = first[first["condition"] == "prompt"]["moved_rate"]
    assert len(told) == 5 and told.nunique() == 1
    yield f"sounds so moves {percent(told.iloc[0])} for every label"


def of_probes() -> Iterator[str]:
    page = "probes.md"
    scores = table(page, "probes.csv")
    clips = read(page, "probes_config.json")["targets"]["prosody_label"]
    points = len(scores[scores["target"] == "prosody_label"])
    yield f"reads {clips['clips']} clips of {clips['units']} texts at {points} points"

    def of(target: str, place: str, layer: int) -> dict[str, Any]:
        return pick(scores, target=target, place=place, layer=layer)

    mean = scores[(scores["target"] == "prosody_label") & (scores["place"] == "mean")]
    first, chance = of("prosody_label", "mean", -1), percent(mean["chance"].iloc[0])
    yield f"{percent(first['score'])} before layer 0, where chance is {chance}"
    yield f"{100 * mean['score'].min():.0f} to {percent(mean['score'].max())} at every layer"
    voice = scores[(scores["target"] == "prosody_label") & (scores["place"] == "last")]
    emb, early, late = (of("prosody_label", "last", layer) for layer in (-1, 0, 9))
    assert voice["score"].max() == late["score"]
    yield f"At `emb` it is {percent(emb['score'])}"
    yield f"{percent(early['score'])} behind layer 0, {percent(late['score'])} ({100 * late['score_low']:.0f} to"
    yield f"to {percent(late['score_high'])}) behind layer 9, control task {percent(late['control'])}"
    words = [percent(of("semantic_label", "last", layer)["score"]) for layer in (6, 7, 11)]
    yield "{} behind layer 6, {} behind layer 7, {} behind layer 11".format(*words)
    most = scores[(scores["target"] == "semantic_label") & (scores["place"] == "mean")]
    best = most.loc[most["score"].idxmax()]
    yield f"it is {percent(best['score'])} at most, with a control task of {percent(best['control'])}"
    said = [percent(of("speaker", "mean", layer)["score"]) for layer in (0, 11)]
    yield "{} behind layer 0 and {} behind layer 11, chance 25 %".format(*said)
    pitch, level = ([of(name, "mean", layer)["score"] for layer in (0, 11)] for name in ("f0", "level"))
    yield f"R2 {pitch[0]:.2f} behind layer 0 and {pitch[1]:.2f} behind layer 11"
    yield f"the level {level[0]:.2f} and {level[1]:.2f}"


@pytest.mark.parametrize("page", EXPERIMENTS)
def test_the_numbers_of_a_page_are_those_of_the_saved_run(page):
    numbers = {
        "patching.md": of_patching,
        "compare.md": of_compare,
        "heads.md": of_heads,
        "neurons.md": of_neurons,
        "signflip.md": of_signflip,
        "steering.md": of_steering,
        "probes.md": of_probes,
    }
    told, text = list(numbers[page]()), text_of(page)
    assert len(told) > 8
    assert [sentence for sentence in told if sentence not in text] == []


@pytest.mark.parametrize("page", EXPERIMENTS)
def test_the_first_command_of_a_page_has_the_settings_of_the_saved_run(page):
    args = parser().parse_args(shlex.split(commands((ROOT / "docs" / page).read_text("utf-8"))[0]))
    asked = request_of(args)
    saved = type(asked).from_config(read(page, next((ROOT / "assets" / RUNS[page]).glob("*_config.json")).name))
    said = [one.name for one in declared(type(asked)) if getattr(asked, one.name) != one.default]
    assert "model" in said and saved.seed == asked.seed
    assert {name: getattr(saved, name) for name in said} == {name: getattr(asked, name) for name in said}


# ---- container, citation, package ------------------------------------------------------------------------------------


def dockerfile() -> list[list[str]]:
    """The instructions of the Dockerfile as words, comments left out and continued lines joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line.split() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def test_what_the_container_copies_is_there_and_is_let_through_by_the_ignore_file():
    sources = [source.removeprefix("./") for words in dockerfile() if words[0] == "COPY" for source in words[1:-1]]
    assert {"app.py", "pages", "components", "interp_core", "assets", "requirements.txt", ".streamlit"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    rules = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(sources)
    assert rules[rules.index("*") + 1].startswith("!")  # all is left out first, then let in


def test_the_container_starts_the_dashboard_as_a_user_without_rights_and_asks_after_its_health():
    said = dockerfile()
    by_name: dict[str, list[str]] = {words[0]: words[1:] for words in said}
    command = json.loads(" ".join(by_name["CMD"]))
    assert command == ["streamlit", "run", "app.py"]
    order = [words[0] for words in said]
    assert by_name["USER"] == ["patchbay"] and order.index("USER") > max(i for i, w in enumerate(order) if w == "RUN")
    routes = (ROOT / "app.py").read_text("utf-8")
    assert "/api/health" in " ".join(by_name["HEALTHCHECK"]) and 'Route("/api/health"' in routes
    settings = dict(pair.split("=", 1) for words in said if words[0] == "ENV" for pair in words[1:])
    kept = [settings[f"PATCHBAY_{name}"] for name in ("ROOTS", "RUNS", "DATA")]
    assert json.loads(" ".join(by_name["VOLUME"])) == kept == ["/data", "/runs", "/recordings"]
    assert settings["STREAMLIT_SERVER_ADDRESS"] == "0.0.0.0"
    own = tomllib.loads((ROOT / ".streamlit/config.toml").read_text("utf-8"))
    assert own["server"]["address"] == "localhost"  # everywhere but in the container


def test_the_citation_is_of_this_version_and_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = PROJECT["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(cited)  # what version 1.2.0 of the format needs
    assert cited["cff-version"] == "1.2.0" and cited["title"].lower() == project["name"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in project["authors"]]
    assert cited["abstract"] == project["description"]


def test_the_package_takes_what_the_dashboard_is_pinned_to_and_newer_ones_of_a_major_version():
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = {one.name: one for one in (Requirement(line) for line in lines if line and not line.startswith("#"))}
    ranges = {one.name: one for one in map(Requirement, PROJECT["project"]["dependencies"])}
    assert ranges.keys() == pins.keys()
    for name, pin in pins.items():
        (version,) = [bound.version for bound in pin.specifier]
        assert ranges[name].specifier.contains(version), name
        later = f"{int(version.split('.')[0]) + 1}.0"
        assert not ranges[name].specifier.contains(later), name


def test_the_package_has_a_command_that_is_there_and_every_package():
    module, _, name = PROJECT["project"]["scripts"]["patchbay"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    setup = PROJECT["tool"]["setuptools"]
    assert setup["packages"]["find"]["include"] == ["interp_core*", "components*", "pages*"]
    assert (ROOT / "interp_core" / setup["package-data"]["interp_core"][0]).is_file()
    without = {
        path.parent
        for folder in ("interp_core", "components")
        for path in (ROOT / folder).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert without == set()
