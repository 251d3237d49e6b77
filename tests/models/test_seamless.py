"""SeamlessM4T: its languages and tokenizer, a last position that one frame does not fill, and whole models."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.encoders.listener import Listener
from interp_core.models.encoders.seamless import Seamless, seamless_tokenizer
from interp_core.models.load import open_model
from interp_core.models.subject import Subject
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import PatchAt, SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.encoder_words import WORDS, save_seamless_tokenizer
from tests.families.encoders import save_seamless
from tests.families.subjects import all_logits, with_probe
from tests.models.conftest import refused
from tests.models.test_writing import cut
from tests.tiny import tone
from tests.trace.cases import every_layer, everywhere, truncated
from tests.trace.naive import gap

VERSIONS = ("SeamlessM4T", "SeamlessM4Tv2")
ODD = 0.65
"""Seconds: 63 frames of the spectrogram, of which the last is half a position; eight positions become one, and that
one the first of a further such position."""


@pytest.fixture(scope="module", params=VERSIONS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = save_seamless(tmp_path_factory.mktemp("seamless") / "model", version=request.param)
    return open_model(str(folder), device="cpu")


def runs_of(subject: Subject, *clips: tuple[float, int]) -> list[CleanRun]:
    stems = [prompt_clip(subject, tone(*clip), "</s>__eng__", str(clip)) for clip in clips]
    return [clean_runs(subject, [stem], subject.kinds)[0] for stem in stems]


def library(subject: Subject, seconds: float, hertz: int) -> dict[str, Tensor]:
    """What the library's own extractor makes of a clip, its mask included."""
    return dict(subject.extractor(tone(seconds, hertz), sampling_rate=16_000, return_tensors="pt"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("seconds", [0.5, 0.51, 0.52, ODD, 0.81])
def test_answer_and_text_are_the_librarys_from_its_own_masked_frames(
    opened: Subject, part: str, seconds: float
) -> None:
    subject = opened.part(part)
    (run,) = runs_of(subject, (seconds, 300))
    heard = library(subject, seconds, 300)
    frames = int((round(seconds * 16_000) - 400) // 160 + 1)
    assert int(heard["attention_mask"].sum()) == frames // 2
    with torch.inference_mode():
        asked = torch.tensor([subject.ids_of("</s>__eng__")])  # type: ignore[attr-defined]
        assert gap(run.logits, subject.hf(**heard, decoder_input_ids=asked).logits[0, -1]) < 1e-5
        wrote = subject.hf.generate(**heard, tgt_lang="eng", max_new_tokens=8)[0].tolist()
        unmasked = subject.hf(heard["input_features"], decoder_input_ids=asked).logits[0, -1]
    assert wrote[:2] == asked[0].tolist()
    assert generate(subject, [Row(run.prompted)], 8)[0].tokens == cut(wrote[2:], subject.hf)
    assert (gap(run.logits, unmasked) > 1e-3) == (frames % 2 == 1)  # control
    if part == "encoder":
        assert run.prompted.audio == (0, frames // 2) and run.prompted.n_pos == (frames + 1) // 2


def test_clips_whose_last_position_is_masked_are_patched_as_the_library_would(opened: Subject) -> None:
    for part in ("encoder", "decoder"):
        subject = opened.part(part)
        assert isinstance(subject, Listener)
        a, b, even = runs_of(subject, (ODD, 300), (ODD, 700), (0.8, 500))
        labels = all_logits(a.logits)
        for patch in (truncated(a, b), truncated(a, even), truncated(even, a)):
            for kind in subject.kinds:
                if kind != "resid_pre":
                    spec = SiteSpec(kind, layers=tuple(range(subject.n_layers)))
                    fast, reference = (
                        sweep(subject, [patch], labels, spec, method=method).label_logits[0]
                        for method in ("fast", "reference")
                    )
                    assert gap(fast, reference) < 1e-4, (part, kind)
        whole = sweep(subject, [everywhere(a, b)], labels, SiteSpec("resid_post", layers=(0, 1))).label_logits[0]
        assert all(gap(row, b.logits) < 1e-4 for row in whole[: len(subject.exact_layers)])
        both = clean_runs(subject, [a.prompted, b.prompted], subject.kinds)
        assert gap(both[0].logits, a.logits) < 1e-5 and gap(both[1].logits, b.logits) < 1e-5
        spec = every_layer(subject)
        rows = [Row(a.prompted, (PatchAt(truncated(a, b), spec, at),)) for at in spec.layers]
        alone = [generate(subject, [row], 6)[0] for row in rows]
        longer = Row(even.prompted)
        assert generate(subject, [*rows, longer], 6) == [*alone, *generate(subject, [longer], 6)]


def test_only_the_masked_position_stays_the_recipients(opened: Subject) -> None:
    a, b = runs_of(opened, (0.51, 300), (0.51, 700))
    assert opened.padding_stays and not opened.by_construction and opened.default_site == "attn_out"
    last = SiteSpec("resid_post", layers=(opened.n_layers - 1,))
    labels = all_logits(a.logits)
    heard = sweep(opened, [truncated(a, b)], labels, last).label_logits[0]
    assert 1e-3 < gap(heard[0], b.logits) < gap(heard[0], a.logits)


def test_a_probe_reads_the_encoder_of_a_masked_clip_as_the_library_does(opened: Subject) -> None:
    made = with_probe(opened, tone(ODD, 300)).probe
    assert made is not None
    probed = opened.with_probe(made)
    (run,) = clean_runs(probed, [prompt_clip(probed, tone(ODD, 300), "", "a")], probed.kinds)
    with torch.inference_mode():
        heard = opened.hf.speech_encoder(**library(opened, ODD, 300)).last_hidden_state.mean(1)
    assert gap(run.logits, (heard @ made.weight.T + made.bias)[0]) < 1e-5
    names = {name for part in probed.weights_by_part().values() for name in part}
    assert all(name.startswith(("speech_encoder.", "probe.")) for name in names) and len(names) > 20


def test_weights_are_told_apart_by_where_they_act(opened: Subject) -> None:
    heard, wrote = opened.weights_by_part(), opened.part("decoder").weights_by_part()
    first = {part: {name.split(".")[0] for name in weights} for part, weights in heard.items()}
    assert first["stem"] == {"speech_encoder"} == first["layer 0"]
    assert first["readout"] == {"speech_encoder", "text_decoder", "shared", "lm_head"}
    behind = {name.split(".")[1] for name in heard["readout"] if name.startswith("speech_encoder")}
    assert behind == {"encoder", "intermediate_ffn", "adapter", "inner_layer_norm"}
    assert "text_decoder.embed_tokens.weight" in wrote["stem"]
    assert set(wrote["readout"]) == {"lm_head.weight", "text_decoder.layer_norm.weight", "text_decoder.layer_norm.bias"}


@pytest.mark.parametrize("version", VERSIONS)
def test_of_a_whole_model_speech_encoder_and_text_decoder_are_opened(
    version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_seamless(tmp_path / "model", version=version, whole=True)  # type: ignore[arg-type]
    assert json.loads((folder / "config.json").read_text())["architectures"] == [f"{version}Model"]
    subject = open_model(str(folder), device="cpu")
    assert isinstance(subject, Seamless) and "UNEXPECTED" not in caplog.text
    assert not any(name.startswith(("text_encoder", "t2u_model", "vocoder")) for name in subject.hf.state_dict())
    (run,) = runs_of(subject, (0.8, 300))
    whole = getattr(transformers, f"{version}Model").from_pretrained(folder).eval()
    with torch.inference_mode():
        heard = library(subject, 0.8, 300)
        plain = whole(**heard, decoder_input_ids=run.prompted.inputs["decoder_input_ids"]).logits[0, -1]
        wrote = whole.generate(**heard, tgt_lang="eng", generate_speech=False, max_new_tokens=8)[0][0].tolist()
    assert gap(run.logits, plain) < 1e-5
    assert generate(subject, [Row(run.prompted)], 8)[0].tokens == cut(wrote[2:], subject.hf)


def test_one_that_hears_and_speaks_has_the_parts_of_one_that_writes_and_one_that_reads_texts_is_refused(
    tmp_path: Path,
) -> None:
    folder = save_seamless(tmp_path / "model", whole=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["SeamlessM4Tv2ForSpeechToSpeech"]}))
    assert isinstance(open_model(str(folder), device="cpu"), Seamless)
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["SeamlessM4Tv2ForTextToText"]}))
    assert "which cannot be opened: it hears no recording; take a SeamlessM4Tv2ForSpeechToText" in refused(folder)


