"""What a run imports on its way, imported by the fork server of `processes.py` before there is any command."""

import gc

import matplotlib.backends.backend_agg  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.linear_model  # noqa: F401
import sklearn.model_selection  # noqa: F401
import soundfile  # noqa: F401
import transformers.models.auto.modeling_auto  # noqa: F401
import transformers.models.qwen2.modeling_qwen2  # noqa: F401
import transformers.models.qwen2_audio.modeling_qwen2_audio  # noqa: F401
import transformers.models.wavlm.modeling_wavlm  # noqa: F401

import interp_core.__main__  # noqa: F401
import interp_core.engine  # noqa: F401
import interp_core.experiments.sharded  # noqa: F401
from interp_core.experiments import EXPERIMENTS, experiment_of

for name in EXPERIMENTS:
    experiment_of(name)
gc.freeze()  # a child that counts references in what it only reads would copy it
