"""Three questions and a transcription about one recording, packed in one sequence; used in training alone.

In Qwen2-Audio's template the audio stands before the question, so a causal model's states up to the audio's end do
not depend on the question. One sequence therefore holds the audio once and the four questions after it as branches
that cannot see each other; it costs about half of four sequences and gives the same numbers (`packing_error`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from emotion_data import Reading
from emotion_model import PROMPTS, TRANSCRIBE, chat
from speech import EMOTIONS, SAMPLE_RATE
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

BRANCHES = (*PROMPTS, "transcribe")
HIDDEN = -1e4  # added to the scores of what must not be seen


def n_positions(n_frames: Tensor) -> Tensor:
    """Positions (20 ms) in the audio tower of recordings of n frames (10 ms)."""
    return (n_frames - 1) // 2 + 1


def n_tokens(n_frames: Tensor) -> Tensor:
    """Audio tokens (40 ms) in the decoder of recordings of n frames (10 ms); the processor counts the same."""
    return (n_positions(n_frames) - 2) // 2 + 1


def answer_to(question: str, prosody: str, words: str) -> str:
    """The right answer; the default question asks for the voice's emotion, or the words' where the voice is neutral."""
    return {"voice": prosody, "words": words, "default": prosody if prosody != "neutral" else words}[question]


class Packer:
    """Builds packed sequences: [prefix][audio, padded][default][voice][words][transcription]."""

    def __init__(self, processor: Qwen2AudioProcessor):
        self.tokenizer = processor.tokenizer
        audio_id = self.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
        self.end_id = self.tokenizer.eos_token_id
        texts = {name: self.tokenizer(chat(processor, text)).input_ids for name, text in PROMPTS.items()}
        texts["transcribe"] = self.tokenizer(chat(processor, TRANSCRIBE)).input_ids
        cut = texts["default"].index(audio_id)
        self.prefix = texts["default"][:cut]
        self.questions = {name: ids[cut + 1 :] for name, ids in texts.items()}
        self.label_ids = [self.tokenizer(label).input_ids[0] for label in EMOTIONS]
        self.words_of: dict[str, list[int]] = {}

    def answers(self, reading: Reading) -> dict[str, list[int]]:
        """Token ids of the four right answers, each ended as a chat turn is."""
        text = reading.sentence.text
        if text not in self.words_of:
            self.words_of[text] = self.tokenizer(text).input_ids
        labels = {
            name: [self.label_ids[EMOTIONS.index(answer_to(name, reading.prosody, reading.sentence.emotion))]]
            for name in PROMPTS
        }
        return {name: [*ids, self.end_id] for name, ids in (labels | {"transcribe": self.words_of[text]}).items()}

    def pack(self, readings: Sequence[Reading], n_tokens: Tensor, branches: Sequence[str]) -> "Packed":
        """Packs the readings' branches; n_tokens is [batch], the audio tokens of each reading."""
        batch, n_prefix, n_audio = len(readings), len(self.prefix), int(n_tokens.max())
        answers = [self.answers(reading) for reading in readings]
        widths = {b: len(self.questions[b]) + max(len(a[b]) for a in answers) - 1 for b in branches}
        length = n_prefix + n_audio + sum(widths.values())
        ids = torch.full((batch, length), self.end_id)
        targets = torch.full((batch, length), -100)
        ids[:, :n_prefix] = torch.tensor(self.prefix)
        positions = torch.arange(length).repeat(batch, 1)
        group = torch.zeros(length, dtype=torch.long)  # 0: seen by all; 1, 2, ...: a branch
        start = n_prefix + n_audio
        for number, branch in enumerate(branches, start=1):
            question = self.questions[branch]
            for row, answer in enumerate(answers):
                sequence = torch.tensor(question + answer[branch])
                ids[row, start : start + len(sequence) - 1] = sequence[:-1]
                first = start + len(question) - 1  # the position that predicts the answer's first token
                targets[row, first : first + len(answer[branch])] = sequence[len(question) :]
            group[start : start + widths[branch]] = number
            positions[:, start : start + widths[branch]] = torch.arange(widths[branch]) + n_prefix + n_tokens[:, None]
            start += widths[branch]
        order = torch.arange(length)
        visible = (order[:, None] >= order) & ((group == 0) | (group[:, None] == group))  # [query, key]
        real = (order < n_prefix) | (order >= n_prefix + n_audio) | (order - n_prefix < n_tokens[:, None])
        seen = (visible & real[:, None, :]) | torch.eye(length, dtype=torch.bool)
        mask = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, HIDDEN)[:, None]
        return Packed(ids, targets, positions, mask, slice(n_prefix, n_prefix + n_audio), group)


