"""A hub id: found in the library's cache without a network, refused in one sentence where it is not there."""

import shutil
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from interp_core.errors import InterpError
from interp_core.models import hub
from interp_core.models.load import open_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_a_hub_id_opens_from_the_cache_as_its_folder_does(cache: Path, tiny_folder: Path) -> None:
    repo = cache / "models--owner--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tiny_folder, repo / "snapshots" / ("0" * 40))
    subject = open_model("owner/tiny", device="cpu")
    assert subject.name == "owner/tiny" and subject.weights_hash == open_model(str(tiny_folder)).weights_hash


def test_a_hub_id_that_is_nowhere_is_one_sentence(cache: Path) -> None:
    with pytest.raises(InterpError) as error:
        open_model("owner/other", device="cpu")
    said = str(error.value)
    assert said.startswith("owner/other cannot be opened: the hub cannot be reached and its cache holds no copy.")
    assert "log" in said and "give a folder" in said and "\n" not in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError, "owner/other is gated: accept its terms on the hub and log in"),
        (RepositoryNotFoundError, "the hub has no model owner/other, or none that you may see"),
        (ConnectionError, "owner/other cannot be opened: fetching it from the hub failed"),
    ],
)
def test_what_the_hub_answers_is_told_in_words(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error.__new__(error)

    monkeypatch.setattr(hub, "_reachable", lambda: True)
    monkeypatch.setattr(hub.HfApi, "list_repo_files", refuse)
    with pytest.raises(InterpError, match=words):
        hub.fetched("owner/other")


def test_only_one_kind_of_weights_is_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(hub, "_reachable", lambda: True)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, allow_patterns, **__: asked.append(allow_patterns) or "x")
    for files, kept, left in (
        (["a.safetensors", "a.bin"], "*.safetensors", "*.bin"),
        (["a.bin", "config.json"], "*.bin", "*.safetensors"),
    ):
        monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda *_, files=files, **__: files)
        hub.fetched("owner/other")
        assert kept in asked[-1] and left not in asked[-1] and "*.json" in asked[-1]
