"""What a model is asked, and which labels its head answers, where nobody says."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from interp_core.choices import DEFAULT_PROMPT, EMOTIONS
from interp_core.data.clips import Clip
from interp_core.data.relabel import folded
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader
from interp_core.models.bundled import demos
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.prepared import once


def head_labels(
    subject: Subject, asked: Sequence[str], prompt: str, task: set[str | None], classes: Sequence[str]
) -> LabelTokens:
    """The labels that the head answers, in its order.

    Args:
        asked: as a person or a demo names them; of a classifier, in the order of its classes.
        task: values of the task column. classes: of the corpus, in the order of its class numbers.
    """
    answers = subject.answers
    if not answers:
        return subject.labels(asked or EMOTIONS, prompt)
    known = set(map(folded, answers))
    for names in (asked, classes if not known & {folded(value) for value in task if value is not None} else ()):
        if not names:
            continue
        if set(map(folded, names)) <= known:
            break
        if len(names) != len(answers):
            raise InterpError(
                f"{subject.name} tells {len(answers)} classes apart ({', '.join(answers)}), but {len(names)} labels "
                f"are given ({', '.join(names)}); name all of them in the head's order (--labels)."
            )
        return LabelTokens(tuple(names), tuple(range(len(names))), {"classes": list(answers)})
    return subject.labels(answers, prompt)


def question(subject: Subject, model: str, labels: Sequence[str] = ()) -> str:
    """What a model is asked unless somebody says otherwise: a demo's first question, its own, or the default.

    Args:
        labels: the answers that are wanted, as far as somebody names them.
    """
    demo = demos().get(model)
    if not subject.asks:
        return ""
    if demo is not None and demo.prompts:
        return demo.prompts[0][1]
    return (subject.prompts_for(labels) or (DEFAULT_PROMPT,))[0]


FEW = 3
LOW_MASS = 0.5


def low_mass(
    reader: ClipReader, clips: Sequence[Clip], labels: LabelTokens, logits_of: Callable[[Clip], Tensor] | None = None
) -> tuple[str, ...]:
    """Notes where, on the first few clips, the model wants to say something else than the labels, and where these are
    read as something else than they seem to mean.

    Args:
        logits_of: [1, vocabulary] of a clip, where somebody keeps them; the reader asks the model unless given.
    """
    if reader.subject.answers or reader.subject.needs_probe:
        return ()
    read_as = reader.subject.label_notes(labels.labels, reader.prompt)
    found = clips[:FEW]

    def measured() -> float:
        with torch.inference_mode(), reader.subject.lock:
            ask = logits_of or (lambda clip: reader.answer([reader.ready(clip)]))
            shares = [labels.read(ask(clip))[1].exp() for clip in found]
        return float(torch.cat(shares).mean()) if shares else 1.0

    digests = tuple(clip.digest for clip in found)
    mass = once(("mass of the labels", reader.subject.key, reader.prompt, digests, labels.labels, labels.ids), measured)
    if mass >= LOW_MASS:
        return read_as
    return (
        *read_as,
        f"only {mass:.2g} of the probability is on the labels {', '.join(labels.labels)} (mean of the first "
        f"{len(found)} clips): the model wants to say something else; look at the question (--prompt) and the labels",
    )
