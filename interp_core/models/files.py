"""Which files of a model decide its numbers, and what they hold: weights, settings, processor, tokenizer."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download

from interp_core.digests import digest_or_none
from interp_core.errors import InterpError
from interp_core.models.adapters import is_alone, with_base
from interp_core.models.bases import bases_of
from interp_core.models.inside import OF_ADAPTERS, OF_TRAINING, SETTINGS, adapter_files, check_whole, own_adapter
from interp_core.models.source import resolve
from interp_core.models.weight_files import weight_file_of

ENDINGS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".json", ".txt", ".jinja", ".model", ".tiktoken"}
)
BELOW = ("audio", "checkpoints", "tokenizer")
"""Folders inside a model's that hold parts of it, beside the adapters that its type is made with."""
PAPERS = ("readme", "license", "notice")


OF_THE_ADAPTER = "adapter/"
"""Before the names of the files of an adapter that is merged into the model."""


def deciding_files(name: str, adapter: str = "") -> dict[str, str]:
    """File -> SHA-256 of all that decides the numbers of a model, as it is on this machine now.

    Args:
        name, adapter: as `open_model` takes them.
    Returns:
        By the path below the model's folder; {} where nothing is there (yet), such as a hub id that was never fetched.
    """
    try:
        source = Path(resolve(name))
        if not source.exists():
            source = Path(snapshot_download(name, local_files_only=True))
        source = weight_file_of(str(source)) or source
        base, folder = with_base(name, str(source), adapter)
        source = Path(base)
    except (InterpError, OSError, ValueError):
        return {}
    root = source.parent if source.is_file() else source
    found = {path.relative_to(root).as_posix(): digest_or_none(path) for path in _files(source)}
    merged = [] if folder is None else adapter_files(folder)
    found |= {f"{OF_THE_ADAPTER}{path.name}": digest_or_none(path) for path in merged}
    for entry, part in bases_of(name, root).items():
        found |= {f"{entry}/{path.name}": digest_or_none(path) for path in _of_folder(part)}
    return {name: digest for name, digest in sorted(found.items()) if digest is not None}


def check_files(name: str, source: Path) -> None:
    """Refuse a model or an adapter where something else stands in the place of a file of it, before any is read.

    Args:
        name: for messages.
        source: the folder, or the weight file.
    Raises:
        InterpError: a pointer to a file, or a shard that is not here, by its name.
    """
    check_whole(name, source, [*_files(source), *(adapter_files(source) if is_alone(source) else ())])


def check_parts(name: str, base: Path, adapter: Path | None) -> None:
    """The same of the folder that the weights are in, of those that its config names, and of the adapter's."""
    for part in (base, *bases_of(name, base).values()):
        check_files(name, part)
    if adapter is not None:
        check_whole(str(adapter), adapter, adapter_files(adapter))


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():  # a captioner's tokenizer lies beside it, or what a countermeasure's weights do not show
        yield source
        yield source.with_suffix(".json")
        yield from _of_folder(source.parent / "tokenizer")
        return
    # Of adapters only what is a part of the model: any other decides nothing until it is merged.
    yield from (file for file in _of_folder(source) if file.name not in (SETTINGS, *OF_ADAPTERS))
    yield from own_adapter(source)
    for folder in BELOW:
        yield from _of_folder(source / folder)


def _of_folder(folder: Path) -> Iterator[Path]:
    for path in _listed(folder):
        if path.suffix.lower() not in ENDINGS or path.name in OF_TRAINING or path.name.lower().startswith(PAPERS):
            continue
        if path.is_file():
            yield path


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
