"""What an encoder answers: classes, words, languages, texts; and what cannot be asked of it, said in one sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoFeatureExtractor, AutoTokenizer

from interp_core.errors import InterpError
from interp_core.models.load import open_model
from interp_core.models.probe import Probe
from interp_core.sites import STAGES, Site
from interp_core.trace.clean import clean_runs, logit_lens, prompt_clip
from interp_core.trace.hooks import captured, edited
from interp_core.trace.patch import SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.encoder_routes import answer
from tests.families.encoders import EMOTIONS, SOUNDS, save_clap_audio, save_wav2vec2, save_wavlm, save_whisper
from tests.families.subjects import CASES, MSCLAP, PROBE_CLASSES, Opened, subject_of, tone
from tests.models.conftest import Open
from tests.models.msclap_plain import random_clap, save_clap
from tests.trace.cases import everywhere
from tests.trace.naive import gap

START = "<|startoftranscript|>"


def test_a_classifiers_labels_are_its_classes_and_a_wrong_one_gets_the_nearest(one: Opened) -> None:
    if one.case.reads in ("words", "texts"):
        assert one.subject.answers == ()
        return
    classes = {
        "ast": SOUNDS,
        "spoof": ("bonafide", "spoof"),
        **dict.fromkeys(("detector", "aasist"), ("spoof", "bonafide")),
        **({"detector": ("bonafide", "spoof")} if "mhfa" in one.case.name or "wavlm" in one.case.name else {}),
        "resnet": ("LABEL_0", "LABEL_1"),
    }.get(one.case.family, EMOTIONS)
    classes = PROBE_CLASSES if one.case.reads == "probe" else classes
    assert one.subject.answers == classes
    found = one.subject.labels(list(classes[::-1][:2]), "")
    assert found.ids == (len(classes) - 1, len(classes) - 2)
    logits, mass = found.read(one.runs["short"].logits[None])
    assert torch.equal(logits[0], one.runs["short"].logits[list(found.ids)])
    by_hand = one.runs["short"].logits.softmax(-1)[list(found.ids)].sum().log()
    assert gap(mass[0], by_hand) < 1e-5
    near = "x" + classes[0][1:]
    with pytest.raises(InterpError, match=f"'{near}' is no class \\(did you mean '{classes[0]}'\\?\\)"):
        one.subject.labels([near, classes[1]], "")
    with pytest.raises(InterpError, match="is given twice"):
        one.subject.labels([classes[0], classes[0]], "")


def test_bona_fide_is_the_first_logit_of_the_thesis_code_and_the_second_of_the_official_baselines(
    open_once: Open,
) -> None:
    subject = open_once("spoof-wavlm-erm").subject
    assert subject.labels(["bonafide", "spoof"], "").ids == (0, 1)
    assert replace(subject, bonafide_index=1).labels(["bonafide", "spoof"], "").ids == (1, 0)


def test_default_prompts_may_be_asked_and_others_are_refused_in_words(one: Opened) -> None:
    for prompt in one.subject.default_prompts:
        one.subject.check_prompt(prompt)
    if one.case.family in ("moonshine", "streaming"):
        wrong = {"Which emotion?": "has to start with <s>", "<s><s>": "once", "happy<s>": "start with"}
    elif one.case.family in ("speech2text", "seamless", "seamless2", "speecht5"):
        wrong = {"Which emotion?": "has to start with </s>", "</s></s>": "once", "happy</s>": "start with"}
    elif one.case.family in ("canary", "cohere"):
        start = one.subject.start  # type: ignore[attr-defined]
        wrong = {f"<|en|>{start}": "has to start with", f"{start}<|xx|>": r"names <\|xx\|>, which the tokenizer of"}
        wrong |= {f"{one.prompt}{one.prompt}": "once"}
    elif one.case.reads == "words":
        wrong = {"Which emotion?": "start with", f"{START}{START}": "once", f"<|en|>{START}": "start with"}
    elif one.case.reads == "texts":
        wrong = {"a sound": "has to hold {} once", "{} and {}": "has to hold {} once"}
    else:
        wrong = {"Which emotion is it?": "is asked no question, so leave the prompt out"}
    for prompt, said in wrong.items():
        with pytest.raises(InterpError, match=said):
            one.subject.check_prompt(prompt)
    assert one.subject.asks == (one.case.reads in ("words", "texts"))


@pytest.mark.parametrize("name", ["whisper-encoder", "whisper-decoder"])
def test_whispers_labels_are_words_with_their_space_and_languages_behind_a_bare_start(
    name: str, open_once: Open
) -> None:
    one = open_once(name)
    words = AutoTokenizer.from_pretrained(one.path)
    spoken = one.subject.labels(["happy", "sad"], one.prompt)
    assert words.convert_ids_to_tokens(list(spoken.ids)) == ["Ġhappy", "Ġsad"]
    languages = one.subject.labels(["en", "de"], START)
    assert words.convert_ids_to_tokens(list(languages.ids)) == ["<|en|>", "<|de|>"]
    either = one.subject.labels(["happy", "en"], START)
    assert words.convert_ids_to_tokens(list(either.ids)) == ["Ġhappy", "<|en|>"]
    with pytest.raises(InterpError, match=r"label 'sirens' is 2 tokens \('Ġsiren' \+ 's'\)"):
        one.subject.labels(["sirens", "happy"], one.prompt)
    first = one.subject.labels(["sirens", "happy"], one.prompt, several_tokens="first")
    assert words.convert_ids_to_tokens(list(first.ids)) == ["Ġsiren", "Ġhappy"]
    with pytest.raises(InterpError, match="start with <|startoftranscript|>"):
        one.subject.labels(["happy", "sad"], "What?")
    # The logits are those of the next token: the library's own generation picks the largest.
    run = one.runs["long"]
    made = one.subject.hf.generate(
        run.prompted.inputs["input_features"],
        decoder_input_ids=run.prompted.inputs["decoder_input_ids"],
        max_new_tokens=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    assert made[0, -1] == run.logits.argmax()


@pytest.mark.parametrize("name", ["moonshine-encoder", "moonshine-decoder"])
def test_moonshines_labels_are_the_first_words_of_a_text_and_its_logits_the_next_token(
    name: str, open_once: Open
) -> None:
    one = open_once(name)
    words = AutoTokenizer.from_pretrained(one.path)
    assert one.prompt == "<s>" and one.subject.prompts_for(["en", "de"]) == ("<s>",)
    spoken = one.subject.labels(["happy", "sad"], one.prompt)
    assert words.convert_ids_to_tokens(list(spoken.ids)) == ["▁happy", "▁sad"]
    assert words.decode(list(spoken.ids)) == "happy sad"
    behind = one.subject.labels(["happy", "sad"], "<s>The dog")
    assert behind.ids == spoken.ids, "a word in the middle of a text holds its space too"
    run = one.runs["long"]
    made = one.subject.hf.generate(run.prompted.inputs["input_values"], max_new_tokens=1)
    assert made[0, -1] == run.logits.argmax()


def test_an_english_only_whisper_is_asked_without_language_and_task(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "is_multilingual": False}))
    assert open_model(str(folder), device="cpu").default_prompts == (f"{START}<|notimestamps|>",)


def test_languages_that_a_whisper_can_only_read_as_words_are_said(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path / "model")
    whole = open_model(str(folder), device="cpu")
    asked = whole.default_prompts[0]
    assert whole.label_notes(["en", "German"], START) == () == whole.label_notes(["happy", "fr"], asked)
    (note,) = whole.label_notes(["en", "Spanish", "fr"], asked)
    assert "not as languages: en, Spanish, fr, because its tokenizer has no language token for fr" in note
    assert whole.prompts_for(["en", "Spanish", "fr"]) == (asked,)
    (note,) = whole.label_notes(["en", "Spanish", "fr"], START)
    assert "not as languages: fr, because" in note
    with pytest.raises(InterpError, match=r"label 'fr' is 3 tokens .*; there are labels .* no language token for fr"):
        whole.labels(["en", "fr"], START)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "is_multilingual": False}))
    (note,) = open_model(str(folder), device="cpu").label_notes(["en", "de"], asked)
    assert "not as languages: en, de, because it is made for English alone" in note


def test_the_two_parts_of_whisper_are_one_model_and_no_third_exists(open_once: Open) -> None:
    subject = open_once("whisper-encoder").subject
    decoder = subject.part("decoder")
    assert subject.parts == ("encoder", "decoder") and subject.part("") is subject is subject.part("encoder")
    assert decoder.part("encoder").key == subject.key != decoder.key
    assert decoder.hf is subject.hf and decoder.lock is subject.lock
    assert (subject.n_layers, decoder.n_layers) == (2, 3)
    with pytest.raises(InterpError, match="no part 'middle' .its parts: encoder, decoder"):
        subject.part("middle")
    with pytest.raises(InterpError, match="one list of blocks"):
        open_once("wavlm-base").subject.part("encoder")


@pytest.mark.parametrize("name", ["clap", "clap-uneven", "clap-fused"])
def test_clap_labels_are_texts_and_their_logits_the_librarys_logits_per_audio(name: str, open_once: Open) -> None:
    one = open_once(name)
    hf = transformers.ClapModel.from_pretrained(one.path).eval()
    found = one.subject.labels(list(SOUNDS), one.prompt)
    texts = [f"This is a sound of {sound}." for sound in SOUNDS]
    assert [row["text"] for row in found.report["labels"]] == texts
    for clip in ("short", "long"):
        made = AutoFeatureExtractor.from_pretrained(one.path)(
            one.samples[clip], sampling_rate=48_000, return_tensors="pt"
        )
        made |= AutoTokenizer.from_pretrained(one.path)(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            expected = hf(**made).logits_per_audio
        logits, mass = found.read(one.runs[clip].logits[None])
        assert gap(logits, expected) < 1e-5 and mass.tolist() == [0.0]
    other = one.subject.labels(list(SOUNDS), "{} in the rain")
    assert gap(other.read(one.runs["short"].logits[None])[0], found.read(one.runs["short"].logits[None])[0]) > 1e-3
    for wrong in (["dog"], ["dog", "dog"]):
        with pytest.raises(InterpError, match="give two or more, each once"):
            one.subject.labels(wrong, one.prompt)


def test_msclap_labels_are_scaled_cosines_with_texts_through_gpt2(open_once: Open) -> None:
    one = open_once("msclap")
    plain, words = random_clap("gpt2", **MSCLAP), AutoTokenizer.from_pretrained(one.path.parent / "tokenizer")
    found = one.subject.labels(["dog", "rain"], one.prompt)
    with torch.inference_mode():
        rows = []
        for sound in ("dog", "rain"):
            ids = torch.tensor([words(f"This is a sound of {sound}. <|endoftext|>")["input_ids"]])
            rows.append(plain.caption_encoder.projection(plain.caption_encoder.base(ids).last_hidden_state[:, -1])[0])
        heard = plain.audio_encoder.projection(plain.htsat(one.stems["long"].inputs["input_features"])[0])
        cosines = torch.nn.functional.cosine_similarity(heard, torch.stack(rows), dim=-1)
        logits, _ = found.read(one.runs["long"].logits[None])
    assert gap(logits[0], cosines * torch.tensor(1.5).exp()) < 1e-5


def test_a_sweep_against_texts_reads_the_cosines_of_each_patched_embedding(open_once: Open) -> None:
    one = open_once("clap-uneven")
    texts = one.subject.labels(["dog", "rain", "siren"], one.prompt)
    patches = [everywhere(one.runs["short"], one.runs["long"])]
    spec = SiteSpec("attn_out", layers=(0, 2, 4))
    whole = sweep(one.subject, patches, one.labels, spec).label_logits[0]
    for method in ("fast", "reference"):
        found = sweep(one.subject, patches, texts, spec, method=method)  # type: ignore[arg-type]
        assert gap(found.label_logits[0], texts.scale * whole @ texts.texts.T) < 1e-5
        assert not found.log_mass.any()


@pytest.mark.parametrize("name", ["wav2vec2-base", "hubert-large", "whisper-classifier", "ast"])
@torch.inference_mode()
def test_the_lens_reads_every_layer_through_norm_and_classifier(name: str, open_once: Open) -> None:
    one = open_once(name)
    hf, run = one.subject.hf, one.runs["long"]
    lens = logit_lens(one.subject, run)
    assert gap(lens[-1], run.logits) < 1e-5 and len(lens) == one.subject.n_layers + 1
    norm = {"hubert-large": "hubert.encoder.layer_norm", "whisper-classifier": "encoder.layer_norm"}
    norm |= {"ast": "audio_spectrogram_transformer.layernorm"}
    for row, state in zip(lens, run.resid, strict=True):
        state = hf.get_submodule(norm[name])(state) if name in norm else state
        if name == "ast":
            expected = hf.classifier((state[0] + state[1]) / 2)
        else:
            expected = hf.classifier(hf.projector(state).mean(0))
        assert gap(row, expected) < 1e-5


@pytest.mark.parametrize(
    "name, why",
    [
        ("wavlm-base-weighted", "mixes all layers"),
        ("spoof-wav2vec2-erm", "mixes all layers"),
        ("clap", "differ in width"),
        ("resnet", "differ in width"),
        ("aasist", "differ in width"),
        ("detector-sls", "mixes all layers"),
    ],
)
def test_the_lens_is_refused_where_a_layer_cannot_stand_for_the_last(name: str, why: str, open_once: Open) -> None:
    one = open_once(name)
    with pytest.raises(InterpError, match=f"the logit lens does not apply to .*{why}"):
        logit_lens(one.subject, one.runs["short"])


# ---- behind the blocks -----------------------------------------------------------------------------------------------


def test_sites_behind_the_blocks_show_what_the_head_reads_and_an_edit_there_reaches_the_answer(one: Opened) -> None:
    inputs, subject = one.stems["short"].inputs, one.subject
    sites = {kind: Site(kind) for kind in STAGES if kind in subject.stages}
    assert list(sites) == list(subject.stages)
    assert ("logits" in sites) == (one.case.reads in ("classes", "probe", "spoof", "detector", "pictures"))
    with torch.inference_mode(), captured(subject, sites.values()) as store:
        clean = subject.forward(inputs)
    assert torch.equal(clean[0], one.runs["short"].logits)
    if "logits" in sites:
        assert torch.equal(store[sites["logits"]][0, 0].float(), clean[0])
    for site in sites.values():
        assert store[site].shape[0] == 1
        with torch.inference_mode(), edited(subject, {site: lambda value: value + value.abs().mean() * value.sign()}):
            assert (subject.forward(inputs) - clean).abs().max() > 1e-4, site
    for kind in set(STAGES) - set(sites):
        with pytest.raises(InterpError, match=f"has no {kind}"):
            subject.locate(Site(kind))
    if one.case.reads == "probe":
        assert not subject.probe._forward_hooks and not subject.probe._forward_pre_hooks  # type: ignore[attr-defined]


# ---- refusals --------------------------------------------------------------------------------------------------------

BARE = [case.name for case in CASES.values() if case.reads == "probe"]


@pytest.mark.parametrize("name", BARE)
def test_a_checkpoint_that_answers_nothing_says_that_a_probe_can(name: str, open_once: Open) -> None:
    one = open_once(name)
    subject = subject_of(one.case, one.path)
    said = "no text tower to compare with" if name.startswith("clap") else "has no classifier"
    for attempt in (
        lambda: subject.forward(one.stems["short"].inputs),
        lambda: subject.labels(["happy", "sad"], ""),
        lambda: subject.readout(one.runs["short"].resid[-1][None], [one.stems["short"]]),
    ):
        with pytest.raises(InterpError, match=rf"{said}.*--probe COLUMN") as refused:
            attempt()
        assert str(refused.value).count(".") == 1 or "/model" in str(refused.value)
    assert subject.answers == () and one.subject.answers == PROBE_CLASSES


@pytest.mark.parametrize(
    "name",
    [
        *("wavlm-large-weighted", "whisper-classifier", "ast", "clap", "spoof-wavlm-erm", "resnet"),
        *("detector-ssl-aasist", "detector-sls", "detector-hubert", "detector-mhfa-wav2vec2", "aasist"),
    ],
)
def test_a_probe_takes_the_place_of_a_classifier_that_is_there(name: str, open_once: Open) -> None:
    """Its features are the mean over positions behind the final norm, from raw inputs and from the last block."""
    one = open_once(name)
    subject, inputs = one.subject, one.stems["short"].inputs
    with torch.inference_mode():
        width = subject.heard(inputs).shape[1]
        made = torch.Generator().manual_seed(2)
        probe = Probe(PROBE_CLASSES, torch.randn(3, width, generator=made), torch.zeros(3), {})
        probed = replace(subject, probe=probe)
        logits = probed.forward(inputs)
        again = probed.readout(one.runs["short"].resid[-1][None], [one.stems["short"]])
    assert logits.shape == (1, 3) and gap(logits, again) < 1e-5
    assert probed.answers == PROBE_CLASSES and probed.layer_shares() is None and probed.default_prompts == ("",)
    assert probed.key != subject.key and gap(answer(one, inputs), one.runs["short"].logits[None]) < 1e-6


def test_a_model_trained_to_write_letters_opens_as_its_encoder(tmp_path: Path) -> None:
    folder = save_wav2vec2(tmp_path / "bare", bare=True)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.vocab_size = 12
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForCTC(config)
    model.save_pretrained(folder)
    subject = open_model(str(folder), device="cpu")
    assert type(subject.hf).__name__ == "Wav2Vec2Model" and subject.answers == ()
    for name, weight in subject.hf.state_dict().items():
        assert torch.equal(weight, model.wav2vec2.state_dict()[name]), name
    with pytest.raises(InterpError, match="has no classifier.*--probe COLUMN"):
        subject.labels(["happy", "sad"], "")


@pytest.mark.parametrize("head", ["ForXVector", "ForAudioFrameClassification"])
def test_a_model_of_speakers_opens_as_its_encoder_without_the_mix_of_layers_that_its_head_reads(
    head: str, tmp_path: Path
) -> None:
    folder = save_wavlm(tmp_path / "model", bare=True)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.update({"use_weighted_layer_sum": True, "tdnn_dim": [8], "tdnn_kernel": [2], "tdnn_dilation": [1]})
    getattr(transformers, f"WavLM{head}")(config).save_pretrained(folder)
    subject = open_model(str(folder), device="cpu")
    assert subject.layer_shares() is None and subject.answers == () and subject.lens_refusal() is None
    assert subject.n_layers == 3


@pytest.mark.parametrize("stable", [True, False])
def test_a_probe_reads_behind_an_adapter_where_the_encoder_has_one(stable: bool, tmp_path: Path) -> None:
    folder = save_wav2vec2(tmp_path / "model", bare=True, stable=stable, add_adapter=True, num_adapter_layers=1)
    probe = Probe(PROBE_CLASSES, torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(3), {})
    subject = replace(open_model(str(folder), device="cpu"), probe=probe)
    stem = prompt_clip(subject, tone(0.5, 300, 16_000), "", "a")
    run = clean_runs(subject, [stem])[0]
    with torch.inference_mode():
        heard = subject.hf(**stem.inputs).last_hidden_state
        assert heard.shape[1] == len(run.resid[-1]) // 2
        assert subject.normed(run.resid[-1][None]).shape[1] == len(run.resid[-1])  # signflip reads it frame by frame
        assert gap(subject.readout(run.resid[-1][None], [stem])[0], probe(heard.mean(1))[0]) < 1e-6
    assert any(name.startswith("adapter.") for name in subject.weights_by_part()["readout"])


@pytest.mark.parametrize("n_samples", [8000, 8160, 8199, 8320])
def test_a_position_that_two_frames_do_not_fill_is_left_out_as_the_library_masks_it(
    n_samples: int, open_once: Open
) -> None:
    one = open_once("w2vbert")
    samples = tone(0.6, 300, 16_000)[:n_samples]
    frames = (n_samples - 400) // 160 + 1
    stem = prompt_clip(one.subject, samples, "", "a")
    assert stem.n_pos == frames // 2
    masked = dict(one.subject.extractor(samples, sampling_rate=16_000, return_tensors="pt"))
    with torch.inference_mode():
        assert gap(one.subject.forward(stem.inputs), one.subject.hf(**masked).logits) < 1e-5
        unmasked = one.subject.hf(input_features=masked["input_features"]).logits
    assert (gap(one.subject.forward(stem.inputs), unmasked) > 1e-3) == (frames % 2 == 1)


def test_a_clip_of_less_than_a_position_is_named_and_one_of_just_one_is_heard(open_once: Open) -> None:
    for name, shortest in (("w2vbert", 560), ("data2vec", 400), ("conformer-relative", 400)):
        subject = open_once(name).subject
        assert subject.shortest == shortest
        stem = prompt_clip(subject, tone(0.5, 300, 16_000)[:shortest], "", "a")
        assert stem.n_pos == 1 and torch.isfinite(clean_runs(subject, [stem])[0].logits).all()
        with pytest.raises(InterpError, match="clip 'b' is too short"):
            prompt_clip(subject, tone(0.5, 300, 16_000)[: shortest - 1], "", "b")


@pytest.mark.parametrize("prefix", ["clap.", "module.clap."])
def test_the_captioners_weight_file_opens_too(prefix: str, tmp_path: Path) -> None:
    file = save_clap(tmp_path / "clapcap_weights_2023.pth", random_clap(None, **MSCLAP), prefix)
    subject = open_model(str(file), device="cpu")
    assert subject.n_layers == 4
    with pytest.raises(InterpError, match=r"--probe COLUMN"):
        subject.labels(["dog", "rain"], "This is a sound of {}.")


def test_a_head_of_a_clap_is_as_wide_as_its_stage_says(tmp_path: Path) -> None:
    subject = open_model(str(save_clap_audio(tmp_path / "model", heads=(1, 2, 4, 4))), device="cpu")
    with pytest.raises(InterpError, match=r"heads of widths \[8, 16\]; ask for that of a layer"):
        _ = subject.d_head
    for layer in range(subject.n_layers):
        projection = subject.locate(Site("head_out", layer)).module
        assert subject.d_head_at(layer) == projection.in_features // subject.heads_at(layer), layer