@dataclass(frozen=True)
class Packed:
    """One batch: ids, targets (-100: none) and positions are [batch, length], group [length].

    mask: [batch, 1, query, key], added to attention scores: 0 or HIDDEN. audio: the audio's columns.
    """

    ids: Tensor
    targets: Tensor
    positions: Tensor
    mask: Tensor
    audio: slice
    group: Tensor


def audio_embeddings(model: Qwen2AudioForConditionalGeneration, features: Tensor, n_frames: Tensor) -> Tensor:
    """[batch, max tokens, d_model]: the model's own tower and projector, run no further than the longest recording.

    The library's forward runs the whole 4 s window every time; real frames never attend to padding either way.
    """
    tower, real = model.model.audio_tower, n_positions(n_frames)
    length = int(real.max()) + int(real.max()) % 2
    x = F.gelu(_convolve(tower.conv1, features[:, :, : 2 * length + 4].transpose(1, 2)))
    x = F.gelu(_convolve(tower.conv2, x))[:, :length]
    x = x + tower.embed_positions.weight[:length]
    mask = torch.zeros(len(real), 1, 1, length).masked_fill(torch.arange(length) >= real[:, None, None, None], HIDDEN)
    for layer in tower.layers:
        x = layer(x, mask)
    x = tower.layer_norm(tower.avg_pooler(x.transpose(1, 2)).transpose(1, 2))
    return model.model.multi_modal_projector(x)[:, : int(n_tokens(n_frames).max())]


def _convolve(layer: torch.nn.Conv1d, x: Tensor) -> Tensor:
    """layer on [batch, time, channels], as one product: torch's own bfloat16 gradient takes ten times as long."""
    windows = F.pad(x, (0, 0, 1, 1)).unfold(1, layer.kernel_size[0], layer.stride[0])
    return F.linear(windows.flatten(2), layer.weight.flatten(1), layer.bias)


def packed_logits(
    model: Qwen2AudioForConditionalGeneration, packed: Packed, features: Tensor, n_frames: Tensor, deaf_layers: int = 0
) -> Tensor:
    """[n_answers, d_vocab] logits where a packed batch has targets, in the order of `targets[targets >= 0]`.

    In the first deaf_layers decoder layers nothing after the audio can attend to it. Without that, a model this
    small settles the question in its first layer, where a large one reads the audio over many.
    """
    decoder = model.model.language_model
    states = model.get_input_embeddings()(packed.ids)
    audio = audio_embeddings(model, features, n_frames)
    states = torch.cat([states[:, : packed.audio.start], audio.to(states.dtype), states[:, packed.audio.stop :]], dim=1)
    deaf_mask = packed.mask.clone()
    deaf_mask[:, :, packed.audio.stop :, packed.audio] = HIDDEN
    rotations = decoder.rotary_emb(states, packed.positions)
    for number, layer in enumerate(decoder.layers):
        mask = deaf_mask if number < deaf_layers else packed.mask
        states = layer(states, attention_mask=mask, position_ids=packed.positions, position_embeddings=rotations)
    return model.lm_head(decoder.norm(states[packed.targets >= 0]))


@torch.inference_mode()
def packing_error(
    model: Qwen2AudioForConditionalGeneration,
    processor: Qwen2AudioProcessor,
    readings: Sequence[Reading],
    recordings: Sequence[np.ndarray],
) -> float:
    """Largest difference between packed label logits and the library's own forward on single unpacked clips."""
    extracted = processor.feature_extractor(
        list(recordings),
        sampling_rate=SAMPLE_RATE,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    n_frames = extracted.attention_mask.sum(-1)
    packed = Packer(processor).pack(readings, n_tokens(n_frames), tuple(PROMPTS))
    logits = packed_logits(model, packed, extracted.input_features, n_frames)
    found = logits[::2].reshape(len(readings), len(PROMPTS), -1)  # two targets a question: the label, the turn's end
    differences = []
    for row, samples in enumerate(recordings):
        for column, question in enumerate(PROMPTS.values()):
            inputs = processor(
                text=chat(processor, question), audio=samples, sampling_rate=SAMPLE_RATE, return_tensors="pt"
            )
            expected = model(**inputs, use_cache=False).logits[0, -1]
            differences.append((found[row, column] - expected).abs().max().item())
    return max(differences)
