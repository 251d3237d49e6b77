"""Which parts two models of one shape hold alike, and which patches between them must therefore do nothing.

Read off the weights, before anything runs. A shared frozen backbone is the common case: its layers are the same in
both models, so the donor's activations there are the base's own.
"""

from collections.abc import Mapping, Sequence

from interp_core.errors import InterpError
from interp_core.models.subject import Subject
from interp_core.models.weights import same_weights
from interp_core.sites import Site


def check_comparable(base: Subject, donor: Subject) -> None:
    """Refuse two models whose activations cannot stand in for each other's, before anything runs."""
    facts = {
        "family": (base.config.model_type, donor.config.model_type),
        "layers": (base.n_layers, donor.n_layers),
        "width": (base.d_model, donor.d_model),
        "sample rate": (base.sample_rate, donor.sample_rate),
        "readout": (base.readout_of, donor.readout_of),
        "sites behind the blocks": (tuple(base.stages), tuple(donor.stages)),
    }
    unlike = [f"{name} {a} and {b}" for name, (a, b) in facts.items() if a != b]
    if unlike:
        raise InterpError(
            f"{base.name} and {donor.name} are not of one shape: {'; '.join(unlike)}. Compare two models of one family."
        )


def alike_parts(base: Subject, donor: Subject) -> dict[str, bool]:
    """Say of each part whether both models hold it bit for bit alike, with the settings that act in it.

    Returns:
        In the order of the forward pass, the parts of `Subject.weights_by_part`; one that only one model has differs.
    """
    left, right = base.weights_by_part(), donor.weights_by_part()
    alike = {part: same_weights(left.get(part), right.get(part)) for part in left | right}
    mine, theirs = base.settings_by_part(), donor.settings_by_part()
    for part in mine.keys() | theirs.keys():
        alike[part] &= mine.get(part) == theirs.get(part)
    return alike


def null_sites(base: Subject, donor: Subject) -> frozenset[Site]:
    """The sites at which the same clip has the same activation in both models, whatever the clip: to copy one across
    does nothing."""
    alike = alike_parts(base, donor)
    so_far = alike["stem"]
    layers = []
    for layer in range(base.n_layers):
        so_far = so_far and alike[f"layer {layer}"]
        layers += [Site("resid_post", layer)] if so_far else []
    found = set(layers)
    so_far = alike["stem"] and max(base.mixed_layers, default=base.n_layers - 1) < len(layers)
    for kind, part in base.stage_parts.items():
        so_far = so_far and alike[part]
        found |= {Site(kind)} if so_far else set()
    if all(alike.values()):  # which weights of the readout stand before a stage differs from family to family
        found |= {Site(kind) for kind in base.stages}
    return frozenset(found)


def mix_refusal(base: Subject, donor: Subject) -> str:
    """Say why the donor's layer weights cannot take the place of the base's; empty where they can."""
    mine, theirs = base.mix_weights, donor.mix_weights
    if mine is None or theirs is None:
        return "the readout mixes no layers by weights of its own"
    if mine.shape != theirs.shape or base.mixed_layers != donor.mixed_layers:
        return "the two models mix other layers"
    return ""


def named_alike(alike: Mapping[str, bool]) -> Sequence[str]:
    """The parts that are alike, runs of layers put together: `stem`, `layers 0 to 11`, `pooling`."""
    found: list[str] = []
    run: list[int] = []

    def close() -> None:
        if run:
            found.append(f"layer {run[0]}" if len(run) == 1 else f"layers {run[0]} to {run[-1]}")
            run.clear()

    for part, same in alike.items():
        if part.startswith("layer ") and same:
            run.append(int(part.removeprefix("layer ")))
            continue
        close()
        if same:
            found.append(part.replace("_", " "))
    close()
    return found
