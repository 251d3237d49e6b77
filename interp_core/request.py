"""What every experiment is asked: which model, which clips, where it runs. Torch-free, as its subclasses are."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from interp_core.command_words import command_line
from interp_core.errors import InterpError
from interp_core.options import (
    Declared,
    deciding,
    declared,
    differences,
    from_config,
    idle,
    option,
    python_call,
)

IN_OTHER_PLACES = ("model", "manifest", "device", "dtype")
"""Settings that a config says as facts (which model it was, which device), and not among its `settings`."""
PLACES = ("model", "adapter", "donor", "donor_adapter", "manifest")
"""Settings that say where files are."""


@dataclass(frozen=True)
class Request:
    """A run as a person asks for it. Experiments inherit these options and add their own.

    A request says what was asked; what it leaves open (labels, columns, a site) is found when it is prepared.
    """

    model: str = option("", "a bundled name, a folder, a checkpoint file, or a hub id; see `models`")
    manifest: str | None = option(
        None, "CSV or Parquet with clip_id, path and label columns; a bundled model has its own clips"
    )
    corpus: str = option(
        "", "--manifest is the folder of this corpus: auto, ravdess, esc50, tinysol, vocalsound, asvspoof5, …"
    )
    part: str = option("", "which blocks, of a model that has several lists of them: encoder or decoder")
    probe: str = option("", "a label column: fit a probe to it as the readout of a model without a classifier")
    adapter: str = option(
        "",
        "a LoRA folder of peft's that is merged into the model's weights; none to leave out one that lies beside them",
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", decides=False)
    dtype: str = option("auto", "auto, float32, bfloat16, float16, or int8 or int4 (bitsandbytes, audio LLMs)")
    max_clips: int | None = option(None, "only the first N rows of the manifest", least=1)
    max_seconds: float = option(30.0, "the longest clip that is taken", most=86_400)
    map_labels: tuple[str, ...] = option(
        (),
        "labels of the clips read as answers of the model, like hap=happy,neu=neutral",
        label="Labels read as answers",
        placeholder="hap=happy, neu=neutral",
        rare=True,
    )
    skip_bad: bool = option(False, "leave out rows that cannot be used instead of stopping")
    pilot: int | None = option(
        None,
        "only a small part: N pairs of each kind (patch), N clips of each class (heads) or split (ablate), N clips "
        "otherwise",
        least=1,
    )
    batch_size: int = option(8, "pairs or clips in one pass; halved when memory runs out", least=1, decides=False)
    seed: int = option(42, "of every draw", least=0, most=2**31 - 1, label="Seed", rare=True)

    command: ClassVar[str]
    """Its command on the command line, the beginning of its run folders' names, and its entry in the registry."""
    config_file: ClassVar[str]
    """The file of a run folder that holds its config."""
    about: ClassVar[str]
    """What the command does, in a line of help."""
    demo: ClassVar[str] = "demo-emotion"
    """A bundled model that suits it."""
    file_fields: ClassVar[tuple[str, ...]] = ()
    """Settings that name a further file, whose content is a part of the run's key."""
    unused: ClassVar[Mapping[str, str]] = {}
    """Settings of every request that change nothing in this one, and why."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Names of settings in configs of earlier versions -> today's."""

    def __post_init__(self) -> None:
        for one in declared(type(self)):
            value = getattr(self, one.name)
            if one.several and isinstance(value, list):
                object.__setattr__(self, one.name, tuple(value))

    def __repr__(self) -> str:
        """The Python that makes it; subclasses are dataclasses with `repr=False`."""
        return python_call(self)

    def check(self) -> None:
        """Refuse what no model could do, all of it at once.

        Raises:
            InterpError: no model, a value that is none of the choices or out of bounds, settings that exclude others.
        """
        faults = [fault for one in declared(type(self)) for fault in one.faults(getattr(self, one.name))]
        if not any(one.misfit(getattr(self, one.name)) for one in declared(type(self))):
            faults += [*idle(self), *self.conflicts()]
        if not self.model:
            faults.insert(0, f"--model is missing; give a bundled name ({self.demo}), a folder, a file, or a hub id")
        if faults:
            raise InterpError("; ".join(faults) + ".")

    def check_beside(self, found: Self) -> None:
        """Refuse a setting that changes nothing beside what was found of those that are left open: InterpError."""
        if faults := idle(self, found):
            raise InterpError("; ".join(faults) + ".")

    def counting(self, keep: Collection[str] = ()) -> Self:
        """The same, without the settings that change nothing beside the others, but for those in `keep`."""
        left_out = {one.name: one.default for one in declared(type(self)) if one.idle_in(self) and one.name not in keep}
        return replace(self, **left_out)

    def conflicts(self) -> list[str]:
        """What is wrong with settings together, each the rest of a sentence; for experiments to extend."""
        return []

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it names, its own first."""
        return (self.model,)

    @property
    def adapters(self) -> tuple[str, ...]:
        """What is merged into each of `models`."""
        return (self.adapter,)

    @property
    def corpus_choices(self) -> Mapping[str, Any] | None:
        """Further settings of its corpus's reader."""
        return None

    @property
    def key(self) -> str:
        """Names what is asked, by the places of its files."""
        return _named(self.command, deciding(self))

    def key_with(self, content: Sequence[Any]) -> str:
        """Names the run: two sessions that ask for the same of the same files share one job and one folder.

        Args:
            content: JSON that stands for all files that it names, in the place of where they lie.
        """
        settings = {name: value for name, value in deciding(self).items() if name not in PLACES}
        return _named(self.command, settings, content)

    @property
    def title(self) -> str:
        """What a person sees while it runs."""
        return f"{self.command} {model_named(self.model, self.adapter)}"

    def folder_of(self, key: str) -> str:
        """The name of its run folder, where nobody gives one."""
        return f"{self.command}-{Path(self.model).name}-{key}"

    def command_line(self, out: str = "runs/again") -> str:
        """The command that runs it."""
        return command_line(self.command, self, out=out)

    def snippet(self) -> str:
        """The Python that runs it."""
        return (
            f"from interp_core import {type(self).__name__}, run\n\nresult = run({python_call(self)})\nresult.metrics"
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The request that a run's config came from, with everything that was found when it was prepared.

        Settings that change nothing beside the others are at their default; `as_saved` has them as they were.

        Raises:
            InterpError: the config of another experiment, or of another version.
        """
        return cls.as_saved(config).counting()

    @classmethod
    def as_saved(cls, config: Mapping[str, Any]) -> Self:
        """As `from_config`, with every setting as the config says it."""
        if config.get("command") != cls.command:
            raise InterpError(f"the config is one of {config.get('command')!r}; give that of a {cls.command!r} run.")
        try:
            # Version 0.1 kept the common choices apart, under `request`.
            saved: dict[str, Any] = {**config.get("request", {}), **config["settings"]}
            saved.setdefault("max_seconds", config["clip_seconds"]["max"])
            saved |= {
                "model": config["model"]["id"],
                "manifest": config["manifest"]["path"],
                "device": config["device"],
                "dtype": config["dtype"],
            }
            saved |= cls.facts_of(config)
            saved = {cls.renamed.get(name, name): value for name, value in saved.items()}
            made: Self = from_config(cls, cls.upgraded(saved))
            return made
        except (KeyError, TypeError, AttributeError) as error:
            raise InterpError(
                f"the config is not that of a {cls.command!r} run: {error} is missing or wrong."
            ) from error

    def value_of(self, name: str) -> Any:
        """One of its settings by name."""
        return getattr(self, name)

    def is_that_of(self, config: Mapping[str, Any]) -> bool:
        """Whether a run's config was made for this request, or says the same in every setting but those of places."""
        made, then = type(self).as_saved(config), config.get("asked")
        if not isinstance(then, Mapping):
            return False
        return all(
            self.value_of(one.name) in (_value(one, then.get(one.name, one.default)), made.value_of(one.name))
            for one in declared(type(self))
            if one.name not in PLACES
        )

    def differences_from(self, config: Mapping[str, Any]) -> list[str]:
        """In which settings the run that a config came from is not what is asked, in words.

        A setting that is left open, here or in what was asked then, is none: the run has found it.
        """
        made = type(self).from_config(config)
        then = config.get("asked") if isinstance(config.get("asked"), Mapping) else None
        same = {}
        for one in declared(type(self)):
            now = getattr(self, one.name)
            left_open = now == one.default if then is None else now == _value(one, then.get(one.name, one.default))
            if left_open or one.name in ("model", "manifest"):
                same[one.name] = now
        return differences(self, replace(made, **same))

    @classmethod
    def facts_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that a config says elsewhere; for experiments to extend."""
        return {}

    @classmethod
    def upgraded(cls, saved: dict[str, Any]) -> dict[str, Any]:
        """The settings of an earlier version as today's; for experiments to extend."""
        return saved


def short_name(model: str) -> str:
    """A model for a person: its bundled name, or the last parts of its path."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.suffix else path.name


def model_named(model: str, adapter: str) -> str:
    """A model with what is merged into it, for a person."""
    return short_name(model) + (f" with {short_name(adapter)}" if adapter not in ("", "none") else "")


def _named(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _value(one: Declared, saved: Any) -> Any:
    return tuple(saved) if one.several and isinstance(saved, list) else saved
