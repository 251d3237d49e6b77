"""GLM-4-Voice's speech tokenizer (`glm-4-voice-tokenizer`): from sound to codes, 12.5 a second.

The lower layers of a Whisper encoder whose convolutions see nothing that comes later and whose attention sees its own
block of frames and all before it; frames are pooled, and each pooled state becomes the number of the nearest vector of
a codebook. What comes behind the codebook is of the tokenizer's training alone.

Source: github.com/THUDM/GLM-4-Voice (commit eb00ce9): speech_tokenizer/modeling_whisper.py (WhisperVQEncoder,
vector_quantize), configuration_whisper.py, utils.py (which weights are read, which codes are of padding).
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from interp_core.errors import InterpError

NOT_READ = r"ema_count$|ema_weight$|embed_positions2\.weight$"
"""Weights of its training, and the positions that its training adds to the quantised states."""
CONV_STRIDE = 2
"""Mel frames of one frame of the encoder."""


class GlmSpeechTokenizer(nn.Module):
    """From log-mel frames to codes; its weights have to stay in float32, as a rounded state may be nearest to another
    vector of the codebook."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        config._attn_implementation = "sdpa"  # the library chooses one for whole models alone
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=CONV_STRIDE)
        self.embed_positions = nn.Embedding(config.max_source_positions, config.d_model)
        self.layers = nn.ModuleList(WhisperEncoderLayer(config) for _ in range(config.quantize_position))
        self.codebook = nn.Embedding(config.quantize_vocab_size, config.d_model)

    def forward(self, mel: Tensor, heard: Tensor) -> Tensor:
        """The codes of each piece of sound, those of padding included.

        Args:
            mel: [pieces, mel bands, frames] log-mel frames, as many as fill whole codes.
            heard: [pieces, frames] 1 on the frames that hold sound.
        Returns:
            [pieces, frames // (2 * pooling)] numbers of the codebook's vectors.
        Raises:
            InterpError: states or vectors that are NaN or infinite, which are near to nothing.
        """
        config, pool = self.config, self.config.pooling_kernel_size
        edge = (2, 0) if config.encoder_causal_convolution else (1, 1)
        x = mel
        for conv in (self.conv1, self.conv2):
            x = nn.functional.gelu(conv(nn.functional.pad(x, edge)))
        x = x.transpose(1, 2)  # [pieces, encoder frames, d_encoder]
        hidden = x + self.embed_positions(torch.arange(x.shape[1], device=x.device))
        heard, block = heard[:, ::CONV_STRIDE].bool(), config.quantize_causal_block_size
        seen = _added(hidden, heard, block)
        for number, layer in enumerate(self.layers, 1):
            hidden = layer(hidden, seen)
            if number == config.pooling_position:
                pieces = hidden.unflatten(1, (-1, pool))
                hidden = pieces.mean(2) if config.pooling_type == "avg" else pieces.amax(2)
                seen = _added(hidden, heard[:, ::pool], block and block // pool)
        # By a call of the module: weights that were put off to memory or disk are there during one alone.
        vectors = self.codebook(torch.arange(config.quantize_vocab_size, device=hidden.device))
        distances = hidden.pow(2).sum(-1, keepdim=True) + vectors.pow(2).sum(-1) - 2 * hidden @ vectors.T
        if not distances.isfinite().all():  # argmin takes NaN for the least of all
            raise InterpError(
                "the states or the codebook of GLM-4-Voice's tokenizer become NaN or infinite, so no code is the "
                "nearest; its weights are damaged, fetch them again."
            )
        return distances.argmin(-1)


def _added(hidden: Tensor, heard: Tensor, block: int | None) -> Tensor:
    """What is added to the attention's scores, [pieces, 1, 1 or frames, frames]: least where a frame is padding, or of
    a later block than the one that looks."""
    seen = heard[:, None, None]
    if block:
        of_block = torch.arange(hidden.shape[1], device=hidden.device) // block
        seen = seen & (of_block[:, None] >= of_block)
    return torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(~seen, torch.finfo(hidden.dtype).min)
