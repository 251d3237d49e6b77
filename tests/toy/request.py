"""What the toy experiment is asked: how loud every clip is, in a model's own samples."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from interp_core.options import option
from interp_core.request import Request


@dataclass(frozen=True, repr=False)
class LoudnessRequest(Request):
    """Loudness of every clip."""

    measure: Literal["rms", "peak"] = option("rms", "what is measured", label="Measure")

    command: ClassVar[str] = "loudness"
    config_file: ClassVar[str] = "loudness_config.json"
    about: ClassVar[str] = "how loud every clip is"
