"""An untrained, tiny Qwen2-Audio: the library's own classes, so that its folder loads as the real one's does."""

import json
from collections.abc import Sequence

import torch
from emotion_data import CARRIERS, PHRASES, phrases
from speech import EMOTIONS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import sinusoids

ANSWER = "Answer with exactly one word: neutral, happy, sad, angry, or surprised."
PROMPTS = {
    "default": f"What is the emotion of this audio? {ANSWER}",
    "voice": f"Judge the voice, not the words. {ANSWER}",
    "words": f"Judge the words, not the voice. {ANSWER}",
}
TRANSCRIBE = "What does the speaker say?"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
N_MELS = 64
WINDOW_SECONDS = 4  # an integer: the feature extractor refuses fractions


def build_processor() -> Qwen2AudioProcessor:
    """Feature extractor, tokenizer and chat template, all as a Qwen2-Audio folder holds them."""
    return Qwen2AudioProcessor(
        feature_extractor=WhisperFeatureExtractor(
            feature_size=N_MELS, chunk_length=WINDOW_SECONDS, return_attention_mask=True
        ),
        tokenizer=_tokenizer(),
    )


def _tokenizer() -> Qwen2Tokenizer:
    """Byte-level BPE in which every word of the demo, with or without a leading space, is one token."""
    words = ["system", "user", "assistant", "You are a helpful assistant.", "Audio 1:", TRANSCRIBE, *PROMPTS.values()]
    words += [*EMOTIONS, *CARRIERS, *(phrase for emotion in PHRASES for phrase in phrases(emotion))]
    corpus = [text for word in words for text in (word, " " + word)] * 20
    qwen = Qwen2Tokenizer()._tokenizer  # the class rebuilds its own splitting rules on loading, so train with those
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer, bpe.decoder = qwen.normalizer, qwen.pre_tokenizer, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    trained = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:]),
        padding_side="left",
        model_max_length=512,
    )


def build_model(processor: Qwen2AudioProcessor, seed: int) -> Qwen2AudioForConditionalGeneration:
    """Random weights: a tower of 3 layers and a decoder of 12, width 128, 3.3 million parameters."""
    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=N_MELS,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=384,
        d_model=128,
        max_source_positions=processor.feature_extractor.nb_max_frames // 2,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.05,
    )
    config = Qwen2AudioConfig(
        audio_config=audio, text_config=text, audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    )
    model = Qwen2AudioForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.max_new_tokens = 16
    positions = model.model.audio_tower.embed_positions.weight  # frozen, and random unless filled in
    with torch.no_grad():
        positions.copy_(sinusoids(*positions.shape))
    return model


def chat(processor: Qwen2AudioProcessor, question: str) -> str:
    """The text that the processor turns into token ids: system turn, one audio marker, the question."""
    content = [{"type": "audio", "audio": "clip"}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def label_ids(processor: Qwen2AudioProcessor, labels: Sequence[str] = EMOTIONS) -> list[int]:
    """The token of each label as it stands right after the generation prompt."""
    prompt = chat(processor, PROMPTS["default"])
    ids = []
    for label in labels:
        before, after = processor.tokenizer(prompt).input_ids, processor.tokenizer(prompt + label).input_ids
        if after[: len(before)] != before or len(after) != len(before) + 1:
            raise ValueError(f"label {label!r} is not one token of its own: {after[len(before) :]}.")
        ids.append(after[-1])
    return ids
