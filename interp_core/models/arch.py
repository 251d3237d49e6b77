"""Where things are in each supported model type: a table, one row a type, no classes.

A path is a dotted name below the loaded Hugging Face model, or below one block where the column says so.
A new model type whose forward is "stem, blocks, readout" needs one row here and nothing else.
"""

from dataclasses import dataclass
from typing import Any, Literal

from interp_core.errors import InterpError
from interp_core.sites import Kind

Side = Literal["input", "output"]


@dataclass(frozen=True)
class Arch:
    """One row: the paths and facts that differ between model types."""

    blocks: str
    """The ModuleList of blocks."""
    decoder: str
    """The module that runs the blocks and takes `inputs_embeds`; its call is where the stem ends."""
    norm: str
    """The final norm between the last block and the head."""
    head: str
    """The projection to the vocabulary."""
    rotary: str
    """The module that makes `position_embeddings` out of position ids."""
    text_config: str
    """Where the sizes of the blocks stand in the config."""
    audio_token_id: str
    """The config field that holds the id of the audio placeholder token."""
    attn: str = "self_attn"
    """Below a block: the attention; its output is what attention adds to the residual stream."""
    attn_proj: str = "self_attn.o_proj"
    """Below a block: the output projection, whose input is the heads side by side."""
    mlp: str = "mlp"
    mlp_proj: str = "mlp.down_proj"
    causal: bool = True


ARCHS: dict[str, Arch] = {
    "qwen2_audio": Arch(
        blocks="model.language_model.layers",
        decoder="model.language_model",
        norm="model.language_model.norm",
        head="lm_head",
        rotary="model.language_model.rotary_emb",
        text_config="text_config",
        audio_token_id="audio_token_id",
    ),
}

# A head's output is the projection's input, before the heads mix; a neuron is the down-projection's input.
SITE_MODULES: dict[Kind, tuple[str | None, Side]] = {
    "resid_pre": (None, "input"),
    "resid_post": (None, "output"),
    "attn_out": ("attn", "output"),
    "head_out": ("attn_proj", "input"),
    "mlp_out": ("mlp", "output"),
    "mlp_act": ("mlp_proj", "input"),
}


def arch_of(config: Any) -> Arch:
    """Return the row of a Hugging Face config's model type; InterpError when the table has none."""
    row = ARCHS.get(config.model_type)
    if row is None:
        known = ", ".join(sorted(ARCHS))
        raise InterpError(f"no row for model_type={config.model_type!r} in arch.ARCHS (known: {known}); add one there.")
    return row
