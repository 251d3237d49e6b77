"""The definition of a patch once more, with the library's own forward and plain torch hooks; nothing of ours computes.

Samples are read with soundfile, positions counted from the placeholder ids, every layer is a forward pass of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from interp_core.data.clips import Clip

Change = Callable[[Tensor], Tensor]


class PlainLoop:
    """One model, one prompt, one list of labels."""

    def __init__(self, subject: Any, prompt: str, labels: Sequence[str]) -> None:
        self.hf, self.processor, self.labels = subject.hf, subject.processor, labels
        turn = [{"role": "user", "content": [{"type": "audio", "audio_url": "x"}, {"type": "text", "text": prompt}]}]
        self.text = self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        self.ids = [self.processor.tokenizer(label).input_ids for label in labels]
        assert all(len(ids) == 1 for ids in self.ids)
        self._inputs: dict[str, dict[str, Tensor]] = {}
        self._states: dict[tuple[str, int], Tensor] = {}

    def inputs(self, clip: Clip) -> dict[str, Tensor]:
        if clip.clip_id not in self._inputs:
            samples, rate = soundfile.read(clip.path, dtype="float32")
            made = self.processor(text=self.text, audio=[samples], sampling_rate=rate, return_tensors="pt")
            self._inputs[clip.clip_id] = dict(made)
        return self._inputs[clip.clip_id]

    def span(self, clip: Clip) -> tuple[int, int, int]:
        """First audio position, the one behind the last, and the number of all positions."""
        ids = self.inputs(clip)["input_ids"][0]
        at = (ids == self.hf.config.audio_token_id).nonzero().flatten().tolist()
        return at[0], at[-1] + 1, len(ids)

    @torch.inference_mode()
    def forward(self, clip: Clip, layer: int = 0, change: Change | None = None) -> Tensor:
        """Logits [d_vocab] at the last position; `change` edits the state [pos, d_model] behind block `layer`."""
        block = self.hf.model.language_model.layers[max(layer, 0)]

        def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            assert change is not None
            return (change(args[0][0])[None], *args[1:]), kwargs

        def after(_module: Any, _args: Any, output: Tensor) -> Tensor:
            assert change is not None
            return change(output[0])[None]

        handles = []
        if change is not None:
            handles.append(
                block.register_forward_pre_hook(before, with_kwargs=True)
                if layer == -1
                else block.register_forward_hook(after)
            )
        try:
            return self.hf(**self.inputs(clip), use_cache=False).logits[0, -1].float()
        finally:
            for handle in handles:
                handle.remove()

    def state(self, clip: Clip, layer: int) -> Tensor:
        """[pos, d_model] behind block `layer`, or before the first for -1."""
        key = (clip.clip_id, layer)

        def keep(value: Tensor) -> Tensor:
            self._states[key] = value.clone()
            return value

        if key not in self._states:
            self.forward(clip, layer, keep)
        return self._states[key]

    def patched(self, a: Clip, incoming: Tensor, layer: int, at: Sequence[int], alpha: float = 1.0) -> Tensor:
        """Logits of A with (1 - alpha) of its own and alpha of `incoming` [len(at), d_model] at positions `at`."""

        def mix(own: Tensor) -> Tensor:
            new = own.clone()
            new[list(at)] = (1 - alpha) * own[list(at)] + alpha * incoming
            return new

        return self.forward(a, layer, mix)

    def read(self, logits: Tensor) -> tuple[np.ndarray, float, str]:
        """Label logits, the labels' share of the whole vocabulary's probability, and the first label."""
        flat = [ids[0] for ids in self.ids]
        found = logits[flat].numpy()
        return found, float(logits.softmax(-1)[flat].sum()), self.labels[int(found.argmax())]
