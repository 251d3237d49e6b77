"""Speech2Text: its tokenizer without the package sentencepiece, its frames, and translations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank
from transformers.utils import sentencepiece_model_pb2_new

from interp_core.errors import InterpError
from interp_core.models.encoders.listener import Listener
from interp_core.models.encoders.pieces import read_pieces
from interp_core.models.encoders.speech2text import Speech2Text, speech2text_tokenizer
from interp_core.models.load import open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from tests.families.encoder_words import WORDS, save_speech2text_tokenizer
from tests.families.encoders import save_speech2text
from tests.models.conftest import Open, refused
from tests.tiny import tone
from tests.trace.naive import gap

TEXTS = [*WORDS, "happy", " sad", "The  dog", "a siren barks!", "happysad", "unheard of", "Happy", "ü"]


def best_pieces(text: str, scores: dict[str, float]) -> list[str]:
    """The cut into pieces with the largest sum of scores, character by character."""
    text = "▁" + " ".join(text.lower().split()).replace(" ", "▁")
    unknown = min(scores.values()) - 10
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for stop in range(1, len(text) + 1):
        ways = []
        for start in range(stop):
            piece = text[start:stop]
            score = scores.get(piece, unknown if stop - start == 1 else None)
            if score is not None:
                ways.append((best[start][0] + score, [*best[start][1], piece]))
        best.append(max(ways))
    return best[-1][1]


def test_the_pieces_of_a_text_are_those_with_the_best_scores(tmp_path: Path) -> None:
    ids = save_speech2text_tokenizer(tmp_path)
    words, pieces = speech2text_tokenizer(str(tmp_path)), read_pieces(tmp_path / "sentencepiece.bpe.model")
    proto = sentencepiece_model_pb2_new.ModelProto()
    proto.ParseFromString((tmp_path / "sentencepiece.bpe.model").read_bytes())
    assert pieces.scores == {one.piece: one.score for one in proto.pieces} and pieces.kind == 1 and not pieces.table
    scores = {one.piece: one.score for one in proto.pieces if one.type == 1}
    for text in TEXTS:
        cut = best_pieces(text, scores)
        found = words(text, add_special_tokens=False).input_ids
        assert found == [ids.get(piece, ids["<unk>"]) for piece in cut], text
        if all(piece in ids for piece in cut):
            assert words.decode(found) == " ".join(text.lower().split())
    assert len(best_pieces("unheard of", scores)) > 2  # control: not every word is a piece
    started = words("</s><lang:de>happy", add_special_tokens=False).input_ids
    assert words.convert_ids_to_tokens(started) == ["</s>", "<lang:de>", "▁happy"]
    assert words.decode(started, skip_special_tokens=True) == "happy"


def change(folder: Path, **settings: object) -> None:
    proto = sentencepiece_model_pb2_new.ModelProto()
    path = folder / "sentencepiece.bpe.model"
    proto.ParseFromString(path.read_bytes())
    for name, value in settings.items():
        setattr(proto.trainer_spec, name, value)
    path.write_bytes(proto.SerializeToString())


def test_files_of_a_tokenizer_that_are_missing_broken_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = save_speech2text(tmp_path / "model")
    vocab, path = folder / "vocab.json", folder / "sentencepiece.bpe.model"
    ids, whole = json.loads(vocab.read_text()), path.read_bytes()
    change(folder, model_type=4)  # characters: found by scores as well
    assert open_model(str(folder), device="cpu").default_prompts == ("</s>",)
    change(folder, model_type=2)
    assert "sentencepiece.bpe.model in " in refused(folder) and "joins pieces by rules" in refused(folder)
    for broken in (whole[:-3], b"version https://", b"\xff" * 40):
        path.write_bytes(broken)
        assert "is no model of sentencepiece; fetch it again" in refused(folder)
    path.write_bytes(whole)
    vocab.write_text(json.dumps({**ids, "▁more": len(ids) + 5}))
    assert "is no list of pieces without a gap" in refused(folder)
    vocab.unlink()
    assert "lacks vocab.json; copy the tokenizer files" in refused(folder)


def test_frames_are_kaldis_written_out(open_once: Open) -> None:
    one = open_once("speech2text-encoder")
    samples = one.samples["short"]
    made = one.subject.model_inputs(samples, one.prompt)["input_features"][0].numpy()
    frames = np.lib.stride_tricks.sliding_window_view(2.0**15 * samples.astype(np.float64), 400)[::160]
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    how = {"norm": None, "mel_scale": "kaldi", "triangularize_in_mel_space": True}
    log = np.log(np.maximum(power @ mel_filter_bank(257, 16, 20.0, 8000.0, 16_000, **how), np.finfo(np.float32).eps))
    expected = (log - log.mean(0)) / log.std(0)
    assert made.shape == (48, 16) and np.abs(made - expected).max() < 1e-3


def test_a_clip_of_one_frame_which_has_no_spread_is_refused_and_one_of_two_is_heard(open_once: Open) -> None:
    subject = open_once("speech2text-encoder").subject
    sound = tone(0.5, 300)
    with pytest.raises(InterpError, match="clip 'a' is too short"):
        prompt_clip(subject, sound[:559], "</s>", "a")
    (run,) = clean_runs(subject, [prompt_clip(subject, sound[:560], "</s>", "a")])
    assert run.prompted.n_pos == 1 and run.logits.isfinite().all()


def test_a_translator_is_asked_for_its_language_and_writes_as_the_library_lets_it(tmp_path: Path) -> None:
    folder = save_speech2text(tmp_path / "model", language="de")
    subject = open_model(str(folder), device="cpu")
    assert isinstance(subject, Speech2Text) and isinstance(subject.part("decoder"), Listener)
    assert subject.default_prompts == subject.part("decoder").default_prompts == ("</s><lang:de>",)
    (run,) = clean_runs(subject, [prompt_clip(subject, tone(0.8, 300), "</s><lang:de>", "a")])
    with torch.inference_mode():
        wrote = subject.hf.generate(run.prompted.inputs["input_features"], max_new_tokens=7)[0].tolist()
        plain = subject.hf(**run.prompted.inputs).logits[0, -1]
    assert wrote[:2] == subject.tokenizer("</s><lang:de>", add_special_tokens=False).input_ids
    assert gap(run.logits, plain) < 1e-5 and int(run.logits.argmax()) == wrote[2]
    (text,) = generate(subject, [Row(run.prompted)], 6)
    assert list(text.tokens) == wrote[2 : 2 + len(text.tokens)]
    other = prompt_clip(subject, tone(0.8, 300), "</s><lang:fr>", "a")
    assert gap(clean_runs(subject, [other])[0].logits, run.logits) > 1e-3  # control: the language is read
    with pytest.raises(InterpError, match="has to start with </s>"):
        subject.check_prompt("<lang:de>")


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_labels_are_the_first_words_of_a_text_and_logits_the_next_token(part: str, open_once: Open) -> None:
    one = open_once(f"speech2text-{part}")
    assert one.prompt == "</s>"
    spoken = one.subject.labels(["happy", "Sad"], one.prompt)
    assert one.subject.tokenizer.convert_ids_to_tokens(list(spoken.ids)) == ["▁happy", "▁sad"]  # it knows small letters
    run = one.runs["long"]
    made = one.subject.hf.generate(run.prompted.inputs["input_features"], max_new_tokens=1)
    assert made[0, -1] == run.logits.argmax()
