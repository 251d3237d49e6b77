"""The one door for the pages and the command line: models, clips, clean runs, jobs and experiments. No maths here."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch

from interp_core.cache import ByteCache
from interp_core.data.clips import Acoustics, Clip, ClipLimits, acoustics, read_audio
from interp_core.data.manifest import Manifest, read_manifest
from interp_core.data.pairs import Pair, PairSet, acoustic_differences, build_pairs, parse_kinds
from interp_core.errors import InterpError
from interp_core.experiments.checks import CheckFailed, CheckReport, run_checks
from interp_core.experiments.cost import Estimate, estimate
from interp_core.experiments.patching import (
    PatchingResult,
    Progress,
    base_predictions,
    pair_line,
    patch_pair,
    patches_of,
    run_patching,
)
from interp_core.experiments.plan import PatchSettings, check_window, plan
from interp_core.experiments.probe_readout import fit_probe, with_probe
from interp_core.jobs import Job, JobManager
from interp_core.models.bundled import Demo, demos
from interp_core.models.load import open_model
from interp_core.models.probe import Probe
from interp_core.models.subject import Subject
from interp_core.patch_folder import FolderSink, result_of, write_result
from interp_core.request import Asked, PatchRequest, Prepared, run_config
from interp_core.runs import RunWriter, open_run
from interp_core.trace.store import CleanStore

MOST_ANSWERS = 30
"""A classifier of more classes than this is asked about those that the manifest names."""


class Engine:
    """Holds what sessions share: opened models, read manifests, the cache of clean runs, and the jobs.

    Args:
        cache_bytes: the most that clean runs and decoded clips may take; None: a quarter of the memory, 8 GB at most.
        roots: folders that manifests and clips must lie in; None: anywhere.
        limits: shortest and longest clip in seconds.
    """

    def __init__(
        self,
        *,
        cache_bytes: int | None = None,
        roots: Sequence[Path] | None = None,
        limits: ClipLimits | None = None,
    ) -> None:
        if cache_bytes is None:
            cache_bytes = min(psutil.virtual_memory().total // 4, 8 << 30)
        self.cache = ByteCache(cache_bytes)
        self.jobs = JobManager()
        self.limits = limits or ClipLimits()
        self._roots = roots
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str, str], Subject] = {}
        self._probes: dict[tuple[Any, ...], Probe] = {}
        self._manifests: dict[tuple[Any, ...], Manifest] = {}

    def open(self, name: str, device: str = "auto", dtype: str = "auto", part: str = "") -> Subject:
        """Open a model, or return the one that is open already; `part` chooses among several lists of blocks."""
        key = (name, device, dtype)
        with self._lock:
            if key not in self._models:
                self._models[key] = open_model(name, device=device, dtype=dtype)
            return self._models[key].part(part)

    def opened(self, request: Asked) -> Subject | None:
        """Return the model of a request if it is open already, without its probe."""
        found = self._models.get((request.model, request.device, request.dtype))
        return None if found is None else found.part(request.part)

    def subject(self, request: Asked, progress: Progress = lambda done, total, note: None) -> Subject:
        """Open the model of a request, and fit the probe that it asks for as the readout."""
        base = self.open(request.model, request.device, request.dtype, request.part)
        demo = self.demo(request.model)
        column = request.probe or (demo.about.get("probe", "") if demo else "")
        if not column:
            return base
        store = CleanStore(base, self.cache, self.limits)
        manifest, seed = self.manifest(request, store.limits), request.seed
        key = (base.key, manifest.digest, request.max_clips, request.skip_bad, column, seed)
        if key not in self._probes:
            clips, done = manifest.clips, 0

            def on_clip() -> None:
                nonlocal done
                done += 1
                progress(done, len(clips), f"fitting a probe of {column}")

            self._probes[key] = fit_probe(store, clips, column, seed=seed, on_clip=on_clip)
        return with_probe(base, self._probes[key])

    def demo(self, name: str) -> Demo | None:
        """Return the bundled demo of this name, if it is one."""
        return demos().get(name)

    def resolve(self, request: PatchRequest) -> PatchRequest:
        """Fill in what the request leaves open: a bundled model's clips, a model's own labels and question."""
        demo = self.demo(request.model)
        path = self._manifest_path(request)
        settings, default = request.settings, PatchSettings()
        if demo is not None and demo.labels and settings.labels == default.labels:
            settings = replace(settings, labels=demo.labels)
        if demo is not None and demo.prompts and request.demo_prompts and settings.prompts == default.prompts:
            # Its further prompts ask about the labels that its own clips have; of other clips only the first is asked.
            texts = tuple(text for _, text in demo.prompts)
            settings = replace(settings, prompts=texts if request.manifest is None else texts[:1])
        if demo is None or not demo.labels or not demo.prompts:
            settings = self._own_words(replace(request, manifest=str(path), settings=settings))
        kinds = request.kinds
        if demo is not None and kinds == PatchRequest.kinds:
            kinds = demo.about.get("kinds", kinds)
        return replace(request, manifest=str(path), kinds=kinds, demo_prompts=False, settings=settings)

    def _own_words(self, request: PatchRequest) -> PatchSettings:
        """What the model itself says that it answers and is asked, where the settings are still the default ones."""
        settings, default = request.settings, PatchSettings()
        asked_for = settings.labels != default.labels
        if asked_for and not (request.demo_prompts and settings.prompts == default.prompts):
            return settings
        subject = self.subject(request)
        if not asked_for and (answers := subject.answers):
            if len(answers) > MOST_ANSWERS:
                seen = {value for clip in self.manifest(request).clips for value in clip.labels.values()}
                answers = tuple(answer for answer in answers if answer in seen)
            settings = replace(settings, labels=answers)
        if request.demo_prompts and settings.prompts == default.prompts and subject.default_prompts:
            settings = replace(settings, prompts=subject.default_prompts)
        return settings

    def _manifest_path(self, request: Asked) -> Path:
        demo = self.demo(request.model)
        if request.manifest is None and demo is None:
            raise InterpError(f"{request.model} has no clips of its own; give a manifest (--manifest clips.csv).")
        return Path(request.manifest).expanduser() if request.manifest else demo.manifest  # type: ignore[union-attr]

    def manifest(self, request: Asked, limits: ClipLimits | None = None) -> Manifest:
        """Read and check the clips of a request, by the engine's limits unless given; kept until the file changes."""
        path, limits = self._manifest_path(request), limits or self.limits
        try:
            changed = path.stat().st_mtime_ns
        except (OSError, ValueError):
            changed = 0  # read_manifest says what is wrong
        key = (str(path), changed, request.skip_bad, request.max_clips, limits)
        if key not in self._manifests:
            demo = self.demo(request.model)
            bundled = demo is not None and path == demo.manifest
            self._manifests[key] = read_manifest(
                path,
                skip_bad=request.skip_bad,
                max_clips=request.max_clips,
                roots=None if bundled else self._roots,
                limits=limits,
            )
        return self._manifests[key]

    def pairs(self, request: PatchRequest, limits: ClipLimits | None = None) -> PairSet:
        """Build the pairs of a request."""
        request = self.resolve(request)
        if request.pilot is not None and request.pilot < 1:
            raise InterpError(f"a pilot of {request.pilot} pairs is none; give 1 or more.")
        made = build_pairs(
            self.manifest(request, limits).clips,
            parse_kinds(request.kinds),
            labels=request.settings.labels,
            max_pairs=request.max_pairs,
            seed=request.settings.seed,
        )
        if request.pilot is None:
            return made
        kept = tuple(p for kind in made.kinds for p in made.of(kind.name)[: request.pilot])
        return replace(made, pairs=kept, report={**made.report, "pilot": request.pilot})

    def prepare(self, request: PatchRequest) -> Prepared:
        """Open and check everything a request names; every fault shows here, before anything is computed."""
        request.settings.check()
        parse_kinds(request.kinds)
        self.manifest(request)  # a first time before the model is opened, which may take a minute
        request = self.resolve(request)
        store = self.store(request)
        manifest, pairs = self.manifest(request, store.limits), self.pairs(request, store.limits)
        made = plan(store.subject, pairs, manifest.clips, request.settings)
        check_window(made, store)
        return Prepared(request, manifest, pairs, made, store)

    def check(self, request: PatchRequest) -> CheckReport:
        """Run the checks of a request alone; CheckFailed when one does not hold."""
        ready = self.prepare(request)
        patches = patches_of(ready.plan, ready.store, ready.plan.chunks[0])[0]
        settings, made = ready.request.settings, ready.plan
        return run_checks(ready.store, made.pairs.pairs, made.labels[0], settings.prompts[0], patches, made.spec)

    def acoustics(self, clips: Sequence[Clip], sample_rate: int = 16_000) -> dict[str, Acoustics]:
        """Measure clips as recordings, each once."""
        found = {}
        for clip in clips:
            key = ("acoustics", clip.digest)
            if (known := self.cache.get(key)) is None:
                known = acoustics(read_audio(clip.path, sample_rate, self.limits), sample_rate)
                self.cache.put(key, known)
            found[clip.clip_id] = known
        return found

    def patch(
        self,
        request: PatchRequest,
        *,
        out: Path | None = None,
        resume: bool = False,
        progress: Progress = lambda done, total, note: None,
        prepared: Prepared | None = None,
        announce: Callable[[Estimate], None] | None = None,
    ) -> PatchingResult:
        """Run a patching request, and keep it in a folder if one is given.

        Args:
            request: what to run.
            out: the run folder; written as the run goes.
            resume: go on with the run that is in the folder.
            progress: called with (done, total, note); may raise to cancel.
            prepared: of the same request, if it is there already.
            announce: told what the run will cost, before it starts.
        Raises:
            InterpError: bad input, before anything is written; CheckFailed after the checks' reports are.
        """
        ready = prepared or self.prepare(request)
        config = run_config(ready)
        clips = ready.manifest.clips
        if out is None:
            return self._described(run_patching(ready.plan, ready.store, clips, config, progress=progress), ready)
        with RunWriter.create(Path(out), config, resume=resume) as writer:
            for kind in ready.pairs.kinds:
                writer.write_jsonl(f"pair_list_{kind.name}.jsonl", map(pair_line, ready.pairs.of(kind.name)))
            sink = FolderSink(writer, ready.plan)
            if announce is not None:
                announce(estimate(ready.plan, ready.store))
            try:
                result = run_patching(ready.plan, ready.store, clips, writer.config, sink=sink, progress=progress)
            except CheckFailed as error:
                writer.write_json("sanity_check_self_patch.json", error.report["self_patch"])
                writer.write_json("sanity_check_audio_span.json", error.report["audio_span"])
                raise
            result = self._described(result, ready)
            write_result(writer, result)
            writer.finish()
            return replace(result, config=writer.config)

    def submit(self, request: PatchRequest, runs_dir: Path | None = None) -> Job[PatchingResult]:
        """Start a patching run as a job; the same request, asked twice, is one job."""
        ready = self.prepare(request)
        out = None if runs_dir is None else runs_dir / f"{Path(request.model).name}-{ready.request.key}"
        title = f"Patching {Path(request.model).name}: {request.kinds}"

        def work(progress: Any) -> PatchingResult:
            return self.patch(request, out=out, resume=True, progress=progress, prepared=ready)

        return self.jobs.submit(ready.request.key, title, work)

    def start(self, asked: Asked, runs_dir: Path | None = None) -> Job[Any]:
        """Start any experiment as a job; the same question, asked twice, is one job."""
        out = None if runs_dir is None else runs_dir / f"{asked.command}-{Path(asked.model).name}-{asked.key}"
        return self.jobs.submit(
            asked.key, asked.title, lambda progress: asked.run(self, out=out, resume=True, progress=progress)
        )

    def patch_pair(
        self, request: PatchRequest, pair: Pair, *, prompt: int = 0, alphas: Sequence[float] = (1.0,)
    ) -> pd.DataFrame:
        """Sweep one pair by hand."""
        request = self.resolve(request)
        return patch_pair(self.store(request), pair, request.settings, prompt=prompt, alphas=alphas)

    def base_table(self, request: PatchRequest, progress: Progress = lambda d, t, n: None) -> pd.DataFrame:
        """Ask the model about every clip, unedited: one row a clip and prompt."""
        request = self.resolve(request)
        store = self.store(request)
        clips = self.manifest(request, store.limits).clips
        rows, total = [], len(clips) * len(request.settings.prompts)
        for row in base_predictions(store, clips, request.settings):
            rows.append(row)
            progress(len(rows), total, "base predictions")
        return pd.DataFrame(rows)

    def open_run(self, folder: Path) -> PatchingResult:
        """Read a run folder back into the result that it was written from."""
        return result_of(open_run(folder))

    def store(self, request: Asked) -> CleanStore:
        """The clean runs of a request's model, whose limits are those of the engine and of the model together."""
        return CleanStore(self.subject(request), self.cache, self.limits)

    def _described(self, result: PatchingResult, ready: Prepared) -> PatchingResult:
        """Add how the donors of each kind sound different, which the reader of a flip rate has to know."""
        used = {c.clip_id: c for p in ready.pairs.pairs for c in (p.recipient, p.donor)}
        measured = self.acoustics(list(used.values()), ready.subject.sample_rate)
        report = {
            **result.reports["pair_construction_report"],
            "acoustic_differences": acoustic_differences(ready.pairs.pairs, measured),
            "acoustics": {clip_id: asdict(a) for clip_id, a in sorted(measured.items())},
        }
        return replace(result, reports={**result.reports, "pair_construction_report": report})


def default_cache_bytes() -> int | None:
    """Return the bound set by PATCHBAY_CACHE_GB, or None for the default."""
    text = os.environ.get("PATCHBAY_CACHE_GB")
    if text is None:
        return None
    try:
        return int(float(text) * (1 << 30))
    except ValueError as error:
        raise InterpError(f"PATCHBAY_CACHE_GB={text!r} is no number of gigabytes.") from error


def device_memory() -> dict[str, int]:
    """Return bytes in use: of this process, and of each GPU."""
    used = {"process": psutil.Process().memory_info().rss}
    for i in range(torch.cuda.device_count()):
        used[f"cuda:{i}"] = torch.cuda.memory_allocated(i)
    return used
