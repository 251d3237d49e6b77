"""Tokenizers and chat templates for tiny audio LLMs: byte-level BPE, with the special tokens of each real family."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, Qwen2Tokenizer, TokenizersBackend
from transformers.convert_slow_tokenizer import bytes_to_unicode

CORPUS = [
    "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised.",
    "system\nYou are a helpful assistant. user\nAudio 1: assistant\n",
    "neutral\nhappy\nsad\nangry\nsurprised\n",
]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@cache
def bpe(special: tuple[str, ...]) -> dict[str, Any]:
    """Train a byte-level BPE whose first ids are `special`; whole words of the corpus are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    return json.loads(tokenizer.to_str())


def words(kind: type, special: list[str], *, eos: str, pad: str, named: dict[str, str] | None = None) -> Any:
    """A tokenizer of the library class `kind`.

    Args:
        special: the special tokens, in the order of their ids.
        named: attributes such as `audio_token` that the family's processor reads off its tokenizer.
    """
    trained = bpe(tuple(special))
    settings = {
        "eos_token": eos,
        "pad_token": pad,
        "unk_token": None,
        "bos_token": None,
        "padding_side": "left",
        "model_max_length": 4096,
        **({"extra_special_tokens": named} if named else {}),
    }
    if kind is TokenizersBackend:
        tokenizer = TokenizersBackend(tokenizer_object=Tokenizer.from_str(json.dumps(trained)), **settings)
    else:
        model = trained["model"]
        tokenizer = kind(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], **settings)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer


def qwen(special: list[str], named: dict[str, str] | None = None) -> Qwen2Tokenizer:
    return words(Qwen2Tokenizer, [*CHATML, *special], eos="<|im_end|>", pad="<|endoftext|>", named=named)


def gpt2(special: list[str], eos: str, pad: str, named: dict[str, str] | None = None) -> GPT2Tokenizer:
    return words(GPT2Tokenizer, special, eos=eos, pad=pad, named=named)


def save_tekken(folder: Path) -> None:
    """Write `tekken.json` as Voxtral has it: ranks of byte strings, special tokens apart, [AUDIO] at id 24."""
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"] + [f"<SPECIAL_{i}>" for i in range(5, 40)]
    names[24], names[25] = "[AUDIO]", "[BEGIN_AUDIO]"
    trained = bpe(())["model"]
    to_byte = {sign: byte for byte, sign in bytes_to_unicode().items()}
    pieces = [bytes(to_byte[sign] for sign in token) for token in trained["vocab"]]
    ranked = [bytes([i]) for i in range(256)] + [piece for piece in pieces if len(piece) > 1]
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(p).decode(), "token_str": p.decode("utf-8", "replace")}
        for i, p in enumerate(ranked)
    ]
    config = {
        "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "num_vocab_tokens": len(vocab),
        "default_vocab_size": len(vocab) + len(names),
        "default_num_special_tokens": len(names),
        "version": "v13",
    }
    special = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(names)]
    written = {"config": config, "vocab": vocab, "special_tokens": special}
    (folder / "tekken.json").write_text(json.dumps(written))


def chatml(audio: str, system: str = "You are a helpful assistant.") -> str:
    """A ChatML template that takes the content in parts, as those of the Qwen and Flamingo families do."""
    return (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + system + "<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
        "{% if part['type'] == 'audio' %}" + audio + "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


QWEN3_ASR = (  # The user's text is left out: what is to be heeded stands in the system turn.
    "{% set ns = namespace(system='', audio='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% if m.content is string %}{% set ns.system = ns.system + m.content %}{% else %}"
    "{% for c in m.content %}{% if c.type == 'text' %}{% set ns.system = ns.system + c.text %}{% endif %}{% endfor %}"
    "{% endif %}{% elif m.content is not string %}{% for c in m.content %}{% if c.type == 'audio' %}"
    "{% set ns.audio = ns.audio + '<|audio_start|><|audio_pad|><|audio_end|>' %}{% endif %}{% endfor %}{% endif %}"
    "{% endfor %}<|im_start|>system\n{{ ns.system }}<|im_end|>\n<|im_start|>user\n{{ ns.audio }}<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GLM = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'audio' %}<|begin_of_audio|><|pad|><|end_of_audio|><|user|>\n"
    "{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GRANITE = (  # Plain text only: the audio marker is written into it.
    "{% for m in messages %}<|start_of_role|>{{ m['role'] }}<|end_of_role|>{{ m['content'] + '<|end_of_text|>' }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
PHI4 = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'audio' %}<|audio|>{% elif c['type'] == 'text' %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GEMMA4 = (
    "{% for m in messages %}<|turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'audio' %}<|audio|>{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)
