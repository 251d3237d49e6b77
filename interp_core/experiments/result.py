"""What a finished run is, whichever experiment made it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from interp_core.experiments.example import Example
from interp_core.request import short_name


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A finished run; experiments add their tables, and `metrics`: the one that answers the question.

    Attributes:
        config: settings, model, clips, versions.
    """

    config: Mapping[str, Any]

    profile_x: ClassVar[str] = "place"
    """What the x of `profile` is."""
    limits: ClassVar[str] = ""
    """What the numbers do not show, as a list in markdown."""

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of the run by name, the one that answers the question first."""
        raise NotImplementedError

    def figure(self) -> Figure:
        """The figure of the run folder, for matplotlib."""
        raise NotImplementedError

    def figures(self) -> dict[str, Figure]:
        """Every figure for paper by name, that of the run folder first."""
        return {"figure": self.figure()}

    def checks(self) -> Sequence[Mapping[str, Any]]:
        """The checks before the run: check, method where there are several, max_difference, allowed, passed."""
        return ()

    def remarks(self) -> Sequence[str]:
        """What a reader has to know before the numbers, in sentences."""
        return ()

    def examples(self, most: int) -> Sequence[Example]:
        """Up to `most` pairs of clips that show what the run is about, to be heard."""
        return ()

    def profile(self) -> pd.DataFrame:
        """The curves by which two runs are laid over each other.

        Returns:
            series (its name), x (a layer, a dose or the name of a place) and value, one row a point, in order.
        """
        raise NotImplementedError

    @property
    def model_name(self) -> str:
        """The model for a person."""
        return short_name(str(self.config["model"]["id"]))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(table)} rows" for name, table in self.tables().items() if len(table))
        finished = str(self.config.get("finished") or "")[:16].replace("T", " ")
        return f"<{type(self).__name__} {self.model_name}: {sizes}{f', {finished}' if finished else ''}>"

    def _repr_html_(self) -> str:
        """For a notebook: one line and the first rows of the metrics."""
        line = repr(self).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"<p>{line}</p>{next(iter(self.tables().values())).head(10).to_html(index=False)}"
