"""How often demo-emotion is right, measured through the folder's own processor and the library's own forward."""

import platform
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import transformers
from emotion_clips import BrowseClip
from emotion_data import (
    LONGEST_SECONDS,
    UNSEEN_PHRASES,
    Reading,
    combined,
    draw_readings,
    held_out_voices,
    record,
    record_all,
    sentences,
    training_voices,
)
from emotion_model import PROMPTS, chat, label_ids
from emotion_packing import answer_to
from speech import EMOTIONS, SAMPLE_RATE, speak_flite
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

FLITE_VOICES = ("awb", "rms", "slt", "kal16")


@torch.inference_mode()
def answers(
    model: Qwen2AudioForConditionalGeneration,
    processor: Qwen2AudioProcessor,
    recordings: Sequence[np.ndarray],
    question: str,
) -> list[str]:
    """The label with the highest logit at the first answer token, for each recording ([n_samples] at 16 kHz)."""
    text, ids = chat(processor, question), label_ids(processor)
    chosen = []
    for start in range(0, len(recordings), 40):
        batch = list(recordings[start : start + 40])
        inputs = processor(
            text=[text] * len(batch), audio=batch, sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt"
        )
        logits = model(**inputs, use_cache=False).logits[:, -1]  # left padding: the last column ends every row
        chosen += [EMOTIONS[i] for i in logits[:, ids].argmax(-1).tolist()]
    return chosen


def scores(
    model: Qwen2AudioForConditionalGeneration,
    processor: Qwen2AudioProcessor,
    readings: Sequence[Reading],
    recordings: Sequence[np.ndarray],
) -> dict[str, float | int]:
    """Accuracy a question, over all recordings and over those whose voice and words disagree."""
    conflict = np.array([reading.prosody != reading.sentence.emotion for reading in readings])
    result: dict[str, float | int] = {"n": len(readings), "n_conflict": int(conflict.sum())}
    for name, question in PROMPTS.items():
        given = answers(model, processor, recordings, question)
        right = np.array(
            [a == answer_to(name, r.prosody, r.sentence.emotion) for a, r in zip(given, readings, strict=True)]
        )
        result[name] = round(float(right.mean()), 4)
        result[f"{name}_conflict"] = round(float(right[conflict].mean()), 4)
    return result


def measure(
    model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, clips: Sequence[BrowseClip]
) -> dict[str, dict[str, float | int]]:
    """Scores on the shipped clips and on recordings held out in several ways; chance is 0.2."""
    trained, held_out = sentences()
    unseen = combined(UNSEEN_PHRASES)
    sets: Mapping[str, list[Reading]] = {
        "new_voices_and_sentences": draw_readings(1000, held_out, held_out_voices(), seed=2),
        "new_voices": draw_readings(500, trained, held_out_voices(), seed=3),
        "new_sentences": draw_readings(500, held_out, training_voices(), seed=4),
        "unseen_words": draw_readings(500, unseen, held_out_voices(), seed=5),
    }
    result = {"shipped_clips": scores(model, processor, [c.reading for c in clips], [c.samples for c in clips])}
    for name, readings in sets.items():
        kept, recordings = record_all(readings)
        result[name] = scores(model, processor, kept, [samples / np.float32(32768) for samples in recordings])
    readings = draw_readings(250, held_out, FLITE_VOICES, seed=6)
    spoken = [(r, samples) for r in readings if len(samples := record(r, speak_flite)) <= LONGEST_SECONDS * SAMPLE_RATE]
    result["unseen_synthesiser"] = scores(model, processor, *map(list, zip(*spoken, strict=True)))
    return result


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
