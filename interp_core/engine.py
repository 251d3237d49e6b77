"""What experiments and sessions share: opened models, read manifests and corpora, clean runs, jobs. It names no
experiment and computes nothing of its own.
"""

import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from interp_core.cache import ByteCache, nbytes_of
from interp_core.content import FILES, SIDES, clips_entry, key_parts
from interp_core.data.clips import Acoustics, Clip, ClipLimits, acoustics
from interp_core.data.corpora import Corpus, read_corpus
from interp_core.data.current import CurrentFiles, Mark, mark_of, marks_of_folder
from interp_core.data.edits import read_clip
from interp_core.data.manifest import Clips, Manifest, check_inside, read_clips, read_manifest
from interp_core.data.relabel import relabelled
from interp_core.digests import digest_or_none, joined, place_digest
from interp_core.errors import InterpError
from interp_core.jobs import Job, JobManager, Progress, silent
from interp_core.models.adapters import NONE, local_base
from interp_core.models.bases import local_bases
from interp_core.models.bundled import Demo, demo_of, demos
from interp_core.models.files import deciding_files
from interp_core.models.load import bytes_on_disk, open_model
from interp_core.models.probe import Probe
from interp_core.models.shelf import ModelKey, Shelf
from interp_core.models.source import is_hub_id
from interp_core.models.subject import Subject
from interp_core.options import declared
from interp_core.prepared import current
from interp_core.request import Request, short_name
from interp_core.trace.probe import fit_probe
from interp_core.trace.store import CleanStore

READ_BYTES = 512 << 20
"""Of manifests, corpora and probes that are kept; the one read last is kept whatever its size."""
RESULT_BYTES = 1 << 30
"""Of the results that finished jobs keep; a run in a folder is read back from there."""
MOST_OPENINGS = 4
"""Models on their way at once."""