def test_a_prompt_names_the_language_that_is_written(opened: Subject) -> None:
    assert opened.default_prompts == opened.part("decoder").default_prompts == ("</s>__eng__",)
    sound = tone(0.8, 300)
    texts = {}
    for code in ("eng", "deu", "fra"):
        prompted = prompt_clip(opened, sound, f"</s>__{code}__", "a")
        with torch.inference_mode():
            heard = prompted.inputs["input_features"]
            wrote = opened.hf.generate(heard, tgt_lang=code, max_new_tokens=8)[0].tolist()
        assert generate(opened, [Row(prompted)], 8)[0].tokens == cut(wrote[2:], opened.hf)
        texts[code] = clean_runs(opened, [prompted])[0].logits
    assert gap(texts["eng"], texts["deu"]) > 1e-3  # control: the language is read
    with pytest.raises(InterpError, match="names __xyz__, which the tokenizer of .* it has __deu__, __eng__, __fra__"):
        opened.check_prompt("</s>__xyz__")
    spoken = opened.labels(["happy", "sad"], "</s>__deu__")
    assert opened.tokenizer.convert_ids_to_tokens(list(spoken.ids)) == ["▁happy", "▁sad"]  # type: ignore[attr-defined]


def test_the_tokenizer_is_the_one_that_the_library_makes_by_sentencepiece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = save_seamless_tokenizer(tmp_path)
    own = seamless_tokenizer(str(tmp_path))
    conversion = import_module("transformers.convert_slow_tokenizer")  # whose one function has that name, too
    monkeypatch.setattr(conversion, "requires_backends", lambda *_: None)  # it reads the file alone
    theirs = transformers.SeamlessM4TTokenizer.from_pretrained(tmp_path)
    assert own.get_vocab() == theirs.get_vocab() == ids
    for text in [*WORDS, "happy", " sad", "The  dog", "unheard of", "ü", "</s>__fra__ happy", "</s>__fra__happy"]:
        found = own(text, add_special_tokens=False).input_ids
        assert found == theirs(text, add_special_tokens=False).input_ids
        assert own.decode(found, skip_special_tokens=True) == theirs.decode(found, skip_special_tokens=True)
    assert own.convert_ids_to_tokens(own("</s>__fra__ happy", add_special_tokens=False).input_ids) == [
        *("</s>", "__fra__", "▁happy")
    ]


