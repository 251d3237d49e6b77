"""Audio LLMs: an audio tower whose output stands at placeholder tokens inside a decoder's prompt."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.subject import Subject


@dataclass(eq=False)
class AudioLLM(Subject):
    """A subject whose prompts hold text and one clip; its readout is the first answer token."""

    processor: Any = field(default=None, repr=False)

    @property
    def sample_rate(self) -> int:
        return self.processor.feature_extractor.sampling_rate

    @property
    def max_seconds(self) -> float:
        extractor = self.processor.feature_extractor
        return extractor.n_samples / extractor.sampling_rate

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def audio_token_id(self) -> int:
        return getattr(self.hf.config, self.arch.audio_token_id)

    def seconds_per_position(self) -> float:
        extractor = self.processor.feature_extractor
        # The tower halves the mel frames twice: a strided convolution and an average pooling.
        return 4 * extractor.hop_length / extractor.sampling_rate

    def chat_text(self, prompt: str) -> str:
        """Render the prompt around one audio placeholder, as far as the place where the answer starts."""
        turn = {"role": "user", "content": [{"type": "audio", "audio_url": ""}, {"type": "text", "text": prompt}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        inputs = self.processor(
            text=self.chat_text(prompt), audio=[samples], sampling_rate=self.sample_rate, return_tensors="pt"
        )
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        return {name: value.to(self.dtype) if value.is_floating_point() else value for name, value in moved.items()}

    def audio_span(self, token_ids: Tensor, clip_id: str) -> tuple[int, int]:
        at = (token_ids == self.audio_token_id).nonzero().flatten().tolist()
        if not at:
            raise InterpError(
                f"clip {clip_id!r} has no audio position: the prompt needs one audio marker, and the clip must be "
                "long enough to give a token."
            )
        breaks = [i for i in range(1, len(at)) if at[i] != at[i - 1] + 1]
        if breaks:
            starts, ends = [0, *breaks], [*breaks, len(at)]
            spans = " and ".join(f"{at[s]}-{at[e - 1]}" for s, e in zip(starts, ends, strict=True))
            raise InterpError(
                f"clip {clip_id!r} has {len(starts)} audio spans (positions {spans}); Patchbay patches exactly one, "
                "so keep one audio marker in the prompt."
            )
        return at[0], at[-1] + 1

    def shortcut_refusal(self) -> str | None:
        config = self.text_config
        odd = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
        if odd:
            return f"some layers use {', '.join(sorted(odd))}, whose cached keys depend on more than the position"
        if getattr(config, "num_kv_shared_layers", 0):
            return "keys and values are shared across layers"
        if config._attn_implementation not in ("sdpa", "eager"):
            return f"attention kernel {config._attn_implementation!r} takes no explicit mask"
        return super().shortcut_refusal()


def check_prompt(subject: AudioLLM, prompt: str) -> None:
    """Refuse a prompt that would not give exactly one audio span, before anything runs."""
    token = subject.processor.audio_token
    count = subject.chat_text(prompt).count(token)
    if not prompt.strip():
        raise InterpError("the prompt is empty; write the question that the model is to answer.")
    if count != 1:
        raise InterpError(
            f"the prompt {prompt[:60]!r} gives {count} audio spans; Patchbay patches exactly one, "
            f"so leave {token} out of the prompt (it is added for you)."
        )


def describe_tokens(subject: AudioLLM, token_ids: Tensor, span: tuple[int, int]) -> dict[str, Any]:
    """Return the audio span with the tokens around it, in a form that a person can check."""
    start, stop = span
    words = subject.tokenizer.convert_ids_to_tokens(token_ids.tolist())
    return {
        "n_pos": len(words),
        "audio_start": start,
        "audio_stop": stop,
        "audio_positions": stop - start,
        "audio_seconds": round((stop - start) * subject.seconds_per_position(), 3),
        "tokens_before": words[max(0, start - 6) : start],
        "tokens_in_span": sorted(set(words[start:stop])),
        "tokens_after": words[stop : stop + 6],
        "readout_position": len(words) - 1,
        "readout_token": words[-1],
    }


def expanded_ids(subject: AudioLLM, inputs: dict[str, Tensor], embeds: Tensor) -> Tensor:
    """Return the token ids [pos] after expansion, also where the model itself expands one placeholder.

    Some processors leave a single placeholder that the model expands inside; then the sequence that the blocks
    see is longer than `input_ids`, and the audio stands at the placeholder's place, that much longer.
    """
    ids = inputs["input_ids"][0]
    extra = embeds.shape[0] - ids.shape[0]
    if extra == 0:
        return ids
    at = (ids == subject.audio_token_id).nonzero().flatten()
    if extra < 0 or len(at) != 1:
        raise InterpError(
            f"{subject.name} made {embeds.shape[0]} positions out of {ids.shape[0]} tokens with {len(at)} audio "
            "markers; Patchbay can follow the expansion of one marker only."
        )
    i = int(at[0])
    return torch.cat([ids[:i], ids[i].expand(extra + 1), ids[i + 1 :]])
