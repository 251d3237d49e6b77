"""Weight files of msclap (Microsoft's CLAP), opened as the transformers model of the same audio encoder.

A file holds the state dict of the whole model under `model`: an HTS-AT, a text tower, a projection of each, and the
scale of their cosine. The HTS-AT is transformers' ClapAudioModel under other names, and is opened as that, so its
stages, blocks and heads are at the same places as in any CLAP folder. The 2022 weights have a plain convolutional
audio encoder instead and are refused.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    ClapAudioConfig,
    ClapAudioModel,
    GPT2Config,
    GPT2Model,
)
from transformers.initialization import no_init_weights

from interp_core.errors import InterpError
from interp_core.models.clap.msclap_audio import FrontEnd, msclap_features
from interp_core.models.torch_file import file_hash, is_state, left_over, read_weight_file, some, unlike

__all__ = ["FrontEnd", "Msclap", "MsclapProjection", "audio_names", "msclap_features", "open_msclap"]

HTSAT = "audio_encoder.base.htsat."
TEXT = "caption_encoder.base."
RENAMES = (
    (r"^bn0\.", "batch_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
NOT_NEEDED = re.compile(
    r"^(spectrogram_extractor|logmel_extractor|tscam_conv|head)\.|\.(attn_mask|relative_position_index)$"
)
"""The front end, the classifier of the pretraining, and what follows from a window's size and is made anew."""
NOT_NEEDED_OF_TEXT = re.compile(r"\.attn\.(bias|masked_bias)$|^embeddings\.position_ids$|^pooler\.")
"""What old versions of the library saved among a text tower's weights, and BERT's pooler, which msclap does not use."""
HEAD_WIDTH = 64  # of every GPT-2 and BERT; weights do not show it


