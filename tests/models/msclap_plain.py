"""An HTS-AT with msclap's names, written from its definition: attention over all tokens of the grid at once.

There are no windows here. Two tokens see each other where they fall into one window of the (rolled) grid and into one
region of it, and their bias is looked up by their distance; the numbers must be those of the windowed code.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        # No weight: msclap keeps it beside the weights, and a reader must not depend on it.
        self.register_buffer("relative_position_index", torch.zeros(window**2, window**2, dtype=torch.long))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, window: int, grid: int, odd: bool):
        super().__init__()
        self.window, self.grid, self.heads = window, grid, heads
        self.shift = window // 2 if odd and grid > window else 0
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads, window), Mlp(width)
        if self.shift:
            self.register_buffer("attn_mask", torch.zeros((grid // window) ** 2, window**2, window**2))

    def sees(self) -> tuple[Tensor, Tensor]:
        """Return which tokens see which, and the row of the table for each pair, both [tokens, tokens]."""
        g, w, s = self.grid, self.window, self.shift
        where = (torch.arange(g) - s) % g  # where a row or column of the grid stands once the grid is rolled
        region = (where >= g - w).long() + (where >= g - s).long() if s else torch.zeros(g, dtype=torch.long)
        r, c = (x.flatten() for x in torch.meshgrid(torch.arange(g), torch.arange(g), indexing="ij"))
        place = (where[r] // w) * g + where[c] // w  # of the window
        part = region[r] * 3 + region[c]
        together = (place[:, None] == place) & (part[:, None] == part)
        down = (where[r] % w)[:, None] - where[r] % w
        across = (where[c] % w)[:, None] - where[c] % w
        return together, (down + w - 1) * (2 * w - 1) + across + w - 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the heads [batch, heads, tokens, d_head] before they are mixed."""
        together, row = self.sees()
        split = self.attn.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + self.attn.relative_position_bias_table[row].permute(
            2, 0, 1
        )
        heads = scores.masked_fill(~together, -torch.inf).softmax(-1) @ v
        x = x + self.attn.proj(heads.transpose(1, 2).flatten(2))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x)))), heads


