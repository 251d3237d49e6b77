"""The answer in words of steered clips: as they are, and with every label's vector behind every layer of a run."""

from collections.abc import Sequence

from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.edited_words import edited_answers
from interp_core.experiments.steering.plan import Shifts, SteerPlan
from interp_core.experiments.steering.request import Positions
from interp_core.experiments.steering.steered import steered_positions
from interp_core.sinks import Records
from interp_core.trace.generate import Row
from interp_core.trace.row_edits import VectorAdded


def steered_rows(
    reader: ClipReader, clip: Clip, positions: Positions, shifts: Sequence[tuple[int, Tensor]]
) -> list[Row]:
    """One clip with each of some vectors [width] added behind a layer, ready to be written behind."""
    ready = reader.ready(clip)
    stem = reader.stem(ready)
    return [
        Row(stem, (VectorAdded(layer, shift, steered_positions(reader, ready, positions, layer, stem.n_pos)),))
        for layer, shift in shifts
    ]


def clips_in_words(plan: SteerPlan) -> tuple[Clip, ...]:
    """The steered clips whose answers are written out, the first of them."""
    settings = plan.settings
    return plan.steered[: settings.word_clips or None] if settings.words else ()


def words_of_clip(plan: SteerPlan, shifts: Shifts, clip: Clip) -> Records:
    """The records of one clip under the first question, at the strength of the controls: one a label and layer."""
    settings, reader = plan.settings, plan.questions[0].reader
    alpha = settings.at_controls
    places = [(label, layer) for label in plan.targets for layer in plan.layers]
    added = [(layer, alpha * shifts.vector(layer, label)) for label, layer in places]
    rows = steered_rows(reader, clip, settings.positions, added)
    named = [{"label": label, "layer": layer, "alpha": alpha} for label, layer in places]
    pairs = list(zip(named, rows, strict=True))
    return edited_answers(reader.subject, clip, pairs, settings.words, settings.during)
