"""A steering run as a person asks for it."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from interp_core.choices import During
from interp_core.experiments.word_options import during_option, word_clips_option, words_option
from interp_core.options import Need, option
from interp_core.request import Request

Positions = Literal["audio", "last"]
Route = Literal["fast", "reference"]
Control = Literal["random", "shuffled", "layer", "prompt"]
CONTROLS: tuple[Control, ...] = get_args(Control)
USUAL_CONTROL = 4.0
"""The strength at which controls run, where it is among those that are asked for."""
LABEL = "{label}"


@dataclass(frozen=True, repr=False)
class SteerRequest(Request):
    """Mean-difference vectors of labels, fitted on one half of the clips and added to the states of the other."""

    targets: tuple[str, ...] = option(
        (), "the labels whose vectors are added; all that have clips unless given", label="Vectors of"
    )
    layers: tuple[int, ...] | None = option(
        None, "behind which layers a vector is added: all, or a list like 0,4,8", none="all", label="Layers"
    )
    alphas: tuple[float, ...] = option(
        (0.5, 1.0, 2.0, 4.0, 8.0),
        "strengths, like 1,2,4: state + alpha · vector",
        flag="alpha",
        least=0,
        most=1000,
        label="Strengths alpha",
    )
    positions: Positions = option(
        "audio", "where a vector is fitted and added: at the positions of the recording, or at the last one",
        label="At", words={"audio": "the recording's positions", "last": "the last position"},
    )  # fmt: skip
    controls: tuple[Control, ...] = option(
        CONTROLS,
        "what the vector is compared with, or none: random vectors of its length, vectors of shuffled labels, the "
        "vector of another layer, the prompt that says the label",
        none="none",
        label="Controls",
        wide=True,
    )
    control_alpha: float | None = option(
        None,
        "the strength of the controls and of the further questions; 4, or the largest where 4 is not asked for",
        least=0, most=1000, label="Strength of the controls", rare=True,
        needs=(Need("controls"), Need("prompts", several=True), Need("words")),
    )  # fmt: skip
    draws: int = option(
        20, "random vectors, and shuffles of the labels", least=1, label="Random draws",
        needs=(Need("controls", ("random", "shuffled")),),
    )  # fmt: skip
    every_draw: bool = option(
        False,
        "every random vector on every clip at the controls' strength, so that the label's vector is ranked among them, "
        "which its p needs (20 of them or more); else each clip meets one of them, in turn, and there is no p",
        label="Every random vector on every clip", rare=True,
        needs=(Need("controls", ("random",)),),
    )  # fmt: skip
    vector: str = option("", "add the vectors of this file (steering_vectors.safetensors of a run), and fit none")
    task: str = option("", "the label column that vectors are fitted to", label="Task")
    units: str = option(
        "", "the column that is never divided between fitting and adding, and that intervals draw", label="Units"
    )
    max_steered: int | None = option(
        None, "clips that are steered, at most: so many of the other half, evenly spread", least=1,
        label="Clips steered, at most", placeholder="all",
    )  # fmt: skip
    labels: tuple[str, ...] = option((), "the answers that compete; the model's own unless given", label="Answers")
    prompts: tuple[str, ...] = option(
        (),
        "the question; repeat for several: the vector is fitted under the first and added under all. The model's own "
        "unless given",
        flag="prompt",
        repeat=True,
        label="Questions, one a line",
        rare=True,
    )
    told: str = option(
        f"The speaker sounds {LABEL}.",
        f"what the control of the prompt says before the question; {LABEL} stands for the label",
        label="What the prompt says alone", rare=True,
        needs=(Need("controls", ("prompt",)),),
    )  # fmt: skip
    method: Route = option(
        "fast",
        "the route: fast computes what is behind the layer, reference is the model's whole forward with one hook",
        label="Method",
        rare=True,
    )
    words: int = words_option(
        "Every label's vector behind every layer, at the strength of the controls, under the first question",
    )
    word_clips: int = word_clips_option()
    during: During = during_option()
    checks: bool = option(True, "check before the run that fast = reference and that alpha 0 is null", decides=False)
    batch_size: int = option(64, "steered copies of a clip in one pass", least=1, decides=False)

    command: ClassVar[str] = "steer"
    config_file: ClassVar[str] = "steering_config.json"
    about: ClassVar[str] = "add the direction of a label to the states of unseen clips, and see which answers it moves"
    file_fields: ClassVar[tuple[str, ...]] = ("vector",)

    @property
    def at_controls(self) -> float:
        """The strength at which controls run."""
        if self.control_alpha is not None:
            return self.control_alpha
        return USUAL_CONTROL if USUAL_CONTROL in self.alphas else max(self.alphas)

    def conflicts(self) -> list[str]:
        found = []
        if not self.alphas:
            found.append("alpha: give one or more strengths of 0 or more")
        if len(set(self.alphas)) < len(self.alphas):
            found.append(f"alpha {list(self.alphas)}: give each strength once")
        if self.control_alpha is not None and self.alphas and self.control_alpha not in self.alphas:
            found.append(f"--control-alpha {self.control_alpha:g} is none of the strengths {_listed(self.alphas)}")
        if self.layers is not None and not self.layers:
            found.append("no layer was given; give all or a list like 0,4,8")
        if len(set(self.prompts)) < len(self.prompts):
            found.append("one prompt is given twice; give different ones")
        for name, values in (("targets", self.targets), ("controls", self.controls), ("layers", self.layers or ())):
            if len(set(values)) < len(values):
                found.append(f"--{name}: give each once")
        if "prompt" in self.controls and LABEL not in self.told:
            found.append(f"--told {self.told[:60]!r} names no label; write {LABEL} where it belongs")
        return found


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
