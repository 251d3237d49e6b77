"""What it will take to read heads, blocks and stages: passes of the clips, and probes of the points."""

import numpy as np

from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.cost import Cost, in_words, like_states, ready_seconds, timed
from interp_core.experiments.experiment import Ready
from interp_core.experiments.heads.capture import Vectors, capture
from interp_core.experiments.heads.points import GRANULARITIES, geometry_of
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.run import Drawn, is_probed, measure_point
from interp_core.experiments.heads.words import clips_in_words
from interp_core.maths.fisher import fisher_interval, fisher_test


def estimate(ready: Ready[HeadsRequest, Drawn]) -> Cost:
    """Count the passes; time one, and a probe of each width on noise."""
    drawn, request, store = ready.plan, ready.request, ready.store
    some = drawn.clips[: request.batch_size]
    prompt = request.prompt or (store.subject.default_prompts or ("",))[0]
    waiting = len(drawn.clips) * ready_seconds(ClipReader(store, prompt).ready, drawn.clips)
    seen: list[Vectors] = []
    each = timed(lambda: seen.append(capture(store, some, request.prompt, batch_size=len(some)))) / len(some)
    forwards = float(forwards_of(ready))
    counts = ", ".join(f"{name} {count}" for name, count in drawn.counts["drawn"].items())
    measuring, probes = _measuring(seen[0], drawn, request)
    also = [f"{probes} probes"] if probes else []
    if spoken := clips_in_words(drawn, request):
        heads = min(request.word_heads, sum(geometry_of(store.subject).heads))
        stem = store.prompted(spoken[0], prompt)
        passes, tokens, said = in_words(store.subject, stem, len(spoken), heads, request.words)
        forwards, waiting = forwards + passes, waiting + tokens
        also.append(said)
    clips = f"{len(drawn.clips)} clips ({counts})"
    return Cost(forwards, forwards * each + waiting + measuring, clips, ", ".join(also))


def forwards_of(ready: Ready[HeadsRequest, Drawn]) -> int:
    """Clips that go through the model, counted as often as they do."""
    geometry, kinds, n = geometry_of(ready.store.subject), ready.request.ablate, len(ready.plan.clips)
    extra = 1 + len(kinds) * sum(geometry.heads) + ("resample" in kinds) if kinds else 0
    return n * (1 + extra)


def _measuring(vectors: Vectors, drawn: Drawn, request: HeadsRequest) -> tuple[float, int]:
    """Seconds of tests, intervals and probes over all points, as they take on noise, and the number of probes."""
    taken: dict[tuple[int, bool], float] = {}
    seconds, probes = 0.0, 0
    for granularity in GRANULARITIES:
        try:
            values = vectors.all(granularity)
        except InterpError:  # heads of different widths in a stage, which are left out of the run too
            continue
        for value in values:
            key = value.shape[1], is_probed(granularity, request)
            if key not in taken:
                noise = like_states(len(drawn.clips), key[0], request.seed)

                def one(noise: np.ndarray = noise, probed: bool = key[1]) -> None:
                    fisher_test([noise], drawn.labels, drawn.groups, draws=request.draws, seed=request.seed)
                    fisher_interval([noise], drawn.labels, drawn.groups)
                    if probed:
                        measure_point(noise, drawn.labels, drawn.groups, request.seed)

                taken[key] = timed(one)
            seconds, probes = seconds + taken[key], probes + key[1]
    return seconds, probes
