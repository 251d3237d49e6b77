"""The layer sweep: one patch applied at each layer in turn, and the label logits that come out.

Three routes give the same numbers:

- *reference*: the model's own forward with one hook, one forward a layer. The definition of right.
- *wavefront*: rows join as they are born (after block l, the row patched at l) and travel on together, so a sweep is
  one pass through the blocks with a growing batch: n(n+1)/2 block-rows, and no layer is computed before its patch. In a
  causal decoder the positions before the edit cannot change; their keys and values come from the recipient's run, but
  where all positions without a mask cost less (`first_computed`). Of the last block only the readout position is run to
  the end; of the others it needs the keys and values.
- *shortcut* (causal): where the donor's whole trajectory up to a position is patched in, the replaced positions follow
  the donor's clean run exactly, so its keys and values are reused and only the positions behind are recomputed.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from interp_core.choices import METHODS, Method
from interp_core.errors import InterpError
from interp_core.jobs import stop_if_cancelled
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.clean import CleanRun
from interp_core.trace.finite import check_finite, finite_run
from interp_core.trace.hooks import Edit, captured, edited
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.rows import BlockRows, CachedPrefixRows, RowRunner, Rows, first_computed, positions_at_once

# A group of patches may grow by this much through padding to its longest member.
_PADDING = 1.25
# Windows of one clip have tails of as many lengths, and rows enough each: on a CPU they gain nothing from being padded.
_PADDING_OF_WINDOWS = 1.05


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found.

    Attributes:
        layers: the points, -1 = the embeddings.
        label_logits: [n, n_points, n_labels] float32, CPU.
        log_mass: [n, n_points] log of the full-vocabulary probability on the labels.
        methods: the route of each patch: reference, wavefront or shortcut.
        edits: (patch, layer) edits that were applied; always n * n_points.
    """

    layers: tuple[int, ...]
    label_logits: Tensor
    log_mass: Tensor
    methods: tuple[str, ...]
    edits: int


def sweep(
    subject: Subject, patches: Sequence[Patch], labels: LabelTokens, spec: SiteSpec, *, method: Method = "fast"
) -> Sweep:
    """Apply each patch at each layer of `spec` and read the label logits.

    Args:
        subject: the model.
        patches: one or more; in a batch the results equal those of one at a time.
        labels: whose logits are read at the readout position.
        spec: kind of site, head, layers.
        method: "fast" takes the cheapest route that is exact for each patch and says which.
    Raises:
        InterpError: a site or a layer that the model has not, a hook that did not fire, too little memory for one
            patch.
    """
    if method not in METHODS:
        raise InterpError(f"method {method!r} is none of {', '.join(METHODS)}.")
    subject.check_ready()
    for layer in spec.layers:
        embeddings = layer == -1 and not spec.inside
        subject.locate(Site("resid_pre", 0) if embeddings else Site(spec.kind, layer, spec.head))
    logits = torch.zeros(len(patches), len(spec.layers), len(labels.ids))
    mass = torch.zeros(len(patches), len(spec.layers))
    methods, edits = [""] * len(patches), 0
    with torch.inference_mode():
        for route, members in _routes(subject, patches, spec, method):
            found, applied = _run_group(subject, [patches[i] for i in members], labels, spec, route)
            for i, (label_logits, log_mass) in zip(members, found, strict=True):
                logits[i], mass[i], methods[i] = label_logits, log_mass, route.removeprefix("full ")
            edits += applied
    if edits != len(patches) * len(spec.layers):
        raise InterpError(f"{edits} edits were applied, expected {len(patches)} patches x {len(spec.layers)} layers.")
    return Sweep(spec.layers, logits, mass, tuple(methods), edits)


