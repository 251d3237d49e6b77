"""Tiny random models of the real classes, each built once a session, and clean runs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # torch and the library take seconds to import, which tests of plain data need not wait for
    from interp_core.models.audio_llms.subject import AudioLLM

Build = Callable[..., "AudioLLM"]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `open_model` opens; read only, tests that break one write their own."""
    from tests.tiny import save_qwen2_audio

    return save_qwen2_audio(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Open a tiny model: build(attention="eager", dtype="float64", n_layers=..., ...); equal calls share one.

    Float64 is no dtype that a user can ask for: such a model is opened in float32 and made double, which leaves the
    library's float32 rotary angles as they are.
    """
    import torch

    from interp_core.models.audio_llms.subject import AudioLLM
    from interp_core.models.load import open_model
    from tests.tiny import save_qwen2_audio

    torch.set_num_threads(1)  # matrices this small only lose by being shared out
    built: dict[tuple[Any, ...], AudioLLM] = {}

    def opened(*, attention: str = "sdpa", dtype: str = "float32", **config: Any) -> AudioLLM:
        key = (attention, dtype, repr(sorted(config.items())))
        if key not in built:
            folder = save_qwen2_audio(tmp_path_factory.mktemp("tiny") / "model", **config)
            double = dtype == "float64"
            subject = open_model(str(folder), device="cpu", dtype="float32" if double else dtype)
            assert isinstance(subject, AudioLLM)
            subject.hf.set_attn_implementation(attention)
            if double:
                subject.hf.double()
            built[key] = subject
        return built[key]

    yield opened
    for subject in built.values():
        assert our_hooks(subject) == [], "a test left a hook behind"


@pytest.fixture(scope="session")
def tiny(build: Build) -> AudioLLM:
    """The model that most tests share: 5 layers, 4 heads on 2 key-value heads, sdpa, float32."""
    return build()


def our_hooks(subject: AudioLLM) -> list[str]:
    """Return the modules that carry a hook of ours (the library installs some of its own and keeps them)."""
    return [
        name
        for name, module in subject.hf.named_modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if hook.__module__ == "interp_core.trace.hooks"
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests come first: a long one that comes last leaves the other processes idle."""
    slow: dict[Path, int] = {}
    for item in items:
        slow[item.path] = slow.get(item.path, 0) + (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.path])
