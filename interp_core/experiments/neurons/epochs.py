"""Checkpoints over epochs: which files a training run left, and which of them is ablated."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.neurons.files import EPOCH
from interp_core.experiments.neurons.request import AblateRequest

CHOICES = ("all", "best-id", "peak-ood")
Accuracy = Callable[[AblateRequest], tuple[float, float]]
"""Of the unedited model, in domain and out of domain."""


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
    request: AblateRequest, accuracy: Accuracy, say: Callable[[str], None] = lambda text: None
) -> Mapping[int, AblateRequest]:
    """The requests that `--epoch` asks for, by epoch; none of them asks for an epoch any more.

    Args:
        request: its model is the folder of the training run, its epoch a number; all; best-id or peak-ood: the highest
            accuracy of the unedited model in or out of domain.
        say: told the accuracies that a choice rests on, and that peak-ood looks at what it is tested on.
    """
    files, epoch = checkpoints(request.model), request.epoch
    all_ = {number: replace(request, model=str(path), epoch="") for number, path in files.items()}
    if epoch.isdigit():
        if int(epoch) not in files:
            raise InterpError(f"epoch {epoch} is not among {', '.join(map(str, files))}.")
        return {int(epoch): all_[int(epoch)]}
    if epoch not in CHOICES:
        raise InterpError(f"epoch {epoch!r} is no number and none of {', '.join(CHOICES)}.")
    if epoch == "all":
        return all_
    scores = {}
    for number, one in all_.items():
        inside, out = accuracy(one)
        scores[number] = inside if epoch == "best-id" else out
        say(f"epoch {number}: {inside:.1%} right in domain, {out:.1%} out of domain")
    best = max(scores, key=lambda number: scores[number])
    if epoch == "peak-ood":
        say(f"epoch {best} is chosen by the clips that it is then tested on: its accuracy out of domain is too high.")
    return {best: all_[best]}


def one_of(
    engine: Engine, request: AblateRequest, accuracy: Callable[[Engine, AblateRequest], tuple[float, float]]
) -> AblateRequest:
    """The one run that a request with an epoch stands for. Errors: InterpError where it stands for several."""
    if not request.epoch:
        return request
    if request.epoch == "all":
        raise InterpError("epoch all stands for a run of each checkpoint; choose one, or run it on the command line.")
    return next(iter(chosen(request, lambda one: accuracy(engine, one)).values()))