def donor_prefix(subject: Subject, patch: Patch, spec: SiteSpec) -> int | None:
    """Return the position up to which the donor's run stands in for the patched one, or None if it may not.

    Exact only when all hold: the blocks allow it (`Subject.shortcut_refusal`), whole residual stream after a block
    and all its directions, alpha 1, states of the donor's own run, the same ids and embeddings before the span, the
    replaced positions are one run at the donor's own absolute positions, and the readout lies behind it. So of the
    windows of a span only its first one has a shortcut: before the others the recipient's own trajectory stands.
    """
    donor, recipient = patch.donor, patch.recipient
    if subject.shortcut_refusal() is not None or spec.inside or donor is None:
        return None
    if patch.alpha != 1.0 or patch.averaged or patch.within is not None or patch.mean is not None:
        return None
    if donor.keys is None or not torch.equal(patch.source, patch.positions.to(patch.source.dtype)):
        return None
    first, stop = int(patch.positions[0]), int(patch.positions[-1]) + 1
    if stop - first != len(patch.positions) or stop >= recipient.prompted.n_pos:
        return None
    a, b = recipient.prompted, donor.prompted
    same_ids = torch.equal(a.token_ids[:first], b.token_ids[:first])
    return stop if same_ids and torch.equal(a.embeds[:first], b.embeds[:first]) else None


def _routes(subject: Subject, patches: Sequence[Patch], spec: SiteSpec, method: Method) -> list[tuple[str, list[int]]]:
    """Group patches by route, then so that padding to the longest member of a group wastes little."""
    if method == "reference":
        return [("reference", list(range(len(patches))))]
    lengths: dict[tuple[str, Hashable], list[tuple[int, int]]] = {}
    for i, patch in enumerate(patches):
        n_pos = patch.recipient.prompted.n_pos
        stop = donor_prefix(subject, patch, spec) if method == "fast" else None
        if stop is not None:
            lengths.setdefault(("shortcut", None), []).append((n_pos - stop, i))
        elif method == "fast" and subject.shortcut_refusal() is None and patch.recipient.keys is not None:
            start = first_computed(subject, n_pos, int(patch.positions[0]))
            lengths.setdefault(("wavefront", None if start else n_pos), []).append((n_pos - start, i))
        else:
            alike = subject.batch_key(patch.recipient.prompted)
            lengths.setdefault(("full wavefront", alike), []).append((n_pos, i))
    padding = _PADDING_OF_WINDOWS if _are_windows(subject, patches) else _PADDING
    # Patches of one batch gain nothing from one another on a CPU, but where recipients' clean states are shared.
    share_states = _recipients(patches) < len(patches)
    most = positions_at_once(subject)
    return [
        (route, group)
        for (route, _), members in lengths.items()
        for group in by_length(members, padding, None if route == "full wavefront" and share_states else most)
    ]


def by_length(
    members: Sequence[tuple[int, int]], padding: float = _PADDING, most: int | None = None
) -> list[list[int]]:
    """Cut (length, number) into groups of numbers that padding to a group's longest member makes little larger.

    Args:
        members: (length, number) each.
        padding: by how much a group may grow.
        most: positions of a group, padding included; one member may have more.
    """
    groups: list[list[int]] = []
    group: list[int] = []
    total = 0
    for length, number in sorted(members):
        padded = length * (len(group) + 1)
        if group and (padded > padding * (total + length) or (most is not None and padded > most)):
            groups.append(group)
            group, total = [], 0
        group.append(number)
        total += length
    return [*groups, group] if group else groups


