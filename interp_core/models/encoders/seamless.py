"""What is SeamlessM4T's own among models that hear and write: a last position that one frame does not fill, which the
library masks, convolutions behind the last block, and a tokenizer without the package sentencepiece."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import SeamlessM4TTokenizer
from transformers.tokenization_utils_base import generate_merges

from interp_core.errors import InterpError, few
from interp_core.models.encoders.listener import Listener, ListenerDecoder, ProbedEncoder
from interp_core.models.encoders.pieces import read_pieces
from interp_core.models.encoders.subject import Encoder
from interp_core.models.prompted import Prompted, RecordingSpan

PIECES, ADDED, SETTINGS = "sentencepiece.bpe.model", "added_tokens.json", "tokenizer_config.json"
_JOINED = 2
"""The kind of sentencepiece model whose pieces are joined pair by pair."""


class MaskedEnd(Encoder):
    """The encoder, of which a clip's last position, where it is half filled, is masked, and stays the recipient's."""

    @property
    def by_construction(self) -> bool:
        return False

    @property
    def padding_stays(self) -> bool:
        return True

    def span(self, n_pos: int, n_samples: int) -> RecordingSpan:
        assert self.arch.frames is not None
        first, step = self.arch.frames(self.extractor, self.sizes)
        return RecordingSpan(0, min(n_pos, (n_samples - first) // step + 1), n_pos)

    def read_off(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        state, tower = self.normed(hidden), self.tower
        if tower.adapter is not None:
            state = tower.adapter(state, mask_of(batch, len(hidden)))  # type: ignore[operator]
        return tower.inner_layer_norm(state)  # type: ignore[operator]


class ProbedSeamless(MaskedEnd, ProbedEncoder):
    """See both."""


class Seamless(MaskedEnd, Listener):
    """The speech encoder's blocks of a SeamlessM4TForSpeechToText, or of its second version."""

    probed: ClassVar[type[Encoder]] = ProbedSeamless

    @property
    def by_part(self) -> dict[str, type[Listener]]:
        return {"encoder": Seamless, "decoder": SeamlessDecoder}

    def beside(self, batch: Sequence[Prompted], state: Tensor) -> dict[str, Tensor]:
        """Which of the positions behind the convolutions the library has the decoder read."""
        if (mask := mask_of(batch, len(state))) is None:
            return {}
        kernel, stride = self.config.adaptor_kernel_size, self.config.adaptor_stride
        heard = (mask.sum(1, keepdim=True) + 2 * (kernel // 2) - kernel) // stride + 1
        return {"encoder_attention_mask": (torch.arange(state.shape[1], device=state.device) < heard).to(state.dtype)}


class SeamlessDecoder(ListenerDecoder, Seamless):
    """The text decoder's blocks."""


def mask_of(batch: Sequence[Prompted], rows: int) -> Tensor | None:
    """[rows, pos] which positions of a batch, or of repetitions of it, are heard; None where all are."""
    if "attention_mask" not in batch[0].inputs:
        return None
    mask = torch.cat([prompted.inputs["attention_mask"] for prompted in batch])
    return mask.repeat(rows // len(batch), 1)


def seamless_tokenizer(source: str) -> SeamlessM4TTokenizer:
    """Make the tokenizer of a folder as the library does where sentencepiece is: pieces, then the languages.

    Raises:
        InterpError: a file that is missing or broken, pieces of another kind, or languages at other places than behind
            the pieces.
    """
    folder = Path(source)
    added = _added(folder)
    if not (folder / PIECES).is_file() or not added:
        lacks = PIECES if not (folder / PIECES).is_file() else f"{ADDED}, which holds the languages"
        raise InterpError(f"{source} lacks {lacks}; copy the tokenizer files of the original model into it.")
    pieces = read_pieces(folder / PIECES)
    if pieces.kind != _JOINED:
        raise InterpError(f"{PIECES} in {source} joins no pieces, which is not known of models of this type.")
    vocab = {piece: i for i, piece in enumerate(pieces.scores)}
    ids: dict[str, int] = SeamlessM4TTokenizer.convert_from_spm_model(vocab)["vocab"]
    names = sorted((name for name in added if name not in ids), key=lambda name: added[name])
    words = SeamlessM4TTokenizer(
        vocab=ids,
        merges=generate_merges(vocab),
        additional_special_tokens=[AddedToken(name, special=True, normalized=False) for name in names],
    )
    if moved := [name for name in added if words.convert_tokens_to_ids(name) != added[name]]:
        raise InterpError(
            f"{ADDED} in {source} has {few(moved)} at other places than behind the {len(ids)} pieces of {PIECES}; copy "
            "the tokenizer files of one model into it."
        )
    return words


def _added(folder: Path) -> dict[str, int]:
    """Tokens beside the pieces, by what the folder says of them; {} where it says nothing."""
    if (folder / ADDED).is_file():
        return json.loads((folder / ADDED).read_text("utf-8"))
    about: dict[str, Any] = {}
    if (folder / SETTINGS).is_file():
        about = json.loads((folder / SETTINGS).read_text("utf-8"))
    return {entry["content"]: int(i) for i, entry in about.get("added_tokens_decoder", {}).items()}
