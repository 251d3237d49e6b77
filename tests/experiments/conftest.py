"""One small corpus under one tiny random model, and one run of it with everything, for the tests of this folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from interp_core.choices import DEFAULT_PROMPT
from interp_core.engine import Engine
from interp_core.experiments.experiment import Ready, run
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.plan import Plan
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.result import PatchingResult
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
    given = PatchRequest(
        str(tiny_folder), str(corpus), device="cpu", max_pairs=6, prompts=PROMPTS, alphas=(1.0, 0.5), batch_size=4
    )
    return given.filled()


@pytest.fixture(scope="session")
def ready(engine: Engine, asked: PatchRequest) -> Ready[PatchRequest, Plan]:
    return PATCHING.prepare(engine, asked)


@pytest.fixture(scope="session")
def result(engine: Engine, asked: PatchRequest, ready: Ready[PatchRequest, Plan]) -> PatchingResult:
    return run(PATCHING, engine, asked, ready=ready)


@pytest.fixture(scope="session")
def plain(asked: PatchRequest) -> PatchRequest:
    """One prompt, one strength, nothing but the matched pairs."""
    return replace(asked, prompts=PROMPTS[:1], alphas=(1.0,), controls=(), flow=(), checks=False)