def _run_group(
    subject: Subject, patches: list[Patch], labels: LabelTokens, spec: SiteSpec, route: str
) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Run one group; halve it as often as the memory asks for."""
    try:
        if route == "reference":
            return _reference(subject, patches, labels, spec)
        with subject.lock:
            runner = _runner(subject, patches, route, len(spec.layers))
            return _travel(subject, runner, patches, labels, spec, route == "shortcut")
    except torch.OutOfMemoryError as error:
        if len(patches) == 1:
            raise InterpError(
                f"one sweep of clip {patches[0].recipient.prompted.clip_id!r} "
                f"({patches[0].recipient.prompted.n_pos} positions, {len(spec.layers)} layers) does not fit into the "
                "device's memory; choose fewer layers, half precision, or a shorter clip."
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(patches) // 2
    first, applied = _run_group(subject, patches[:half], labels, spec, route)
    second, more = _run_group(subject, patches[half:], labels, spec, route)
    return first + second, applied + more


def _runner(subject: Subject, patches: list[Patch], route: str, rows: int) -> RowRunner:
    runs = [patch.recipient for patch in patches]
    if route == "full wavefront":
        recipients = runs[: _recipients(patches)]
        return BlockRows(subject, [run.prompted for run in recipients], recipients)
    if route == "shortcut":
        donors = [patch.donor for patch in patches if patch.donor is not None]
        stops = [int(patch.positions[-1]) + 1 for patch in patches]
        return CachedPrefixRows(subject, runs, donors, stops, rows)
    starts = [first_computed(subject, p.recipient.prompted.n_pos, int(p.positions[0])) for p in patches]
    return CachedPrefixRows(subject, runs, runs, starts, rows)


def _are_windows(subject: Subject, patches: Sequence[Patch]) -> bool:
    """Whether patches are several of one clip, on a CPU."""
    return subject.device.type == "cpu" and len(patches) > 1 and len({id(p.recipient) for p in patches}) == 1


def _recipients(patches: Sequence[Patch]) -> int:
    """How many recipients there are, where the patches go through them in turn (the windows of one clip, say): their
    unedited states are then computed once for all of their patches. Else as many as there are patches."""
    n = len({id(patch.recipient) for patch in patches})
    in_turn = all(patch.recipient is patches[i % n].recipient for i, patch in enumerate(patches))
    return n if in_turn and len(patches) % n == 0 else len(patches)


def _travel(
    subject: Subject, runner: RowRunner, patches: list[Patch], labels: LabelTokens, spec: SiteSpec, in_prefix: bool
) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Send the rows through the blocks, at each layer one more a patch; `in_prefix`: the edit is in the frozen keys."""
    n, joined = len(patches), 0
    rows: Rows | None = None

    def join(layer: int, hidden: Tensor) -> Rows:
        new = runner.start(layer, hidden)
        return new if rows is None else rows.joined(new)

    def clean(layer: int) -> Tensor:
        own = runner.clean(layer)
        return own if runner.n == n else own.repeat(n // runner.n, 1, 1)

    def replace(values: Tensor, layer: int) -> Tensor:
        values = values.clone()
        for i, whole in enumerate(patches):
            donor = None if whole.donor is None else whole.donor.at(spec.kind, layer)
            patch = whole.over(values.shape[1]) if subject.whole_only else whole
            at = runner.place(i % runner.n, patch.positions.to(values.device))
            values[i, at] = patch.mix(values[i, at], donor, layer, spec.columns_at(layer))
        return values

    last = subject.n_layers - 1

    def onward(layer: int, rows: Rows) -> Rows:
        return runner.finish(rows) if layer == last else runner.run(layer, rows)

    for layer in range(-1, subject.n_layers):
        stop_if_cancelled()
        if layer >= 0:
            if spec.kind == "resid_pre" and layer == 0 and layer in spec.layers:
                # What enters the first block is also what a readout that mixes layers reads there.
                rows, joined = runner.run(layer, join(layer, replace(clean(layer), layer))), n
            elif spec.inside and layer in spec.layers:
                newest, joined = runner.start(layer, clean(layer)), joined + n
                with edited(subject, {Site(spec.kind, layer, spec.head): partial(replace, layer=layer)}):
                    newest = runner.run(layer, newest, together=True)
                if layer == last and runner.reads_last:
                    newest = Rows(newest.hidden[:, -1:])
                rows = newest if rows is None else onward(layer, rows).joined(newest)
            elif rows is not None:
                rows = onward(layer, rows)
        if not spec.inside and layer in spec.layers:
            new = clean(layer + 1) if in_prefix else replace(clean(layer + 1), layer)
            rows, joined = join(layer + 1, new[:, -1:] if layer == last and runner.reads_last else new), joined + n
    assert rows is not None, "a sweep has at least one layer"
    answers = runner.logits(rows)
    check_finite(subject, answers, [_patched(patch, spec, layer) for layer in spec.layers for patch in patches])
    label_logits, log_mass = labels.read(answers)
    label_logits = label_logits.view(-1, n, len(labels.ids)).cpu()
    log_mass = log_mass.view(-1, n).cpu()
    return [(label_logits[:, i], log_mass[:, i]) for i in range(n)], joined


def _reference(
    subject: Subject, patches: list[Patch], labels: LabelTokens, spec: SiteSpec
) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Run the model's own forward from the raw inputs, one hook at a time; the donor's states are captured anew."""
    found, applied = [], 0
    sites = {la: Site("resid_pre", 0) if la == -1 else Site(spec.kind, la, spec.head) for la in spec.layers}
    for patch in patches:
        states: Mapping[Site, Tensor] = {}
        if patch.donor is not None and patch.mean is None:
            with captured(subject, set(sites.values())) as donor:
                _forward(subject, patch.donor)
            states = donor.values
        logits = []
        for layer, site in sites.items():
            with edited(subject, {site: _replacing(subject, patch, states.get(site), layer, spec)}):
                logits.append(_forward(subject, patch.recipient))
                applied += 1
        label_logits, log_mass = labels.read(torch.cat(logits))
        found.append((label_logits.cpu(), log_mass.cpu()))
    return found, applied


def _forward(subject: Subject, run: CleanRun) -> Tensor:
    return finite_run(subject, [run.prompted.clip_id], lambda: subject.forward(run.prompted.inputs))


def _patched(patch: Patch, spec: SiteSpec, layer: int) -> str:
    incoming = "noise" if patch.donor is None else f"that of clip {patch.donor.prompted.clip_id!r}"
    incoming = incoming if patch.mean is None else "a mean state"
    site = "what enters layer 0" if layer == -1 else str(Site(spec.kind, layer, spec.head))
    return f"clip {patch.recipient.prompted.clip_id!r} with {incoming} at {site}"


def _replacing(subject: Subject, whole: Patch, donor: Tensor | None, layer: int, spec: SiteSpec) -> Edit:
    """Return the edit that mixes the donor's state [1, pos, width] into a batch of one."""

    def edit(value: Tensor) -> Tensor:
        value = value.clone()
        patch = whole.over(value.shape[1]) if subject.whole_only else whole
        at = patch.positions.to(value.device)
        value[0, at] = patch.mix(value[0, at], None if donor is None else donor[0], layer, spec.columns_at(layer))
        return value

    return edit


def cost(subject: Subject, patch: Patch, spec: SiteSpec, method: Method = "fast") -> float:
    """Estimate what a patch costs, in clean forward passes of its recipient through the blocks.

    Counts block-positions, which is what linear layers cost; the clean runs themselves are not counted (but the pass
    that tells again what each block is given, where they did not keep it), nor the keys and values of the last block,
    which only its readout position passes to the end.
    """
    n_pos, n_layers = patch.recipient.prompted.n_pos, subject.n_layers
    if method == "reference":
        return float(len(spec.layers) + (patch.donor is not None and patch.mean is None))
    stop = donor_prefix(subject, patch, spec) if method == "fast" else None
    keeps_keys = method == "fast" and subject.shortcut_refusal() is None
    start = 0
    if keeps_keys:
        start = first_computed(subject, n_pos, int(patch.positions[0])) if stop is None else stop
    last = n_layers - 1
    rows = [sum(layer < block + spec.inside for layer in spec.layers) for block in range(n_layers)]
    whole = (spec.inside and last in spec.layers) if keeps_keys else rows[last]  # of the last block's rows
    computed = (sum(rows[:last]) + whole) * (n_pos - start) + rows[last] - whole
    return computed / (n_layers * n_pos) + (0 if keeps_keys or patch.recipient.calls is not None else 1)
