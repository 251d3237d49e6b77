"""Labels and their first answer tokens, read off in context."""

import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.labels import LabelTokens
from tests.tiny import LABELS
from tests.trace.naive import PROMPT


def refusal(subject: AudioLLM, *labels: str, several_tokens: str = "refuse") -> str:
    with pytest.raises(InterpError) as error:
        subject.labels(labels, PROMPT, several_tokens=several_tokens)
    return str(error.value)


def test_each_label_is_the_token_that_the_answer_would_start_with(tiny: AudioLLM) -> None:
    found = tiny.labels(LABELS, PROMPT)
    assert found.labels == LABELS and len(set(found.ids)) == 5
    # Another route: the tokenizer's own merges on the word alone, which follows a newline in the chat template.
    raw = Tokenizer.from_str(tiny.tokenizer.backend_tokenizer.to_str())
    assert tiny.chat_text(PROMPT).endswith("assistant\n")
    assert found.ids == tuple(raw.encode(word, add_special_tokens=False).ids[0] for word in LABELS)
    assert [tiny.tokenizer.decode(i) for i in found.ids] == list(LABELS)
    with_space = [row["variants"]["leading space"]["ids"][0] for row in found.report["labels"]]
    assert set(with_space).isdisjoint(found.ids)  # control: the other spelling is another token
    assert found.report["prompt"] == PROMPT and found.report["clashes"] == []


def test_a_label_is_read_where_the_answer_starts_not_on_its_own(tiny: AudioLLM, monkeypatch) -> None:
    text = tiny.chat_text(PROMPT)
    monkeypatch.setattr(tiny, "chat_text", lambda _prompt: text.rstrip("\n") + ":")
    spaced = tiny.labels([" happy", " sad"], PROMPT)
    assert [tiny.tokenizer.decode(i) for i in spaced.ids] == [" happy", " sad"]
    # The template ends on a space that the words merge with: the id is the merged one, and the report says so.
    monkeypatch.setattr(tiny, "chat_text", lambda _prompt: text.rstrip("\n") + ": ")
    merged = tiny.labels(["happy", "sad"], PROMPT)
    assert merged.ids == spaced.ids
    assert [row["merged_with_the_prompt"] for row in merged.report["labels"]] == [True, True]
    assert [row["merged_with_the_prompt"] for row in spaced.report["labels"]] == [False, False]


def test_a_label_of_several_tokens_is_refused_or_stands_for_its_first(tiny: AudioLLM) -> None:
    message = refusal(tiny, "happy", "joyous")
    assert "label 'joyous' is " in message and "only the first is compared" in message and "--multi-token" in message
    found = tiny.labels(["happy", "joyous"], PROMPT, several_tokens="first")
    assert found.report["labels"][1]["several_tokens"] and not found.report["labels"][0]["several_tokens"]
    assert found.ids[1] == tiny.tokenizer("joyous").input_ids[0] and found.report["several_tokens"] == "first"


def test_labels_that_start_alike_clash_also_where_first_tokens_may_stand_for_words(tiny: AudioLLM) -> None:
    message = refusal(tiny, "happy", "joyous", "joyful", several_tokens="first")
    assert "labels 'joyous' and 'joyful' start with the same token" in message and "--multi-token" not in message
    assert "labels 'happy' and 'happy' start with the same token" in refusal(tiny, "happy", "happy", "sad")


def test_empty_labels_and_fewer_than_two_are_refused_and_all_faults_come_at_once(tiny: AudioLLM) -> None:
    assert refusal(tiny) == "0 label(s) given: ; a decision needs two or more."
    assert refusal(tiny, "happy") == "1 label(s) given: happy; a decision needs two or more."
    message = refusal(tiny, "happy", " ", "joyous", "happy")
    for fault in ("an empty label", "'joyous' is ", "'happy' and 'happy' start with"):
        assert fault in message


def test_label_logits_and_mass_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]).log()[:1].repeat(2, 1)
    logits[1] = 0
    at, log_mass = LabelTokens(("a", "b"), (3, 1), {}).read(logits)
    assert torch.allclose(at.exp(), torch.tensor([[4.0, 2.0], [1.0, 1.0]]))
    assert torch.allclose(log_mass.exp(), torch.tensor([0.6, 0.5]))


def test_the_tiny_tokenizer_is_of_the_class_that_real_folders_hold(tiny: AudioLLM) -> None:
    assert isinstance(tiny.tokenizer, Qwen2Tokenizer) and tiny.tokenizer.padding_side == "left"
    assert tiny.tokenizer.decode(tiny.tokenizer("What is the emotion?").input_ids) == "What is the emotion?"
