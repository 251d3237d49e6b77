"""Small but real tokenizers for tiny encoder folders: byte-level merges trained until every word below is one token."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, RobertaTokenizer, WhisperTokenizer
from transformers.utils import sentencepiece_model_pb2_new

LANGUAGES = ("en", "zh", "de", "es")  # the library finds a language by its place in its own order, which starts so
TRAILING = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")
WORDS = [
    " neutral happy sad angry surprised dog rain siren laughter cat",
    "neutral happy sad angry surprised dog rain siren laughter cat",
    " The dog barks in the rain. A siren. I am happy and you are sad.",
    "This is a sound of dog This is a sound of rain This is a sound of siren This is a sound of laughter",
]


def bpe(vocab_size: int, special: Sequence[str] = ()) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Train byte-level merges on the sentences above; (vocab, merges)."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(WORDS * 20, trainer)
    state = json.loads(words.to_str())["model"]
    return state["vocab"], [tuple(merge) for merge in state["merges"]]


def whisper_tokenizer(seconds: int) -> WhisperTokenizer:
    """Words, then the special tokens in the order of the real vocabulary, then the timestamps of `seconds`."""
    vocab, merges = bpe(400)
    words = WhisperTokenizer(vocab=vocab, merges=merges)
    special = ["<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES), *TRAILING]
    words.add_special_tokens({"additional_special_tokens": special})
    words.add_tokens([AddedToken(f"<|{0.02 * i:.2f}|>", normalized=False) for i in range(50 * seconds + 1)])
    return words


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Llama's kind, which Moonshine has: a word holds the space before it, and a text begins with one."""
    words = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    words.decoder = decoders.Sequence(parts)
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    words.train_from_iterator(WORDS * 20, trainer)
    words.pre_tokenizer = None
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def canary_tokenizer(prepends: bool = False) -> PreTrainedTokenizerFast:
    """NeMo's multitask vocabulary: what a prompt may name stands in front, then pieces, a word with its space.

    Args:
        prepends: the space in front of a text is put there also where one stands already, as by Llama's kind.
    """
    special = ["<|nospeech|>", "<pad>", "<|endoftext|>", "<|startoftranscript|>", "<|pnc|>", "<|nopnc|>"]
    special += ["<|startofcontext|>", "<|itn|>", "<|noitn|>", "<|timestamp|>", "<|notimestamp|>", "<|diarize|>"]
    special += ["<|nodiarize|>", "<|spkchange|>", "<|audioseparator|>", "<|emo:undefined|>"]
    special += [f"<|{code}|>" for code in LANGUAGES]
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    words.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=["<unk>", *special], show_progress=False)
    words.train_from_iterator(WORDS * 20, trainer)
    if prepends:
        words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        words.pre_tokenizer = None
    named = {"bos_token": "<|startoftranscript|>", "eos_token": "<|endoftext|>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        additional_special_tokens=[token for token in special if token.startswith("<|")],
        **named,
    )


def save_speech2text_tokenizer(folder: Path, languages: Sequence[str] = ("de", "fr")) -> dict[str, int]:
    """Write Speech2Text's files, `vocab.json` and a unigram model of sentencepiece's; ids by piece."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(WORDS * 20, trainer)
    scores = {piece: score for piece, score in json.loads(trained.to_str())["model"]["vocab"] if piece != "<unk>"}
    scores |= {f"▁{word}": -1.0 for word in WORDS[1].split()}
    proto = sentencepiece_model_pb2_new.ModelProto()
    proto.trainer_spec.model_type = 1
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    named = [*special, *(f"<lang:{code}>" for code in languages)]
    for kind, pieces in ((3, dict.fromkeys(special, 0.0)), (4, dict.fromkeys(named[4:], 0.0)), (1, scores)):
        for piece, score in pieces.items():
            proto.pieces.add(piece=piece, score=score, type=2 if piece == "<unk>" else kind)
    ids = {piece: i for i, piece in enumerate([*named, *scores])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(proto.SerializeToString())
    (folder / "vocab.json").write_text(json.dumps(ids))
    about = {"tokenizer_class": "Speech2TextTokenizer", "do_lower_case": True, "do_upper_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return ids


def save_speecht5_tokenizer(folder: Path) -> dict[str, int]:
    """Write SpeechT5's files, a model of sentencepiece's whose pieces are letters, and what is added; ids by piece."""
    proto = sentencepiece_model_pb2_new.ModelProto()
    proto.trainer_spec.model_type = 4
    for piece, kind in (("<s>", 3), ("<pad>", 3), ("</s>", 3), ("<unk>", 2)):
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    for i, letter in enumerate("▁etaonihsrdlumwcfgypbvk'xjqz"):
        proto.pieces.add(piece=letter, score=-2.0 - i / 10, type=1)
    ids = {one.piece: i for i, one in enumerate(proto.pieces)}
    added = {"<mask>": len(ids), "<ctc_blank>": len(ids) + 1}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spm_char.model").write_bytes(proto.SerializeToString())
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SpeechT5Tokenizer"}))
    return {**ids, **added}


def save_seamless_tokenizer(folder: Path, languages: Sequence[str] = ("deu", "eng", "fra")) -> dict[str, int]:
    """Write SeamlessM4T's files, a model of sentencepiece's that joins pieces, and the languages; ids by token."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.train_from_iterator(WORDS * 20, trainers.BpeTrainer(vocab_size=220, show_progress=False))
    merged = ["".join(pair) for pair in json.loads(words.to_str())["model"]["merges"]]
    single = sorted(set("".join(words.get_vocab())))
    proto = sentencepiece_model_pb2_new.ModelProto()
    proto.trainer_spec.model_type = 2
    for piece, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3)):
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    for i, piece in enumerate([*merged, *single]):
        proto.pieces.add(piece=piece, score=-float(i), type=1)
    ids = {"<pad>": 0, **{one.piece: i + 1 for i, one in enumerate(proto.pieces)}}
    added = {f"__{code}__": len(ids) + i for i, code in enumerate(languages)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(proto.SerializeToString())
    (folder / "added_tokens.json").write_text(json.dumps(added))
    about = {"tokenizer_class": "SeamlessM4TTokenizer", "src_lang": "eng", "tgt_lang": "fra"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, "additional_special_tokens": [*added]}))
    return {**ids, **added}


def clap_tokenizer() -> RobertaTokenizer:
    """The class and the special ids (pad is 1) of the text towers of real CLAP folders."""
    vocab, merges = bpe(400, ("<s>", "<pad>", "</s>", "<unk>"))
    return RobertaTokenizer(vocab={**vocab, "<mask>": len(vocab)}, merges=merges, model_max_length=62)
