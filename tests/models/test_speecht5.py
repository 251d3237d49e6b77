"""SpeechT5: it writes letter by letter, and its tokenizer is read without the package sentencepiece."""

import json
from pathlib import Path

import pytest
import torch

from interp_core.errors import InterpError
from interp_core.models.encoders.speecht5 import SpeechT5, speecht5_tokenizer
from interp_core.models.load import open_model
from interp_core.trace.generate import Row, generate
from tests.families.encoder_words import save_seamless_tokenizer, save_speecht5_tokenizer
from tests.families.encoders import save_speecht5
from tests.models.conftest import Open, refused
from tests.models.test_writing import cut
from tests.trace.naive import gap


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("clip", ["short", "long", "twin"])
def test_answer_and_text_are_the_librarys_from_the_samples_on(part: str, clip: str, open_once: Open) -> None:
    one = open_once(f"speecht5-{part}")
    subject, hf = one.subject, one.subject.hf
    assert isinstance(subject, SpeechT5) and subject.default_prompts == ("</s>▁",)
    heard = dict(subject.extractor(one.samples[clip], sampling_rate=16_000, return_tensors="pt"))
    asked = torch.tensor([[2, 4]])
    with torch.inference_mode():
        assert gap(one.runs[clip].logits, hf(**heard, decoder_input_ids=asked).logits[0, -1]) < 1e-5
        wrote = hf.generate(**heard, decoder_input_ids=asked, max_new_tokens=8)[0].tolist()
    assert generate(subject, [Row(one.stems[clip])], 8)[0].tokens == cut(wrote[2:], hf)


def test_words_are_letters_behind_a_space(tmp_path: Path) -> None:
    ids = save_speecht5_tokenizer(tmp_path)
    words = speecht5_tokenizer(str(tmp_path))
    assert words.get_vocab() == ids
    for text in ("happy", "the dog  barks", " sad", "it's", "Über"):
        letters = "▁" + "▁".join(text.split())
        found = words(text, add_special_tokens=False).input_ids
        assert found == [ids.get(letter, ids["<unk>"]) for letter in letters]
        if all(letter in ids for letter in letters):
            assert words.decode(found) == " ".join(text.split())
    assert words("</s>▁", add_special_tokens=False).input_ids == [2, 4]
    assert words("</s>▁a<mask>", add_special_tokens=False).input_ids == [2, 4, ids["a"], ids["<mask>"]]


def test_labels_are_told_apart_by_their_first_letters(open_once: Open) -> None:
    subject = open_once("speecht5-encoder").subject
    found = subject.labels(["happy", "sad"], "</s>▁")
    assert subject.tokenizer.convert_ids_to_tokens(list(found.ids)) == ["h", "s"]  # type: ignore[attr-defined]
    with pytest.raises(InterpError, match="labels 'sad' and 'so' start with the same token"):
        subject.labels(["sad", "so"], "</s>▁")


def test_files_that_are_missing_or_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    folder = save_speecht5(tmp_path / "model")
    added, letters = folder / "added_tokens.json", folder / "spm_char.model"
    whole, kept = json.loads(added.read_text()), letters.read_bytes()
    added.write_text(json.dumps({**whole, "<mask>": whole["<mask>"] + 4}))
    assert "has <mask> at 36, where spm_char.model leaves" in refused(folder)
    added.unlink()
    assert open_model(str(folder), device="cpu").default_prompts == ("</s>▁",)  # both are of training alone
    save_seamless_tokenizer(tmp_path / "other")
    letters.write_bytes((tmp_path / "other" / "sentencepiece.bpe.model").read_bytes())
    assert "joins pieces by rules, which is not known of models of this type" in refused(folder)
    letters.write_bytes(kept[:-3])
    assert "is no model of sentencepiece; fetch it again" in refused(folder)
    letters.unlink()
    assert "lacks spm_char.model; copy the tokenizer files" in refused(folder)
    letters.write_bytes(kept)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    assert "do not fit its config: speecht5." in refused(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SpeechT5ForTextToSpeech", "cannot be opened: it hears no recording; take a SpeechT5ForSpeechToText"),
        ("SpeechT5ForSpeechToSpeech", "cannot be opened: there is no readout: it gives sound; take a SpeechT5For"),
    ],
)
def test_a_checkpoint_that_speaks_is_refused(name: str, said: str, tmp_path: Path) -> None:
    folder = save_speecht5(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}))
    assert f"is a {name}, which {said}" in refused(folder)