def test_files_of_a_tokenizer_that_are_missing_or_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = save_seamless(tmp_path / "model")
    added = folder / "added_tokens.json"
    whole = json.loads(added.read_text())
    added.write_text(json.dumps({**whole, "__eng__": whole["__eng__"] + 5}))
    assert "has __eng__, __fra__ at other places than behind the 108 pieces" in refused(folder)
    added.unlink()
    assert "lacks added_tokens.json, which holds the languages; copy the tokenizer files" in refused(folder)
    about = {"added_tokens_decoder": {i: {"content": name} for name, i in whole.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    assert open_model(str(folder), device="cpu").default_prompts == ("</s>__eng__",)  # as newer folders have it
    pieces = folder / "sentencepiece.bpe.model"
    kept = pieces.read_bytes()
    pieces.write_bytes(kept[:-3])
    assert "is no model of sentencepiece; fetch it again" in refused(folder)
    pieces.unlink()
    assert "lacks sentencepiece.bpe.model; copy the tokenizer files" in refused(folder)
    seamless = seamless_tokenizer(str(save_seamless(tmp_path / "other")))
    seamless.save_pretrained(folder)  # tokenizer.json, which is read by itself
    assert open_model(str(folder), device="cpu").labels(["happy", "sad"], "</s>__eng__").ids


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("adaptor_kernel_size", 4, "do not fit its config: speech_encoder.adapter.layers.0"),
        ("feature_projection_input_dim", 48, "makes 16 mel bands, but its config says that the model takes 24"),
        ("vocab_size", 50, "but the model knows 50"),
    ],
)
def test_a_config_of_another_model_is_refused(entry: str, value: int, said: str, tmp_path: Path) -> None:
    folder = save_seamless(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, entry: value}))
    assert said in refused(folder)


def test_a_start_that_the_tokenizer_calls_something_else_is_refused(tmp_path: Path) -> None:
    folder = save_seamless(tmp_path / "model")
    made = folder / "generation_config.json"
    made.write_text(json.dumps({**json.loads(made.read_text()), "decoder_start_token_id": 2}))
    assert "has <s> at token 2, where the model begins with </s>" in refused(folder)
