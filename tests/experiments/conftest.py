"""One small corpus under one tiny random model, and one run of it with everything, for the tests of this folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from interp_core.engine import Engine
from interp_core.experiments.patching import PatchingResult
from interp_core.experiments.plan import DEFAULT_PROMPT, PatchSettings
from interp_core.request import PatchRequest, Prepared
from tests.corpus import write_corpus

PROMPTS = (DEFAULT_PROMPT, "Judge the voice.")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="session")
def asked(tiny_folder: Path, corpus: Path) -> PatchRequest:
    """Two prompts, two strengths, every control and every curve over six pairs of either kind."""
    settings = PatchSettings(prompts=PROMPTS, alphas=(1.0, 0.5), batch_size=4)
    return PatchRequest(str(tiny_folder), str(corpus), device="cpu", max_pairs=6, settings=settings)


@pytest.fixture(scope="session")
def ready(engine: Engine, asked: PatchRequest) -> Prepared:
    return engine.prepare(asked)


@pytest.fixture(scope="session")
def result(engine: Engine, asked: PatchRequest, ready: Prepared) -> PatchingResult:
    return engine.patch(asked, prepared=ready)


@pytest.fixture(scope="session")
def plain(asked: PatchRequest) -> PatchRequest:
    """One prompt, one strength, nothing but the matched pairs."""
    return replace(asked, settings=PatchSettings(controls=(), flow=(), checks=False, batch_size=4))
