"""Checkpoints over epochs: which files a training run left, and which of them is ablated."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp_core.engine import Engine
from interp_core.errors import InterpError, few
from interp_core.experiments.neurons.files import EPOCH
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.prepared import current, name_of

CHOICES = ("all", "best-id", "peak-ood")
Accuracy = Callable[[Engine, AblateRequest], tuple[float, float]]
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


def accuracy_key(engine: Engine, request: AblateRequest) -> tuple[str, str]:
    """What the accuracy of an unedited checkpoint follows from, for `prepared.once`."""
    return "accuracy of the unedited model", engine.key_of(request)


def chosen(
    engine: Engine, request: AblateRequest, accuracy: Accuracy, say: Callable[[str], None] = lambda text: None
) -> Mapping[int, AblateRequest]:
    """The requests that `--epoch` asks for, by epoch; none of them asks for an epoch any more.

    What a choice rests on is kept beside what the run's preparation computes, where `choice_of` finds it.

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
    scores, measured = {}, {}
    for number, one in all_.items():
        inside, out = accuracy(engine, one)
        scores[number], measured[number] = inside if epoch == "best-id" else out, (inside, out)
        say(f"epoch {number}: {inside:.1%} right in domain, {out:.1%} out of domain")
    best = max(scores, key=lambda number: scores[number])
    place = "in domain" if epoch == "best-id" else "out of domain"
    said = f"epoch {best}, chosen of {few(list(map(str, files)), 8)} by the unedited model's accuracy {place}"
    said += f" ({scores[best]:.1%}"
    equal = [str(number) for number, score in scores.items() if score == scores[best] and number != best]
    said += f", as high at epoch {few(equal, 8)})" if equal else ")"
    if epoch == "peak-ood":
        say(f"epoch {best} is chosen by the clips that it is then tested on: its accuracy out of domain is too high.")
        said += ", on the clips that it is then tested on: its accuracy out of domain is too high"
    choice = {
        "by": epoch,
        "said": said,
        "accuracies": {str(number): found for number, found in measured.items()},
        "prepared": {name_of(accuracy_key(engine, all_[number])): found for number, found in measured.items()},
    }
    # Not `once`: another process may have chosen among other files, or by something else.
    current().put(_choice_key(engine, all_[best]), choice)
    return {best: all_[best]}


def choice_of(engine: Engine, request: AblateRequest) -> Mapping[str, Any] | None:
    """How the checkpoint of a request was chosen; None where it was named.

    Returns:
        by: best-id or peak-ood; said; accuracies: epoch -> (in domain, out of domain); prepared: the same under the
        names of `prepared`, so that a run that is asked for again does not measure them again.
    """
    found: Mapping[str, Any] | None = current().known(_choice_key(engine, request))
    return found


def _choice_key(engine: Engine, request: AblateRequest) -> tuple[str, str]:
    return "choice of a checkpoint", engine.key_of(request)


def one_of(engine: Engine, request: AblateRequest, accuracy: Accuracy) -> AblateRequest:
    """The one run that a request with an epoch stands for. Errors: InterpError where it stands for several."""
    if not request.epoch:
        return request
    if request.epoch == "all":
        raise InterpError("epoch all stands for a run of each checkpoint; choose one, or run it on the command line.")
    return next(iter(chosen(engine, request, accuracy).values()))