class Engine:
    """Holds what sessions share.

    Args:
        cache_bytes: the most that clean runs and decoded clips may take; None: a quarter of the memory, 8 GB at most.
        roots: folders that manifests and clips must lie in; None: anywhere.
        limits: the shortest and longest clip that any request may take; None: what each request says.
        model_bytes: the most that opened models may take; None: half of the memory that they are put into.
        model_roots: folders that models must lie in which are neither bundled nor on the hub; None: anywhere.
    Attributes:
        cache: clean runs and decoded clips. models: those that are open.
        jobs: experiments, one after the other. openings: models on their way, which wait for no experiment.
    """

    def __init__(
        self,
        *,
        cache_bytes: int | None = None,
        roots: Sequence[Path] | None = None,
        limits: ClipLimits | None = None,
        model_bytes: int | None = None,
        model_roots: Sequence[Path] | None = None,
    ) -> None:
        if cache_bytes is None:
            cache_bytes = min(psutil.virtual_memory().total // 4, 8 << 30)
        self.cache = ByteCache(cache_bytes)
        self.models = Shelf(model_bytes)
        self.jobs = JobManager(max_bytes=RESULT_BYTES, measure=nbytes_of)
        self.openings = JobManager(max_workers=MOST_OPENINGS)
        self.roots = roots
        self._model_roots = model_roots
        self._limits = limits
        self._read = ByteCache(READ_BYTES, keep_latest=True)
        self._current = CurrentFiles(self._read)

    def __repr__(self) -> str:
        names = ", ".join(short_name(one.name) for one in self.models.opened()) or "no model"
        return f"<Engine: {names} open>"

    @property
    def terms(self) -> dict[str, Any]:
        """What it lets requests do, as the arguments of an engine in another process."""
        return {"roots": self.roots, "limits": self._limits, "model_roots": self._model_roots}

    # ---- models ------------------------------------------------------------------------------------------------------

    def open(
        self,
        name: str,
        device: str = "auto",
        dtype: str = "auto",
        part: str = "",
        progress: Progress = silent,
        adapter: str = "",
    ) -> Subject:
        """Open a model, or return the one that is open already; `part` chooses among several lists of blocks.

        Raises:
            InterpError: it cannot be opened, or lies outside the folders that models may be read from.
        """
        self.check_model(name, adapter)
        key = (name, device, dtype, adapter)
        room = bytes_on_disk(name, adapter)
        return (self._open_now(key) or self.models.get_or_open(key, lambda: _opened(key, progress), room)).part(part)

    def check_model(self, name: str, adapter: str = "") -> None:
        """Refuse a path outside the folders that models may be read from, whatever is or is not there.

        An adapter lies inside them too, and so do other models that a folder names: an adapter's base, towers.
        """
        if name not in demos() and not (is_hub_id(name) and not Path(name).exists()):
            check_inside(Path(name).expanduser(), self._model_roots)
        if adapter not in ("", NONE, name):
            check_inside(Path(adapter).expanduser(), self._model_roots)
        base = local_base(name)
        for part in (*local_bases(name), *(() if base is None else (base, *local_bases(str(base))))):
            check_inside(part, self._model_roots)

    def _open_now(self, key: ModelKey) -> Subject | None:
        """The model that is open, unless its files have changed since: then it is let go."""
        found = self.models.get(key)
        if found is None or found.files == deciding_files(key[0], key[3]):
            return found
        self.models.let_go(key)
        return None

    def opened(self, request: Request) -> Subject | None:
        """Return the model of a request if it is open already, as its files are now, without its probe."""
        found = self._open_now((request.model, request.device, request.dtype, request.adapter))
        return None if found is None else found.part(request.part)

    def opening(self, request: Request) -> Job[None]:
        """Open the model of a request, its probe included, as a job; asked twice, it is one job.

        Its result is nothing: what a job keeps is kept for long, and models are not.
        """

        def work(progress: Progress) -> None:
            self.subject(request, progress)

        key = opening_key(request)
        known = self.openings.get(key)
        if known is not None and known.status == "done":  # and let go since
            self.openings.forget(key)
        return self.openings.submit(key, f"Opening {short_name(request.model)}", work)

    def subject(self, request: Request, progress: Progress = silent) -> Subject:
        """Open the model of a request, and fit the probe that it asks for as the readout."""
        base = self.open(request.model, request.device, request.dtype, request.part, progress, request.adapter)
        column = self._probe_column(request)
        if not column:
            return base

        def fit() -> Probe:
            done = 0

            def on_clip() -> None:
                nonlocal done
                done += 1
                progress(done, len(clips), f"fitting a probe of {column}")

            return fit_probe(store, clips, column, seed=request.seed, on_clip=on_clip)

        store = CleanStore(base, self.cache, self.limits(request))
        clips = self.manifest(request, store.limits).clips
        key, here = self._probe_key(base, request), current()
        kept = here.known(key)
        probe = self._read.get_or_make(key, fit if kept is None else lambda: Probe.of(kept))
        here.keep(key, probe.content)
        return base.with_probe(probe)

    def ready(self, request: Request) -> Subject | None:
        """As `subject`, but only where nothing is left to be opened or fitted."""
        base = self.opened(request)
        if base is None or not self._probe_column(request):
            return base
        probe = self._read.get(self._probe_key(base, request))
        return None if probe is None else base.with_probe(probe)

    def _probe_column(self, request: Request) -> str:
        demo = self.demo(request.model)
        return request.probe or (demo.probe if demo else "")

    def _probe_key(self, base: Subject, request: Request) -> tuple[Any, ...]:
        store = CleanStore(base, self.cache, self.limits(request))
        manifest = self.manifest(request, store.limits)
        column = self._probe_column(request)
        return ("probe", base.key, manifest.digest, joined(manifest.digests), column, request.seed, request.map_labels)

    def store(self, request: Request, progress: Progress = silent) -> CleanStore:
        """The clean runs of a request's model, whose limits are those of the request and of the model together."""
        return CleanStore(self.subject(request, progress), self.cache, self.limits(request))

    def demo(self, name: str) -> Demo | None:
        """Return the bundled demo of this name, if it is one."""
        return demos().get(name)

    # ---- clips -------------------------------------------------------------------------------------------------------

    def limits(self, request: Request) -> ClipLimits:
        """The shortest and longest clip that a request takes on this engine."""
        most = self._limits
        if most is None:
            return ClipLimits(max_seconds=request.max_seconds)
        return ClipLimits(most.min_seconds, min(request.max_seconds, most.max_seconds), most.if_longer)

    def manifest_path(self, request: Request) -> Path:
        """Where the clips of a request are named. Errors: InterpError for a model without clips of its own."""
        if request.manifest:
            return Path(request.manifest).expanduser()
        demo = demo_of(request.model)
        if request.corpus:
            raise InterpError(f"the corpus {request.corpus!r} needs its folder: give it as --manifest FOLDER.")
        if demo is None:
            raise InterpError(f"{request.model} has no clips of its own; give a manifest (--manifest clips.csv).")
        return demo.manifest

    def manifest(
        self, request: Request, limits: ClipLimits | None = None, choices: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Read and check the clips of a request, by its limits unless given; kept until the file or a clip changes.

        Args:
            choices: of the corpus's reader, where the request names a corpus.
        """
        path, limits = self.manifest_path(request), limits or self.limits(request)
        demo = demo_of(request.model)
        roots = None if demo is not None and path == demo.manifest else self.roots

        def read() -> Manifest:
            if request.corpus:
                return _manifest_of(self.corpus(request, choices), request, limits, roots)
            return read_manifest(
                path, skip_bad=request.skip_bad, max_clips=request.max_clips, roots=roots, limits=limits
            )

        def marks(made: Manifest) -> dict[Path, str | None]:
            of_table: dict[Path, str | None]
            if request.corpus:
                of_table = _marks_of(self.corpus(request, choices), path)
            else:  # a row that was left out may be mended
                left_out = [path.parent / row.file for row in made.skipped if row.file]
                of_table = {path: made.digest}
                of_table.update((file, mark_of(file)) for file in left_out)
            of_table.update((clip.path, clip.digest) for clip in made.clips)
            return of_table

        return relabelled(
            self._current.get(_manifest_key(path, request, limits, choices), read, marks), request.map_labels
        )

    def has_manifest(self, request: Request) -> bool:
        """Whether `manifest` has read the clips of a request before, so that it answers at once unless they changed."""
        return self._current.has(_manifest_key(self.manifest_path(request), request, self.limits(request), None))

    def corpus(self, request: Request, choices: Mapping[str, Any] | None = None) -> Corpus:
        """The corpus that a request names, as it lies on disk; kept.

        Args:
            choices: further settings of its reader.
        """
        root = self.manifest_path(request)
        key = ("corpus", request.corpus, str(root), request.skip_bad, str(choices))
        check_inside(root, self.roots)
        return self._current.get(
            key,
            lambda: read_corpus(request.corpus, root, skip_bad=request.skip_bad, **(choices or {})),
            lambda made: _marks_of(made, root),
        )

    # ---- what a run is made of ---------------------------------------------------------------------------------------

    def content(self, request: Request) -> dict[str, Any]:
        """The digests of all files that a request names, as they are now, as a run's config says them.

        Raises:
            InterpError: clips that cannot be used.
        """
        sides = zip(SIDES, request.models, request.adapters, strict=False)
        manifest = self.manifest(request, choices=request.corpus_choices)
        return {
            **{side: {FILES: deciding_files(name, adapter)} for side, name, adapter in sides},
            "manifest": {"sha256": manifest.digest, **clips_entry(manifest.digests)},
        }

    def key_of(self, request: Request) -> str:
        """Names a run by what is asked and by what is in its files, wherever they lie.

        Raises:
            InterpError: clips that cannot be used.
        """
        demo = demo_of(request.model)  # what ships brings settings of its own
        own = demo is not None and not request.corpus and request.manifest in (None, str(demo.manifest))
        shipped = [demo.name if demo else "", own, *(self.demo(name) is not None for name in request.models)]
        named = [getattr(request, name) for name in request.file_fields]
        further = [digest_or_none(Path(path).expanduser()) for path in named if path]
        return request.key_with([key_parts(self.content(request)), shipped, *([further] if further else [])])

    def acoustics(self, clips: Sequence[Clip], sample_rate: int = 16_000) -> dict[str, Acoustics]:
        """Measure clips as recordings, each once."""
        found = {}
        for clip in clips:
            key = ("acoustics", clip.digest)
            if (known := self.cache.get(key)) is None:
                known = acoustics(read_clip(clip, sample_rate, self._limits or ANY_LENGTH), sample_rate)
                self.cache.put(key, known)
            found[clip.clip_id] = known
        return found


ANY_LENGTH = ClipLimits(max_seconds=86_400)


def _opened(key: ModelKey, progress: Progress) -> Subject:
    """The model, with the digests of the files that it was opened from."""
    name, device, dtype, adapter = key
    files = deciding_files(name, adapter)
    found = open_model(name, device=device, dtype=dtype, adapter=adapter, progress=progress)
    found.files = deciding_files(name, adapter)
    if files and found.files != files:
        raise InterpError(f"files of {name} were changed while it was opened; open it again.")
    return found


def opening_key(request: Request) -> str:
    """Names the job that opens a request's model: another one where another probe is fitted, or to other clips."""
    asked = [getattr(request, one.name) for one in declared(Request)]
    return f"open-{hashlib.sha256(repr(asked).encode()).hexdigest()[:16]}"


def _marks_of(corpus: Corpus, given: Path) -> dict[Path, Mark]:
    """Of a corpus's folders and tables, and of the folder that was given, which may only hold the corpus's."""
    marks = marks_of_folder(corpus.root, map(Path, corpus.clips["path"]))
    return marks | {path: mark_of(path) for path in (given, *corpus.tables)}


def _manifest_key(path: Path, request: Request, limits: ClipLimits, choices: Mapping[str, Any] | None) -> Hashable:
    return ("manifest", str(path), request.corpus, str(choices), request.skip_bad, request.max_clips, limits)


def _manifest_of(corpus: Corpus, request: Request, limits: ClipLimits, roots: Sequence[Path] | None) -> Manifest:
    """A corpus as a manifest: recordings are decoded and checked; pictures, of which there are half a million, not."""
    table = corpus.clips if request.max_clips is None else corpus.clips.iloc[: request.max_clips]
    digest = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
    rows = [{str(name): str(value) for name, value in row.items()} for row in table.to_dict("records")]
    if corpus.media == "audio":
        read = read_clips(rows, corpus.root, skip_bad=request.skip_bad, roots=roots, limits=limits)
    else:
        for folder in dict.fromkeys(Path(row["path"]).parent for row in rows):
            check_inside(folder, roots)
        read = Clips(tuple(_by_place(row) for row in rows))
    columns = tuple(map(str, table.columns))
    return Manifest(corpus.root, read.clips, columns, digest, (*corpus.skipped, *read.bad), corpus.notes, read.silent)


def _by_place(row: Mapping[str, str]) -> Clip:
    labels = {name: value for name, value in row.items() if value and name not in ("clip_id", "path")}
    path = Path(row["path"])
    try:
        return Clip(row["clip_id"], path, labels, place_digest(path))
    except OSError as error:
        raise InterpError(f"{path} cannot be read ({error.strerror}); restore it.") from error


def default_cache_bytes() -> int | None:
    """Return the bound set by PATCHBAY_CACHE_GB, or None for the default."""
    return _gigabytes("PATCHBAY_CACHE_GB")


def default_model_bytes() -> int | None:
    """Return the bound set by PATCHBAY_MODELS_GB, or None for the default."""
    return _gigabytes("PATCHBAY_MODELS_GB")


def _gigabytes(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(float(text) * (1 << 30))
    except (ValueError, OverflowError) as error:
        raise InterpError(f"{name}={text!r} is no number of gigabytes.") from error


def device_memory() -> dict[str, int]:
    """Return bytes in use: of this process, and of each GPU."""
    used = {"process": psutil.Process().memory_info().rss}
    for i in range(torch.cuda.device_count()):
        used[f"cuda:{i}"] = torch.cuda.memory_allocated(i)
    return used
