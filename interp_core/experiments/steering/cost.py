"""What a steering run will take: clips as they are, steered copies, checks, answers in words."""

from interp_core.experiments.cost import Cost, in_words, pass_seconds, ready_seconds
from interp_core.experiments.steering.plan import SteerPlan
from interp_core.experiments.steering.steered import SteeredClip
from interp_core.experiments.steering.words import clips_in_words


def estimate(plan: SteerPlan) -> Cost:
    """Count the passes; time one of a clip alone, one of as many copies as go behind a layer, and a token."""
    settings, question, one = plan.settings, plan.questions[0], plan.steered[0]
    reader, clips = question.reader, (*plan.fitted, *plan.steered)
    waiting = len(clips) * ready_seconds(reader.ready, clips)
    made = SteeredClip(reader, one, question.labels, settings.positions, method=settings.method)
    behind = sum(made.cost(layer) for layer in plan.layers)
    passes = len(plan.steered) * (len(plan.questions) + len(plan.told)) + len(plan.fitted)
    copies = len(plan.steered) * plan.copies_a_layer * behind
    if settings.checks:  # the first clip both ways, and behind each layer two copies of it, both ways
        fast = SteeredClip(reader, one, question.labels, settings.positions)
        passes += 2 + 2 * len(plan.layers)
        copies += 2 * sum(fast.cost(layer) for layer in plan.layers)
    spoken, also = clips_in_words(plan), ""
    if spoken:
        vectors = len(plan.targets) * len(plan.layers)
        texts, tokens, also = in_words(
            reader.subject, reader.stem(reader.ready(one)), len(spoken), vectors, settings.words
        )
        copies, waiting = copies + texts, waiting + tokens
    together = 1 if settings.method == "reference" else min(settings.batch_size, plan.copies_a_layer)
    seconds = passes * pass_seconds(reader, one) + copies * pass_seconds(reader, one, together) + waiting
    of = f"{len(plan.fitted)} clips to fit, {len(plan.steered)} to steer"
    return Cost(passes + copies, seconds, of, also)