class MsclapProjection(nn.Module):
    """From a tower's state [batch, d_in] to the space that both share [batch, d_out]."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_in, d_out, bias=False)
        self.linear2 = nn.Linear(d_out, d_out, bias=False)
        self.layer_norm = nn.LayerNorm(d_out)

    def forward(self, state: Tensor) -> Tensor:
        first = self.linear1(state)
        return self.layer_norm(first + self.linear2(nn.functional.gelu(first)))


class Msclap(nn.Module):
    """An opened weight file; its parts are called as in transformers' ClapModel.

    Attributes:
        audio_model: the HTS-AT.
        audio_projection: its pooled output [batch, d_model] to [batch, 1024].
        text_model: the text tower; None where the file has none that can be opened.
        text_projection: with the text tower.
        logit_scale_a: log of what a cosine is multiplied by.
        tokenizer: None where no folder was given.
        front_end: settings for `msclap_features`, with the filters of the file.
        weights_hash: sha256 of the file, in hex.
        text_refusal: why there is no zero-shot readout, or None.
    """

    def __init__(self, audio: ClapAudioModel, d_projection: int, text: GPT2Model | BertModel | None) -> None:
        super().__init__()
        self.audio_model = audio
        self.audio_projection = MsclapProjection(audio.config.hidden_size, d_projection)
        self.text_model = text
        self.text_projection = None if text is None else MsclapProjection(text.config.hidden_size, d_projection)
        self.logit_scale_a = None if text is None else nn.Parameter(torch.zeros(()))
        self.front_end = FrontEnd()
        self.tokenizer: Any = None
        self.weights_hash = ""
        self.text_refusal: str | None = None

    @property
    def config(self) -> ClapAudioConfig:
        return self.audio_model.config

    def audio_embeds(self, input_features: Tensor) -> Tensor:
        """Embed pictures [batch, 1, frames, n_mels]: [batch, 1024], of no set length.

        Raises:
            InterpError: other filters than the model's, or more frames than it hears at once.
        """
        most = self.config.spec_size**2 // self.config.num_mel_bins
        if (
            input_features.ndim != 4
            or input_features.shape[3] != self.config.num_mel_bins
            or input_features.shape[2] > most
        ):
            raise InterpError(
                f"the picture is {tuple(input_features.shape)}; expected [batch, 1, frames, "
                f"{self.config.num_mel_bins}] with at most {most} frames, as msclap_features makes it."
            )
        return self.audio_projection(self.audio_model(input_features).pooler_output)

    def text_embeds(self, texts: Sequence[str]) -> Tensor:
        """Embed whole texts, such as "this is the sound of a dog": [n_texts, 1024], of no set length.

        Raises:
            InterpError: no text tower, no tokenizer, no text, or one longer than the tower's positions.
        """
        if self.text_refusal is not None:
            raise InterpError(self.text_refusal)
        assert self.text_model is not None and self.text_projection is not None
        if not texts or not all(text.strip() for text in texts):
            raise InterpError(f"texts {list(texts)!r} must be one or more, none of them empty.")
        gpt = isinstance(self.text_model, GPT2Model)
        made = self.tokenizer([f"{text} <|endoftext|>" if gpt else text for text in texts], padding=True)
        longest = max(map(len, made["input_ids"]))
        if longest > self.text_model.config.max_position_embeddings:
            raise InterpError(
                f"a text is {longest} tokens long, the text tower takes "
                f"{self.text_model.config.max_position_embeddings}; shorten it."
            )
        device = next(self.parameters()).device
        inputs = {name: torch.tensor(ids, device=device) for name, ids in made.items()}
        states = self.text_model(**inputs).last_hidden_state  # [n_texts, pos, d]
        # GPT-2 pads with "!", token 0, and msclap counts tokens other than 0, wherever they stand.
        rows = torch.arange(len(states), device=device)
        at = (inputs["input_ids"] != 0).sum(-1) - 1 if gpt else torch.zeros_like(rows)
        return self.text_projection(states[rows, at])

    def logits(self, audio_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        """Scaled cosines [batch, n_texts] of audio embeddings [batch, 1024] and text embeddings [n_texts, 1024]."""
        assert self.logit_scale_a is not None, "text embeddings come from text_embeds, which refuses without a tower"
        unit = nn.functional.normalize
        return self.logit_scale_a.exp() * unit(audio_embeds, dim=-1) @ unit(text_embeds, dim=-1).T

    def forward(self, input_features: Tensor, text_embeds: Tensor) -> Tensor:
        return self.logits(self.audio_embeds(input_features), text_embeds)


def open_msclap(path: Path | str, tokenizer: Path | str | None = None) -> Msclap:
    """Open a weight file.

    Args:
        path: such as CLAP_weights_2023.pth or clapcap_weights_2023.pth.
        tokenizer: folder with the tokenizer of the text tower (GPT-2's for the 2023 weights); the file has none.
    Returns:
        The model in eval mode, float32, without gradients; geometry is read off the weights' shapes.
    Raises:
        InterpError: no such file, another model's, weights missing or left over, or a tokenizer that is not the
            text tower's.
    """
    file = Path(path).expanduser()
    state = _state(read_weight_file(file), file)
    audio = _audio_model(_below(state, HTSAT), file)
    projection = _below(state, "audio_encoder.projection.")
    if "linear1.weight" not in projection:
        raise InterpError(f"{file} lacks audio_encoder.projection.linear1.weight; fetch the file again.")
    text, refusal = _text_model(_below(state, TEXT), file)
    model = Msclap(audio, len(projection["linear1.weight"]), text)
    _fill(model.audio_projection, projection, file, "audio_encoder.projection.")
    if text is not None:
        assert model.text_projection is not None and model.logit_scale_a is not None
        _fill(model.text_projection, _below(state, "caption_encoder.projection."), file, "caption_encoder.projection.")
        if "logit_scale" not in state:
            raise InterpError(f"{file} lacks logit_scale; fetch the file again.")
        model.logit_scale_a.data.copy_(state["logit_scale"])
        if tokenizer is None:
            refusal = (
                f"{file.name} has no tokenizer in it, so texts cannot be read; give the folder of the "
                f"{'GPT-2' if isinstance(text, GPT2Model) else 'BERT'} tokenizer that it was trained with."
            )
        else:
            model.tokenizer = _tokenizer(tokenizer, text)
    model.text_refusal = refusal
    filters = state.get(HTSAT + "logmel_extractor.melW")
    if filters is not None:  # whatever its settings said, this is what the weights were trained on
        model.front_end = FrontEnd(
            n_fft=2 * (len(filters) - 1), n_mels=filters.shape[1], filters=filters.detach().clone()
        )
    else:
        model.front_end = FrontEnd(n_mels=audio.config.num_mel_bins)
    model.weights_hash = file_hash(file)
    return model.float().eval().requires_grad_(False)


def _state(saved: Any, file: Path) -> dict[str, Tensor]:
    """Return the state dict with names as in msclap's CLAP class, whatever wraps that class."""
    state = saved.get("model", saved) if isinstance(saved, dict) else saved
    if not is_state(state):
        kind = some(map(str, saved)) if isinstance(saved, dict) else f"a {type(saved).__name__}"
        raise InterpError(f"{file} holds {kind}; expected an msclap weight file, whose state dict is under 'model'.")
    mark = HTSAT + "patch_embed.proj.weight"
    found = next((name for name in state if name.endswith(mark)), None)
    if found is None:
        if any("audio_encoder.base.conv_block1." in name for name in state):
            raise InterpError(
                f"{file} holds a Cnn14, the convolutional audio encoder of the 2022 weights, which has no blocks and "
                "no heads; use the 2023 weights, whose audio encoder is an HTS-AT."
            )
        raise InterpError(f"{file} holds {some(state)}, and no {mark}; expected an msclap weight file.")
    return _below(state, found.removesuffix(mark))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def audio_names(name: str) -> tuple[str, ...]:
    """Return what ClapAudioModel calls a weight of msclap's HTS-AT: three names for `qkv`, none for what it lacks."""
    if NOT_NEEDED.search(name):
        return ()
    for old, new in RENAMES:
        name = re.sub(old, new, name)
    name = "audio_encoder." + name
    if ".qkv." in name:
        return tuple(name.replace(".qkv.", f".{part}.") for part in ("query", "key", "value"))
    return (name,)


def _audio_model(htsat: Mapping[str, Tensor], file: Path) -> ClapAudioModel:
    config = _audio_config(htsat, file)
    with no_init_weights():
        audio = ClapAudioModel(config)
    weights: dict[str, Tensor] = {}
    for name, value in htsat.items():
        ours = audio_names(name)
        weights |= dict(zip(ours, value.chunk(3) if len(ours) == 3 else [value] * len(ours), strict=True))
    _fill(audio, weights, file, HTSAT, may_lack=("relative_position_index", "num_batches_tracked"))
    return audio


def _audio_config(htsat: Mapping[str, Tensor], file: Path) -> ClapAudioConfig:
    """Read the geometry off the shapes."""
    depths: list[int] = []
    heads: list[int] = []
    while f"layers.{len(depths)}.blocks.0.attn.relative_position_bias_table" in htsat:
        front = f"layers.{len(depths)}.blocks"
        depths.append(len({name.split(".")[3] for name in htsat if name.startswith(front + ".")}))
        heads.append(htsat[f"{front}.0.attn.relative_position_bias_table"].shape[1])
    needed = ("bn0.weight", "patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight")
    if not depths or (lacking := [name for name in needed if name not in htsat]):
        raise InterpError(f"{file} lacks {HTSAT}{(lacking if depths else needed)[0]}; fetch the file again.")
    patches = htsat["patch_embed.proj.weight"]
    width, patch, n_mels = len(patches), patches.shape[-1], len(htsat["bn0.weight"])
    tables = {len(value) for name, value in htsat.items() if name.endswith("relative_position_bias_table")}
    window = (round(min(tables) ** 0.5) + 1) // 2
    if len(tables) > 1 or (2 * window - 1) ** 2 != min(tables):
        raise InterpError(f"{file} has windows of {len(tables)} sizes; transformers' CLAP takes one size, square.")
    # A shifted block's mask [windows, ...] shows its stage's grid; the 2023 weights have a picture of 4 times n_mels.
    masks = {int(name.split(".")[1]): len(value) for name, value in htsat.items() if name.endswith(".attn_mask")}
    stage = min(masks, default=0)
    side = round(masks[stage] ** 0.5) * window * patch * 2**stage if masks else 4 * n_mels
    mlp = htsat.get("layers.0.blocks.0.mlp.fc1.weight")
    return ClapAudioConfig(
        depths=depths,
        num_attention_heads=heads,
        patch_embeds_hidden_size=width,
        hidden_size=width * 2 ** (len(depths) - 1),
        window_size=window,
        spec_size=side,
        num_mel_bins=n_mels,
        patch_size=patch,
        patch_stride=[patch, patch],
        patch_embed_input_channels=patches.shape[1],
        enable_patch_layer_norm="patch_embed.norm.weight" in htsat,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in htsat,
        mlp_ratio=4.0 if mlp is None else len(mlp) / width,
    )


def _text_model(text: dict[str, Tensor], file: Path) -> tuple[GPT2Model | BertModel | None, str | None]:
    """Build the text tower; where that cannot be done, say why."""
    text = {name: value for name, value in text.items() if not NOT_NEEDED_OF_TEXT.search(name)}
    built: GPT2Model | BertModel
    if "wte.weight" in text:
        n_tokens, width = text["wte.weight"].shape
        inner = text.get("h.0.mlp.c_fc.weight")
        gpt2 = GPT2Config(
            vocab_size=n_tokens,
            n_positions=len(text.get("wpe.weight", ())),
            n_embd=width,
            n_layer=len({name.split(".")[1] for name in text if name.startswith("h.")}),
            n_head=max(1, width // HEAD_WIDTH),
            n_inner=None if inner is None else inner.shape[1],
            bos_token_id=None,
            eos_token_id=None,
        )
        with no_init_weights():
            built = GPT2Model(gpt2)
    elif (
        "embeddings.word_embeddings.weight" in text and len(text.get("embeddings.token_type_embeddings.weight", ())) > 1
    ):
        n_tokens, width = text["embeddings.word_embeddings.weight"].shape
        dense = text.get("encoder.layer.0.intermediate.dense.weight", ())
        bert = BertConfig(
            vocab_size=n_tokens,
            hidden_size=width,
            num_hidden_layers=len({name.split(".")[2] for name in text if name.startswith("encoder.layer.")}),
            num_attention_heads=max(1, width // HEAD_WIDTH),
            intermediate_size=len(dense) or 4 * width,
            max_position_embeddings=len(text.get("embeddings.position_embeddings.weight", ())),
            type_vocab_size=len(text["embeddings.token_type_embeddings.weight"]),
        )
        with no_init_weights():
            built = BertModel(bert, add_pooling_layer=False)
    else:
        what = f"one that is neither GPT-2 nor BERT ({some(text, 2)})" if text else "none"
        return None, f"{file.name}'s text tower: {what}; without it there is no answer to texts, only an embedding."
    _fill(built, text, file, TEXT)
    return built, None


def _tokenizer(folder: Path | str, text: GPT2Model | BertModel) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(Path(folder).expanduser()), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InterpError(f"{folder} holds no tokenizer that can be read ({reason}).") from error
    if isinstance(text, GPT2Model):
        if tokenizer.convert_tokens_to_ids("!") != 0 or len(tokenizer("<|endoftext|>")["input_ids"]) != 1:
            raise InterpError(f"{folder} does not hold GPT-2's tokenizer, in which '!' is token 0; give that one.")
        tokenizer.add_special_tokens({"pad_token": "!"})
        tokenizer.padding_side = "right"
    if len(tokenizer) > text.config.vocab_size:
        raise InterpError(
            f"{folder}'s tokenizer has {len(tokenizer)} tokens, the text tower knows {text.config.vocab_size}; give "
            "the tokenizer that it was trained with."
        )
    return tokenizer


def _fill(
    module: nn.Module, weights: Mapping[str, Tensor], file: Path, where: str, may_lack: Sequence[str] = ()
) -> None:
    """Load weights into a module; InterpError names what is missing, left over or of another shape."""
    held = module.state_dict()
    if faults := left_over(weights, held, may_lack):
        raise InterpError(f"{file} {faults} (names as transformers', in the place of {where}*).")
    if wrong := unlike(weights, held):
        raise InterpError(f"{file} holds {wrong} (names as transformers', in the place of {where}*).")
    module.load_state_dict(weights, strict=False)
