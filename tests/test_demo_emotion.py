"""The bundled demo-emotion folder is what its files say, loaded offline by the library's own classes."""

import csv
import json
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
import soundfile
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

FOLDER = Path(__file__).parents[1] / "assets" / "demo-emotion"
DEMO = json.loads((FOLDER / "demo.json").read_text())
METRICS = json.loads((FOLDER / "metrics.json").read_text())
PROMPTS = {prompt["name"]: prompt["text"] for prompt in DEMO["prompts"]}
with (FOLDER / DEMO["manifest"]).open(newline="") as file:
    CLIPS = list(csv.DictReader(file))


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER / DEMO["model"], local_files_only=True)


@pytest.fixture(scope="module")
def model():
    path = FOLDER / DEMO["model"]
    return Qwen2AudioForConditionalGeneration.from_pretrained(path, dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module")
def answers(model, processor):
    """answers[prompt name][clip id] -> label"""
    ids = label_ids(processor)
    recordings = [soundfile.read(FOLDER / clip["path"], dtype="float32")[0] for clip in CLIPS]
    result = {name: {} for name in PROMPTS}
    for name, question in PROMPTS.items():
        for start in range(0, len(CLIPS), 40):
            part = recordings[start : start + 40]
            inputs = processor(
                text=[chat(processor, question)] * len(part),
                audio=part,
                sampling_rate=DEMO["sample_rate"],
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                chosen = model(**inputs, use_cache=False).logits[:, -1, ids].argmax(-1).tolist()
            for clip, label in zip(CLIPS[start : start + 40], chosen, strict=True):
                result[name][clip["clip_id"]] = DEMO["labels"][label]
    return result


def chat(processor, question):
    content = [{"type": "audio", "audio": "clip"}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def label_ids(processor):
    before = processor.tokenizer(chat(processor, PROMPTS["default"])).input_ids
    ids = []
    for label in DEMO["labels"]:
        after = processor.tokenizer(chat(processor, PROMPTS["default"]) + label).input_ids
        assert after[:-1] == before, f"{label} is not one token after the generation prompt"
        ids.append(after[-1])
    return ids


def right_answer(clip, prompt):
    voice, words = clip["prosody_label"], clip["semantic_label"]
    return {"voice": voice, "words": words, "default": words if voice == "neutral" else voice}[prompt]


def accuracy(answers, prompt, clips=CLIPS):
    return sum(answers[prompt][clip["clip_id"]] == right_answer(clip, prompt) for clip in clips) / len(clips)


def test_default_prompt_is_the_fixed_one_and_every_label_is_one_token_of_its_own(processor):
    assert PROMPTS["default"] == (
        "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
    )
    assert set(PROMPTS) == {"default", "voice", "words"}
    assert len(set(label_ids(processor))) == len(DEMO["labels"]) == 5


def test_audio_stands_before_the_question_as_in_qwen2_audio(processor):
    text = chat(processor, PROMPTS["words"])
    assert text.startswith("<|im_start|>system\n")
    assert "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n" + PROMPTS["words"] in text
    assert text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("prompt", ["default", "voice", "words"])
def test_accuracy_on_the_shipped_clips_is_the_stated_one(answers, prompt):
    stated = METRICS["accuracy"]["shipped_clips"]
    assert stated["n"] == len(CLIPS)
    assert accuracy(answers, prompt) == pytest.approx(stated[prompt], abs=0.02)


def test_the_same_clips_are_answered_by_voice_or_by_words_as_asked(answers):
    conflict = [c for c in CLIPS if "neutral" != c["prosody_label"] != c["semantic_label"]]
    assert len(conflict) >= 40
    by_words = {c["clip_id"]: c["semantic_label"] for c in conflict}
    for prompt, follows_voice in (("default", True), ("voice", True), ("words", False)):
        share = sum(answers[prompt][clip_id] == label for clip_id, label in by_words.items()) / len(conflict)
        assert share < 0.3 if follows_voice else share > 0.7


def test_both_pair_kinds_have_reachable_pairs_within_speakers(answers):
    pairs = [(a, b) for a, b in permutations(CLIPS, 2) if a["speaker"] == b["speaker"]]
    prosody = [(a, b) for a, b in pairs if a["text_id"] == b["text_id"] and a["prosody_label"] != b["prosody_label"]]
    semantic = [
        (a, b)
        for a, b in pairs
        if a["text_id"] != b["text_id"]
        and a["prosody_label"] == b["prosody_label"]
        and a["semantic_label"] != b["semantic_label"]
    ]
    for kind, column, prompts in (
        (prosody, "prosody_label", ("default", "voice")),
        (semantic, "semantic_label", ("default", "words")),
    ):
        for prompt in prompts:
            given = answers[prompt]
            reachable = [
                (a, b) for a, b in kind if given[a["clip_id"]] != b[column] and given[b["clip_id"]] == b[column]
            ]
            assert len(reachable) >= 50, (column, prompt)
            assert len({a["text_id"] for a, _ in reachable}) >= 10, "clusters for the bootstrap"


def test_every_emotion_has_clips_whose_voice_and_words_agree():
    agreeing = Counter(clip["semantic_label"] for clip in CLIPS if clip["semantic_label"] == clip["prosody_label"])
    assert set(agreeing) == set(DEMO["labels"])
    assert min(agreeing.values()) >= 2


def test_clips_are_16_khz_16_bit_mono_flac_of_about_one_length():
    assert len({clip["clip_id"] for clip in CLIPS}) == len(CLIPS) >= 60
    for clip in CLIPS:
        info = soundfile.info(FOLDER / clip["path"])
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16000, 1)
        assert 2.3 <= info.duration <= 2.5


def test_text_id_names_one_text_and_one_emotion_of_the_words():
    facts = {clip["text_id"]: (clip["text"], clip["semantic_label"]) for clip in CLIPS}
    assert all(facts[clip["text_id"]] == (clip["text"], clip["semantic_label"]) for clip in CLIPS)
    assert len(set(facts.values())) == len(facts) >= 20


def megabytes(*folders):
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) / 1e6


def test_the_folder_stays_small():
    assert megabytes(FOLDER) - megabytes(FOLDER / "run") < 18
    assert megabytes(FOLDER / "run") < 11  # the records of every pair, layer and control: text that packs tenfold
