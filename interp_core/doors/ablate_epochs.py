"""Checkpoints over epochs: which files a training run left, and which of them is ablated."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from interp_core.doors.ablate import AblateRequest, prepare
from interp_core.doors.ablate_folder import EPOCH
from interp_core.errors import InterpError
from interp_core.experiments.ablation_site import collect

CHOICES = ("all", "best-id", "peak-ood")


def checkpoints(folder: str) -> dict[int, Path]:
    """Epoch -> checkpoint file, such as epoch_3.pt or ep00003.pth, in a folder or in `checkpoints` below it.

    Raises:
        InterpError: no such folder, or none in it.
    """
    root = Path(folder).expanduser()
    places = [place for place in (root / "checkpoints", root) if place.is_dir()]
    for place in places:
        found = {int(m[1]): path for path in sorted(place.iterdir()) if (m := EPOCH.search(path.name))}
        if found:
            return dict(sorted(found.items()))
    raise InterpError(
        f"{root} {'holds no checkpoint of an epoch' if places else 'is no folder'}; give the folder of a training run "
        "with files like epoch_3.pt, or leave --epoch out."
    )


def chosen(
    engine: Any, request: AblateRequest, epoch: str, say: Callable[[str], None] = lambda text: None
) -> Mapping[int, AblateRequest]:
    """The requests that `--epoch` asks for, by epoch.

    Args:
        request: its model is the folder of the training run.
        epoch: a number; all; best-id or peak-ood: the highest accuracy of the unedited model in or out of domain.
        say: told the accuracies that a choice rests on, and that peak-ood looks at what it is tested on.
    """
    files = checkpoints(request.model)
    if epoch.isdigit():
        if int(epoch) not in files:
            raise InterpError(f"epoch {epoch} is not among {', '.join(map(str, files))}.")
        return {int(epoch): replace(request, model=str(files[int(epoch)]))}
    if epoch not in CHOICES:
        raise InterpError(f"epoch {epoch!r} is no number and none of {', '.join(CHOICES)}.")
    all_ = {number: replace(request, model=str(path)) for number, path in files.items()}
    if epoch == "all":
        return all_
    scores = {}
    for number, one in all_.items():
        inside, out = unedited(engine, one)
        scores[number] = inside if epoch == "best-id" else out
        say(f"epoch {number}: {inside:.1%} right in domain, {out:.1%} out of domain")
    best = max(scores, key=lambda number: scores[number])
    if epoch == "peak-ood":
        say(f"epoch {best} is chosen by the clips that it is then tested on: its accuracy out of domain is too high.")
    return {best: all_[best]}


def unedited(engine: Any, request: AblateRequest) -> tuple[float, float]:
    """Accuracy of the unedited model in domain and out of domain."""
    ready = prepare(engine, request)
    found = collect(ready.hearing, ready.clips, ready.site, ready.labels, batch_size=request.batch_size)
    names = np.asarray(ready.labels.labels)[found.logits.argmax(-1).numpy()]
    truth = np.asarray([clip.label(ready.request.task) or "" for clip in ready.clips])
    right = names == truth
    return float(right[ready.splits.id].mean()), float(right[ready.splits.ood].mean())
