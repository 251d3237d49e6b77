"""A patching run as a person asks for it: which pairs, under which settings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from interp_core.choices import DEFAULT_PROMPT, EMOTIONS, Method
from interp_core.errors import InterpError
from interp_core.options import Need, option
from interp_core.request import Request
from interp_core.sites import OF_HEADS, STAGES, Kind, check_attributed, check_kind

Align = Literal["truncate", "resample"]
Control = Literal["random", "noise", "no-conflict", "prefix"]
CONTROLS: tuple[Control, ...] = get_args(Control)
Map = Literal["time", "heads", "back"]
MAPS: tuple[Map, ...] = get_args(Map)
FlowCurve = Literal["question", "last", "lens", "knockout"]
FLOWS: tuple[FlowCurve, ...] = get_args(FlowCurve)
Subspace = Literal["none", "mean-difference"]
DEFAULT_MAX_PAIRS = 100
OF_TIME, OF_MAP_OF_HEADS, OF_BACK = (Need("maps", (name,)) for name in MAPS)
OF_WORDS, OF_SUBSPACE = Need("words"), Need("subspace", but=("none",))
OF_RECORDING = Need("positions", but=("last", "question", "prefix"))
STATEMENT = "The speaker sounds {label}."
PAIR_SIGN = " <- "
"""Between A and B of a pair by hand."""


def read_pair_limit(text: str) -> int | dict[str, int]:
    """`100`, or `prosody=100,semantic=50`. Errors: InterpError for anything else."""
    parts = [part.partition("=") for part in text.split(",")]
    try:
        limits = {name.strip(): int(count) for name, sign, count in parts if sign}
        return limits if len(limits) == len(parts) else int(text)
    except ValueError as error:
        raise InterpError(f"--max-pairs {text!r}: give a number like 100, or prosody=100,semantic=50.") from error


def write_pair_limit(limit: int | Mapping[str, int]) -> str:
    """What `read_pair_limit` reads back."""
    return str(limit) if isinstance(limit, int) else ",".join(f"{name}={count}" for name, count in limit.items())


@dataclass(frozen=True, repr=False)
class PatchRequest(Request):
    """Layer patching over pairs of clips; what is left empty is the model's own, or the default of `filled`."""

    kinds: str = option(
        "",
        "pairs: prosody, semantic, same=COLUMN,differ=COLUMN, or edit:KNOB=DOSE for every clip with its own edited "
        "copy as B (pitch=+4, rate=1.2, level=-6, flat, noise=10, pink=10, band=300-3400, codec=mp3, silence); those "
        "of a demo, or prosody,semantic, unless given",
        label="Kinds of pair",
    )
    max_pairs: int | Mapping[str, int] = option(
        DEFAULT_MAX_PAIRS,
        "pairs of a kind: a number for every kind, or prosody=100,semantic=50",
        read=read_pair_limit,
        write=write_pair_limit,
        label="Most pairs a kind",
    )
    pairs: tuple[str, ...] = option(
        (),
        "a pair by hand instead of those of a kind, as 'A <- B' by clip_id; repeat for several. Its target is what the "
        "model answers for B",
        flag="pair",
        repeat=True,
        label="Pairs by hand, one a line",
        placeholder="A <- B",
    )
    prompts: tuple[str, ...] = option(
        (), "the question; repeat for several. The model's own, or the default one, unless given", flag="prompt",
        repeat=True, label="Questions, one a line",
    )  # fmt: skip
    donor_state: str = option(
        "",
        "what is patched into A: B's own states unless given; mean is the mean state of the clips of the pair's "
        "target, over the positions that are replaced and without the units of A and B; mean:LABEL is that for the "
        "pairs toward LABEL alone",
        flag="donor",
        label="Donor",
        placeholder="B, or mean:LABEL",
    )
    labels: tuple[str, ...] = option(
        (), "the answers that compete, like yes,no; the model's own unless given", label="Answers"
    )
    site: str = option(
        "",
        "resid_post, attn_out, mlp_out, head_out (all heads), head_out:HEAD, …; see `models`. Where it is left out, "
        "one at which patching can say something about the model",
        label="Site",
        placeholder="resid_post, attn_out, head_out:3 …",
    )
    positions: str = option("", "audio (default), question, last, all, or START-STOP in seconds", label="Positions")
    layers: tuple[int, ...] | None = option(
        None, "all, or a list like 0,4,8 (-1 = the embeddings)", none="all", label="Layers", rare=True
    )
    align: Align = option(
        "truncate", "where A and B differ in length", label="Where A and B differ in length", needs=(OF_RECORDING,)
    )
    alphas: tuple[float, ...] = option(
        (1.0,),
        "strengths, like 1.0,0.5: (1 - alpha) · A + alpha · B; controls run at the first",
        flag="alpha",
        least=0,
        most=1,
        label="Strengths alpha",
    )
    controls: tuple[Control, ...] = option(
        CONTROLS, "what the effect is compared with, or none", none="none", label="Controls", wide=True
    )
    flow: tuple[FlowCurve, ...] = option(
        FLOWS, "information flow beside the curve, or none", none="none", label="Information flow", wide=True
    )
    maps: tuple[Map, ...] = option(
        (),
        "maps beside the curve, or none: time patches each window of the recording alone, at every layer, under the "
        "first question and at the first strength; heads estimates every head by gradients and patches the largest; "
        "back puts each later layer's own state into each earlier layer of the same clip, under every question",
        none="none",
        flag="map",
        label="Maps",
        wide=True,
        words={
            "time": "each window of time",
            "heads": "every head, estimated and verified",
            "back": "later layers into earlier ones",
        },
    )
    top_heads: int = option(
        10,
        "of the map of heads, the largest estimates that true patches verify; 10 random heads are verified beside them",
        least=1,
        label="Heads verified, largest first",
        rare=True,
        needs=(OF_MAP_OF_HEADS,),
    )
    map_sites: tuple[str, ...] = option(
        (),
        "sites estimated in the map of heads beside head_out: attn_out, mlp_out, mlp_act; those that the model has "
        "unless given",
        label="Estimated beside the heads",
        placeholder="attn_out, mlp_out, mlp_act",
        rare=True,
        needs=(OF_MAP_OF_HEADS,),
    )
    windows: int | None = option(
        None,
        "equal windows of the time map, each of two positions or more; 8 unless given",
        least=1, label="Windows of the time map", placeholder="8", rare=True,
        needs=(OF_TIME,),
    )  # fmt: skip
    window_seconds: float | None = option(
        None,
        "about how long a window of the time map is, in the place of their number",
        least=0.001, label="Length of a window, s", placeholder="a share of each recording", rare=True,
        needs=(OF_TIME,),
    )  # fmt: skip
    back_every: int | None = option(
        None,
        "every n-th layer, counted from the last one, in the map of later layers in earlier ones; all of 12 layers "
        "or fewer unless given, and so many that about 12 are left of more",
        least=1, label="Every n-th layer, later into earlier", placeholder="1", rare=True,
        needs=(OF_BACK,),
    )  # fmt: skip
    stated: str = option(
        "",
        "also ask about every clip with a prompt that states an answer, each label in turn; the label column that the "
        "statement speaks of, like prosody_label",
        label="A prompt that states",
        placeholder="prosody_label",
        rare=True,
    )
    statement: str = option(
        STATEMENT,
        "what the prompt says before the question, {label} being the label that it states",
        label="What it states",
        rare=True,
        needs=(Need("stated"),),
    )
    subspace: Subspace = option(
        "none",
        "exchange, beside the whole state, only its part in a subspace: mean-difference, the one in which the mean "
        "states of the classes differ most, fitted without the units of A and B; first question, first strength",
        label="Subspace exchanged",
        rare=True,
    )
    rank: int = option(
        1, "directions of the subspace", least=1, most=8, label="Rank of the subspace", rare=True, needs=(OF_SUBSPACE,)
    )
    subspace_draws: int = option(
        5,
        "random subspaces of the same rank beside it; a p needs 20",
        least=1,
        most=100,
        label="Random subspaces",
        rare=True,
        needs=(OF_SUBSPACE,),
    )
    subspace_label: str = option(
        "", "the column whose classes span the subspace; that in which A and B differ unless given",
        label="Classes of the subspace", placeholder="what A and B differ in", rare=True,
        needs=(OF_SUBSPACE,),
    )  # fmt: skip
    method: Method = option(
        "fast",
        "the route: fast takes the cheapest that is exact, reference is one forward a layer",
        label="Method",
        rare=True,
    )
    knockout_width: int = option(
        3,
        "layers of an attention-knockout window",
        least=1,
        label="Knockout window, layers",
        rare=True,
        needs=(Need("flow", ("knockout",)),),
    )
    words: int = option(
        0,
        "also let A write its answer in words under each patch: up to so many tokens (40 is a sentence or two); 0 for "
        "none. The matched patch, first question, first strength",
        least=0,
        most=1000,
        label="Answer in words, tokens",
        rare=True,
    )
    word_pairs: int = option(
        0,
        "pairs of a kind whose answer is written in words; 0 for all",
        least=0,
        label="Pairs in words",
        rare=True,
        needs=(OF_WORDS,),
    )
    several_tokens: Literal["refuse", "first"] = option(
        "refuse", "labels of several tokens: refuse them, or compare their first tokens", flag="multi-token"
    )
    checks: bool = option(True, "check self-patch, whole donor and fast = reference before the sweep", decides=False)

    command: ClassVar[str] = "patch"
    config_file: ClassVar[str] = "patching_config.json"
    about: ClassVar[str] = "patch B's activations into A, layer by layer, over pairs of clips"

    @property
    def kind(self) -> Kind:
        """The kind of its site, without the head."""
        return check_kind(self.site.partition(":")[0].strip() or "resid_post")

    @property
    def head(self) -> int | None:
        """The head of its site; None for all of them."""
        _, sign, text = self.site.partition(":")
        return int(text) if sign else None

    @property
    def class_mean(self) -> str | None:
        """The label whose mean is the donor, "" for that of each pair's target; None where B's own states are."""
        name, sign, label = self.donor_state.partition(":")
        return None if not self.donor_state else label.strip() if sign else ""

    @property
    def donor_said(self) -> str:
        """What is patched into A, in a few words."""
        if self.class_mean is None:
            return "B"
        return f"the mean of {self.class_mean or 'the target'}"

    @property
    def title(self) -> str:
        said = f"{len(self.pairs)} pairs by hand" if self.pairs else self.kinds
        return f"{super().title}" + (f": {said}" if said else "")

    def filled(self, **own: Any) -> "PatchRequest":
        """With everything that is left open at `own`, or at the default where that says nothing."""
        usual = {
            "kinds": "prosody,semantic",
            "site": "resid_post",
            "positions": "audio",
            "labels": EMOTIONS,
            "prompts": (DEFAULT_PROMPT,),
        }
        if self.pairs:
            usual["kinds"], own["kinds"] = "", ""
        values = {name: getattr(self, name) or own.get(name) or value for name, value in usual.items()}
        return replace(self, **values)  # type: ignore[arg-type]

    def conflicts(self) -> list[str]:
        found = []
        try:
            if self.kind in STAGES:
                found.append(f"site {self.site!r} stands behind all layers, so there are no layers to sweep there")
            elif self.head is not None and self.kind not in OF_HEADS:
                found.append(
                    f"a head is patched at site {' or '.join(OF_HEADS)}, not at {self.kind}; set the site, or leave "
                    "the head out"
                )
        except InterpError as error:
            found.append(str(error).rstrip("."))
        except ValueError:
            found.append(f"site {self.site!r}: give one head by its number, like head_out:3, or head_out for all")
        for site in self.map_sites:
            try:
                check_attributed(site)
            except InterpError as error:
                found.append(str(error).rstrip("."))
        if not self.alphas:
            found.append("alpha: give one or more strengths between 0 and 1")
        if len(set(self.alphas)) < len(self.alphas):
            found.append(f"alpha {list(self.alphas)}: give each strength once")
        if self.layers is not None and not self.layers:
            found.append("no layer was given; give all or a list like 0,4,8")
        if self.pairs and (self.kinds or self.max_pairs != DEFAULT_MAX_PAIRS):
            given = "kinds" if self.kinds else "max-pairs"
            found.append(f"pairs by hand are all of the run, so --{given} means nothing beside --pair; leave one out")
        if strange := [text for text in self.pairs if PAIR_SIGN not in text]:
            found.append(f"pair {strange[0]!r}: give two clips by their clip_id, like 'A{PAIR_SIGN}B'")
        if len(set(self.pairs)) < len(self.pairs):
            found.append("one pair by hand is given twice; give each once")
        if len(set(self.maps)) < len(self.maps):
            found.append(f"map {list(self.maps)}: give each map once")
        if self.windows is not None and self.window_seconds is not None:
            found.append("give either the number of windows or their length in seconds, not both")
        if self.donor_state:
            found += self._donor_conflicts()
        if "{label}" not in self.statement:
            found.append(f"statement {self.statement!r} states nothing: write {{label}} where the label belongs")
        if len(set(self.prompts)) < len(self.prompts):
            found.append("one prompt is given twice; give different ones")
        return found

    def _donor_conflicts(self) -> list[str]:
        name, sign, label = self.donor_state.partition(":")
        if name.strip() != "mean" or (sign and not label.strip()):
            return [f"donor {self.donor_state!r}: give mean or mean:LABEL, or leave it out for B's own states"]
        found = []
        if "heads" in self.maps:
            found.append("the map of heads is estimated with B's own states; leave --donor out, or --map heads")
        if self.subspace != "none":
            found.append("a subspace is exchanged with B's own states; leave --donor out, or --subspace")
        return found

    @classmethod
    def upgraded(cls, saved: dict[str, Any]) -> dict[str, Any]:
        head = saved.pop("head", None)  # version 0.1 kept it apart
        return saved if head is None else {**saved, "site": f"{saved['site']}:{head}"}


def donor_of(settings: Mapping[str, Any]) -> str:
    """What was patched into A by the settings of a run, in a few words."""
    return PatchRequest(donor_state=settings.get("donor_state", "")).donor_said


def donor_in_title(settings: Mapping[str, Any]) -> str:
    """The same as the end of a title; nothing where it is B."""
    said = donor_of(settings)
    return "" if said == "B" else f", donor: {said}"
