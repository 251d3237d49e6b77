"""How an audio LLM writes: the prompt from stems that are kept, then a token at a time behind its keys and values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from interp_core.models.prompted import Prompted

if TYPE_CHECKING:
    from interp_core.models.audio_llms.subject import AudioLLM


class AudioLLMWriter:
    """See `Writer`."""

    each_step = True

    def __init__(self, subject: "AudioLLM", batch: Sequence[Prompted]) -> None:
        self._subject, self._batch = subject, batch
        self._cache = DynamicCache(config=subject.sizes)
        self._n_pos = batch[0].n_pos
        self.most = subject.sizes.max_position_embeddings - self._n_pos

    @property
    def hf(self) -> Any:
        return self._subject.writes_with

    @property
    def asked(self) -> dict[str, Any]:
        return self._subject.asked_of(self._batch)

    def first(self) -> Tensor:
        return self._subject.run_blocks(self._batch, past_key_values=self._cache, use_cache=True)

    def step(self, tokens: Tensor) -> Tensor:
        subject, at = self._subject, self._n_pos
        self._n_pos += 1
        rows = len(tokens)
        out = subject.decoder(
            inputs_embeds=subject.hf.get_input_embeddings()(tokens[:, None]),
            attention_mask=torch.ones(rows, self._n_pos, dtype=torch.long, device=tokens.device),
            position_ids=torch.full((rows, 1), at, device=tokens.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        return subject.logits_of(out.last_hidden_state[:, -1])