class Merge(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor, grid: int) -> Tensor:
        x = x.unflatten(1, (grid // 2, 2, grid // 2, 2))  # row, row within, column, column within
        quarters = [x[:, :, i, :, j] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.reduction(self.norm(torch.cat(quarters, -1).flatten(1, 2)))


class Stage(nn.Module):
    def __init__(self, width: int, heads: int, window: int, grid: int, depth: int, last: bool):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, window, grid, bool(i % 2)) for i in range(depth))
        self.grid = grid
        if not last:
            self.downsample = Merge(width)


class Patches(nn.Module):
    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(1, width, patch, patch), nn.LayerNorm(width)


class Named(nn.Module):
    """A container for a weight under a name of two parts."""

    def __init__(self, **parts: nn.Parameter | nn.Module):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class PlainHTSAT(nn.Module):
    def __init__(
        self, *, n_mels=16, picture=64, patch=4, width=8, depths=(2, 2, 2), heads=(1, 2, 4), window=2, n_fft=1024
    ):
        super().__init__()
        self.ratio, self.picture = picture // n_mels, picture
        self.bn0, self.patch_embed = nn.BatchNorm2d(n_mels), Patches(width, patch)
        grid, n = picture // patch, len(depths)
        self.layers = nn.ModuleList(
            Stage(width * 2**i, heads[i], window, grid // 2**i, depths[i], i == n - 1) for i in range(n)
        )
        self.norm = nn.LayerNorm(width * 2 ** (n - 1))
        half = nn.Parameter(torch.rand(n_fft // 2 + 1, 1, n_fft))
        self.spectrogram_extractor = Named(stft=Named(conv_real=Named(weight=half), conv_imag=Named(weight=half)))
        self.logmel_extractor = Named(melW=nn.Parameter(torch.rand(n_fft // 2 + 1, n_mels)))
        self.tscam_conv, self.head = nn.Conv2d(self.norm.normalized_shape[0], 5, (2, 3)), nn.Linear(5, 5)

    def forward(self, picture: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Log-mel [batch, 1, frames, n_mels] to (pooled, output of each stage, heads of each block)."""
        norm = self.bn0
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        x = (picture - norm.running_mean) * scale + norm.bias
        size = (self.picture * self.ratio, self.picture // self.ratio)
        x = nn.functional.interpolate(x, size, mode="bicubic", align_corners=True)
        x = torch.cat([part.transpose(2, 3) for part in x.chunk(self.ratio, 2)], 2)  # later seconds below earlier ones
        x = self.patch_embed.norm(self.patch_embed.proj(x).flatten(2).transpose(1, 2))
        outs, heads = [], []
        for stage in self.layers:
            for block in stage.blocks:
                x, of_block = block(x)
                heads.append(of_block)
            x = stage.downsample(x, stage.grid) if hasattr(stage, "downsample") else x
            outs.append(x)
        return self.norm(x).mean(1), outs, heads


class PlainProjection(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(d_in, d_out, bias=False), nn.Linear(d_out, d_out, bias=False)
        self.layer_norm = nn.LayerNorm(d_out)

    def forward(self, x: Tensor) -> Tensor:
        first = x @ self.linear1.weight.T
        return self.layer_norm(first + nn.functional.gelu(first) @ self.linear2.weight.T)


class PlainCLAP(nn.Module):
    """The names of msclap's CLAP class."""

    def __init__(self, text: str | None, n_tokens: int = 300, d_projection: int = 12, **geometry: Any):
        super().__init__()
        htsat = PlainHTSAT(**geometry)
        width = htsat.norm.normalized_shape[0]
        self.audio_encoder = Named(base=Named(htsat=htsat), projection=PlainProjection(width, d_projection))
        if text is not None:
            sizes = {"vocab_size": n_tokens, "initializer_range": 0.3}
            base = (
                GPT2Model(GPT2Config(n_embd=128, n_layer=2, n_head=2, n_positions=40, **sizes))
                if text == "gpt2"
                else BertModel(
                    BertConfig(
                        hidden_size=128,
                        num_hidden_layers=2,
                        num_attention_heads=2,
                        intermediate_size=64,
                        max_position_embeddings=40,
                        **sizes,
                    )
                )
            )
            self.caption_encoder = Named(base=base, projection=PlainProjection(128, d_projection))
            self.logit_scale = nn.Parameter(torch.tensor(1.5))

    @property
    def htsat(self) -> PlainHTSAT:
        return self.audio_encoder.base.htsat


def random_clap(text: str | None = "gpt2", seed: int = 0, **geometry: Any) -> PlainCLAP:
    """Every weight, bias, norm and statistic random, so that one in the wrong place shows."""
    torch.manual_seed(seed)
    clap = PlainCLAP(text, **geometry).eval()
    with torch.no_grad():
        for name, weight in clap.named_parameters():
            if "caption_encoder.base" not in name and name != "logit_scale" and "melW" not in name:
                weight.copy_(torch.randn(weight.shape) * (0.3 if weight.ndim > 1 else 0.2) + float(_is_norm(name)))
        norm = clap.htsat.bn0
        norm.running_mean.copy_(torch.randn(norm.running_mean.shape) - 30)  # dB
        norm.running_var.copy_(100 + 50 * torch.rand(norm.running_var.shape))
    return clap


def _is_norm(name: str) -> bool:
    return name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "bn0.weight"))


def save_clap(file: Path, clap: PlainCLAP, prefix: str = "", **changes: Tensor | None) -> Path:
    """Write a weight file as msclap's are: the state dict under `model`. A change of None leaves a weight out."""
    state = {**clap.state_dict(), **changes}
    torch.save({"model": {prefix + name: value for name, value in state.items() if value is not None}}, file)
    return file
