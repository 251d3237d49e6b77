"""The engine over models that are no audio LLM: their own labels, parts, probes, and what a run says of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT, DONE
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.answers import question
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.experiment import PATCHING, resolve
from interp_core.experiments.patching.plan import fitting
from interp_core.experiments.patching.request import PatchRequest
from interp_core.request import Request
from interp_core.trace.sweep import sweep
from tests.corpus import assert_same_records, write_corpus
from tests.families.encoders import save_wavlm, save_whisper
from tests.tiny import LABELS

BARE, PLAIN, MIXED, WHISPER = "bare", "plain", "mixed", "whisper"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("subjects")
    save_wavlm(root / PLAIN, n_layers=2, labels=LABELS)
    save_wavlm(root / MIXED, n_layers=2, labels=LABELS, weighted=True)
    save_wavlm(root / BARE, n_layers=2, bare=True)
    save_whisper(root / WHISPER)
    write_corpus(root / "corpus", texts=6)
    return root


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.set_num_threads(1)
    return Engine(cache_bytes=1 << 28)


@pytest.fixture
def ask(folder: Path):
    def asked(model: str, **changes) -> PatchRequest:
        manifest = str(folder / "corpus" / "clips.csv")
        usual = {"kinds": "prosody", "max_pairs": 4, "checks": False, "batch_size": 4}
        return PatchRequest(str(folder / model), manifest, device="cpu", **{**usual, **changes})

    return asked


def test_a_classifier_answers_with_its_own_classes_and_is_asked_nothing(engine: Engine, ask) -> None:
    found = resolve(engine, ask(PLAIN))
    assert found.labels == LABELS and found.prompts == ("",)
    given = resolve(engine, ask(PLAIN, labels=("sad", "happy")))
    assert given.labels == ("sad", "happy") and given.prompts == ("",)
    with pytest.raises(InterpError, match=r"'happi' is no class \(did you mean 'happy'\?\).*classes: neutral, happy"):
        PATCHING.prepare(engine, ask(PLAIN, labels=("sad", "happi")))
    with pytest.raises(InterpError, match="is asked no question, so leave the prompt out"):
        PATCHING.prepare(engine, ask(PLAIN, prompts=("Which?",)))


def test_whisper_is_asked_for_a_word_and_has_two_lists_of_blocks(engine: Engine, ask) -> None:
    asked = ask(WHISPER)
    prompt = resolve(engine, asked).prompts[0]
    assert prompt.startswith("<|startoftranscript|>") and prompt.endswith("<|notimestamps|>")
    encoder, decoder = (engine.subject(replace(asked, part=part)) for part in ("", "decoder"))
    assert (encoder.n_layers, decoder.n_layers) == (2, 3) and encoder.hf is decoder.hf and encoder.lock is decoder.lock
    assert "cross_out" in decoder.kinds and "cross_out" not in encoder.kinds and encoder.key != decoder.key
    with pytest.raises(InterpError, match="no part 'middle' .its parts: encoder, decoder"):
        engine.subject(replace(asked, part="middle"))
    with pytest.raises(InterpError, match="one list of blocks, so there is no part 'decoder'"):
        engine.subject(ask(PLAIN, part="decoder"))


def test_what_fits_a_model_is_what_is_run(engine: Engine, ask) -> None:
    assert fitting(engine.subject(ask(PLAIN))) == (("random", "noise", "no-conflict"), ("lens",))
    assert fitting(engine.subject(ask(MIXED))) == (("random", "noise", "no-conflict"), ())
    made = PATCHING.prepare(engine, ask(PLAIN)).plan
    assert {chunk.condition for chunk in made.chunks} == {"matched", "random", "noise", "no-conflict"}
    with pytest.raises(InterpError, match=r"has no positions 'question'; choose audio or all, or a time window"):
        PATCHING.prepare(engine, ask(PLAIN, positions="question"))
    with pytest.raises(InterpError, match="choose audio or all or last.$"):
        PATCHING.prepare(engine, ask(WHISPER, part="decoder", positions="0.1-0.2"))


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (PLAIN, {"site": "resid_post"}, True),
        (PLAIN, {"site": "attn_out"}, False),
        (PLAIN, {"positions": "0.1-0.3"}, False),
        (MIXED, {}, False),
    ],
)
def test_a_run_says_where_the_donors_answer_comes_out_by_construction(
    engine: Engine, ask, model: str, settings: dict, said: bool
) -> None:
    result = run(PATCHING, engine, ask(model, controls=(), flow=(), **settings))
    assert result.config["donors_answer_by_construction"] is said
    reached = result.records[result.records.layer == result.records.layer.max()]
    alike = [b == d for b, d in zip(reached.patched_prediction, reached.donor_prediction, strict=True)]
    whole = [c == 1.0 for c in reached.span_covered]
    if said:  # and it is true: where all positions were covered the donor's answer stands there
        assert all(a for a, w in zip(alike, whole, strict=True) if w) and any(whole)


def test_a_probe_is_the_readout_of_a_checkpoint_without_a_classifier(engine: Engine, ask) -> None:
    with pytest.raises(InterpError, match="has no classifier, so it answers nothing; fit a probe .*--probe COLUMN"):
        run(PATCHING, engine, ask(BARE))
    asked = ask(BARE, probe="prosody_label")
    subject = engine.subject(asked)
    assert subject.answers == ("happy", "neutral", "sad") == resolve(engine, asked).labels
    assert engine.subject(asked).probe is subject.probe  # fitted once
    assert engine.subject(replace(asked, probe="speaker")).probe is not subject.probe
    ready = PATCHING.prepare(engine, asked)
    # Fitted to these clips, of which each voice has its own sound: it names what it was fitted to.
    right = [
        subject.answers[int(ready.store.run(clip, "").logits.argmax())] == clip.label("prosody_label")
        for clip in ready.manifest.clips
    ]
    assert sum(right) > 12 and len(right) == 18  # a constant answer gets 6
    patches = ready.store.run(ready.manifest.clips[0], "")
    assert torch.allclose(patches.logits, subject.probe(subject.heard(patches.prompted.inputs))[0], atol=1e-6), (
        "the reference reads what the probe reads"
    )
    with pytest.raises(InterpError, match=r"a probe of 'mood' needs two classes or more .*columns: prosody_label"):
        engine.subject(ask(BARE, probe="mood"))
    with pytest.raises(InterpError, match="answers in words, so it takes no probe"):
        engine.subject(ask(WHISPER, part="decoder", probe="prosody_label"))


def test_whispers_encoder_takes_a_probe_and_is_asked_nothing_then(engine: Engine, ask) -> None:
    asked = ask(WHISPER, probe="prosody_label", controls=(), flow=())
    subject = engine.subject(asked)
    assert (
        subject.answers == ("happy", "neutral", "sad")
        and not subject.asks
        and set(subject.stages) == {"pooled", "logits"}
    )
    assert not [name for part in subject.weights_by_part().values() for name in part if "decoder" in name]
    ready = PATCHING.prepare(engine, asked)
    assert ready.request.site == "attn_out" and ready.request.prompts == ("",)
    one = ready.store.run(ready.manifest.clips[0], "")
    hf, made = subject.hf, one.prompted.inputs["input_features"]
    with torch.inference_mode():
        wanted = subject.probe(hf.model.encoder(made).last_hidden_state.mean(1))[0]
    assert torch.allclose(one.logits, wanted, atol=1e-6)
    patches = patches_of(ready.plan, ready.store, ready.plan.chunks[0])[0][:2]
    fast, slow = (
        sweep(subject, patches, ready.plan.labels[0], ready.plan.spec, method=m) for m in ("fast", "reference")
    )
    assert torch.allclose(fast.label_logits, slow.label_logits, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "settings", "exact", "nearly"),
    [
        (WHISPER, {"site": "resid_post"}, False, True),
        (WHISPER, {"site": "resid_pre"}, False, True),
        (WHISPER, {"site": "resid_post", "positions": "0.1-0.3"}, False, False),
        (WHISPER, {"site": "resid_post", "part": "decoder"}, False, False),
        (WHISPER, {}, False, False),
        (PLAIN, {"site": "resid_pre"}, True, False),
    ],
)
def test_a_run_says_beforehand_that_the_donors_answer_comes_out_by_construction(
    engine: Engine, ask, model: str, settings: dict, exact: bool, nearly: bool
) -> None:
    labels = {} if model == PLAIN else {"labels": ("happy", "sad")}
    ready = PATCHING.prepare(engine, ask(model, **labels, **settings))
    assert (ready.facts["donors_answer_by_construction"], ready.facts["donors_answer_but_for_padding"]) == (
        exact,
        nearly,
    )
    said = [note for note in ready.notes if "by construction" in note]
    if settings:
        assert bool(said) == (exact or nearly) and all(("nearly" in note) == nearly for note in said)
    else:
        assert ready.request.site == "attn_out" and "nearly by construction" in said[0]


@pytest.mark.parametrize("labels", [("es", "de"), ("Spanish", "german"), ("<|es|>", "DE"), ("castilian", " de ")])
def test_languages_are_asked_for_by_code_or_name_and_read_at_their_tokens(engine: Engine, ask, labels) -> None:
    found = resolve(engine, ask(WHISPER, labels=labels))
    subject = engine.subject(found)
    assert found.prompts == ("<|startoftranscript|>",) == (question(subject, found.model, labels),)
    tokens = subject.tokenizer.convert_ids_to_tokens(list(subject.labels(labels, found.prompts[0]).ids))
    assert tokens == ["<|es|>", "<|de|>"]
    with pytest.raises(InterpError, match="start with the same token"):
        subject.labels(("es", "spanish"), "<|startoftranscript|>")


def test_labels_that_the_model_would_not_say_are_pointed_out_before_the_run(engine: Engine, ask) -> None:
    prompt = "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
    ready = PATCHING.prepare(engine, ask(WHISPER, labels=("happy", "sad"), prompts=(prompt,)))
    store, labels = ready.store, ready.plan.labels[0]
    some = [pair.recipient for pair in ready.plan.pairs.pairs[:3]]
    mass = sum(float(labels.read(store.run(clip, prompt).logits[None])[1].exp()) for clip in some) / len(some)
    assert mass < 0.5 and [n for n in ready.notes if n.startswith(f"only {mass:.2g} of the probability is on")]
    assert not [n for n in PATCHING.prepare(engine, ask(PLAIN)).notes if "of the probability" in n]


def test_a_probe_of_a_split_is_fitted_to_its_training_clips(engine: Engine, folder: Path, tmp_path: Path) -> None:
    lines = (folder / "corpus" / "clips.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    table = [lines[0] + ",split"]
    table += [",".join([r[0], str(folder / "corpus" / r[1]), *r[2:], "train" if r[2] < "t3" else "test"]) for r in rows]
    (tmp_path / "clips.csv").write_text("\n".join(table) + "\n")
    asked = PatchRequest(str(folder / BARE), str(tmp_path / "clips.csv"), device="cpu", probe="prosody_label")
    report = engine.subject(asked).probe.report
    assert report["clips"] == 9 and report["classes"] == {"happy": 3, "neutral": 3, "sad": 3}


def test_a_run_over_a_probe_is_repeated_by_its_config(engine: Engine, ask) -> None:
    asked = ask(BARE, probe="prosody_label", controls=(), site="attn_out")
    result = run(PATCHING, engine, asked)
    config = json.loads(json.dumps(result.config))
    assert config["model"]["probe"]["column"] == "prosody_label" and config["settings"]["probe"] == "prosody_label"
    assert_same_records(run(PATCHING, engine, PatchRequest.from_config(config)).records, result.records)


def test_an_empty_part_or_probe_leaves_the_name_of_a_request_as_it_was(ask) -> None:
    asked = ask(PLAIN)
    assert asked.key == replace(asked, part="", probe="").key != replace(asked, probe="speaker").key
    assert issubclass(PatchRequest, Request) and asked.seed == 42


def test_the_command_line_takes_parts_and_probes_and_chooses_a_site(folder: Path, tmp_path: Path, capsys) -> None:
    clips = f"--manifest={folder / 'corpus' / 'clips.csv'}"
    small = ["--kinds=prosody", "--max-pairs=3", "--controls=none", "--flow=none", "--device=cpu", "--no-checks"]
    out = tmp_path / "run"
    assert main(["patch", f"--model={folder / BARE}", "--probe=prosody_label", clips, f"--out={out}", *small]) == DONE
    said = capsys.readouterr().err
    assert "patching attn_out: at resid_post the donor's answer would come out by construction" in said
    config = json.loads((out / "patching_config.json").read_text())
    assert config["settings"]["site"] == "attn_out" and config["settings"]["prompts"] == [""]
    assert main(["patch", f"--model={folder / MIXED}", clips, f"--out={tmp_path / 'mixed'}", *small]) == DONE
    assert json.loads((tmp_path / "mixed" / "patching_config.json").read_text())["settings"]["site"] == "resid_post"
    decoder = [f"--model={folder / WHISPER}", "--part=decoder", "--site=cross_out", clips, "--device=cpu"]
    assert main(["check", *decoder, "--kinds=prosody"]) == DONE
    said = capsys.readouterr()
    assert "4 positions, tokens of the prompt, no audio, at 0-3" in said.out
    assert "of the probability is on the labels" in said.err, "what a run would say beforehand"
    assert main(["check", f"--model={folder / PLAIN}", "--part=decoder", clips, "--kinds=prosody"]) == BAD_INPUT


def test_the_sweep_of_a_probe_agrees_with_the_reference(engine: Engine, ask) -> None:
    ready = PATCHING.prepare(engine, ask(BARE, probe="speaker", kinds="same=text_id,differ=speaker"))
    patches = patches_of(ready.plan, ready.store, ready.plan.chunks[0])[0]
    fast, slow = (
        sweep(ready.store.subject, patches, ready.plan.labels[0], ready.plan.spec, method=m).label_logits
        for m in ("fast", "reference")
    )
    assert (fast - slow).abs().max() < 1e-4 * max(1.0, float(slow.abs().max()))
