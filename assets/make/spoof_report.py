"""How well the countermeasures of demo-spoof do on recordings held out of training, by the product's own measures."""

import platform
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import transformers
from spoof_codecs import CODECS
from spoof_data import MODEL_RATE, SECONDS, Utterance, model_input

from interp_core.maths.probes import linear_probe
from interp_core.maths.scores import detection
from interp_core.models.countermeasure.checkpoint import bonafide_margin
from interp_core.models.countermeasure.net import CountermeasureNet

REPRESENTATIONS = ("mixed", "pooled", "repr")


@torch.inference_mode()
def run(net: CountermeasureNet, versions: np.ndarray) -> dict[str, np.ndarray]:
    """Margins and representations of recordings.

    Args:
        versions: [n, samples] int16 at 8 kHz.
    Returns:
        margin [n]; mixed (time mean), pooled, repr [n, width]; layers [n, n_layers, d_model], time means.
    """
    found: dict[str, list[torch.Tensor]] = {name: [] for name in ("margin", "layers", *REPRESENTATIONS)}
    for start in range(0, len(versions), 200):
        waveform = torch.from_numpy(model_input(versions[start : start + 200]))
        out = net(waveform, lengths=torch.full((len(waveform),), round(SECONDS * MODEL_RATE)))
        found["margin"].append(bonafide_margin(out["task_logits"]))
        found["mixed"].append(out["mixed"].mean(1))
        found["pooled"].append(out["pooled"])
        found["repr"].append(out["repr"])
        found["layers"].append(torch.stack([state.mean(1) for state in out["all_hidden_states"]], 1))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def measure(net: CountermeasureNet, utterances: Sequence[Utterance], versions: np.ndarray) -> dict:
    """Equal error rates and codec probes.

    Args:
        versions: [n_utterances, n_codecs, samples] int16 at 8 kHz.
    Returns:
        eer: `all`, then by codec (both labels of it), by engine and by human speaker (all of the other label pooled).
        probe: balanced accuracy of a linear codec probe, by label and representation; folds hold utterances apart.
    """
    found = run(net, versions.reshape(-1, versions.shape[-1]))
    n = len(CODECS)
    codec = np.array(list(CODECS) * len(utterances))
    human = np.repeat([u.label == "bonafide" for u in utterances], n)
    maker = np.repeat([f"{u.speaker} ({u.language})" if u.label == "bonafide" else u.engine for u in utterances], n)
    group = np.repeat([u.name for u in utterances], n)

    def eer(rows: np.ndarray) -> float:
        return round(detection(found["margin"][rows], human[rows]).eer, 4)

    rates = {"all": eer(np.ones(len(human), bool))}
    rates |= {name: eer(codec == name) for name in CODECS}
    rates |= {str(name): eer((maker == name) | human) for name in sorted(set(maker[~human]))}
    rates |= {str(name): eer((maker == name) | ~human) for name in sorted(set(maker[human]))}
    probes: dict[str, dict[str, float]] = {}
    for label, rows in (("bonafide", human), ("spoof", ~human)):
        probes[label] = {
            name: _codec_probe(values[rows], codec[rows], group[rows])
            for name, values in (*((name, found[name]) for name in REPRESENTATIONS), *_by_layer(found["layers"]))
        }
    return {"n_bonafide": int(human.sum()), "n_spoof": int((~human).sum()), "eer": rates, "codec_probe": probes}


def _by_layer(layers: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(f"layer {i}", layers[:, i]) for i in range(layers.shape[1])]


def _codec_probe(values: np.ndarray, codec: np.ndarray, group: np.ndarray) -> float:
    return round(linear_probe(values, codec.tolist(), group, draws=0).accuracy, 4)


def mix(net: CountermeasureNet) -> list[float]:
    """The share of every layer in the mix."""
    return [round(share, 4) for share in net.backbone.layer_pooling.weights.softmax(0).tolist()]


def counts(utterances: Sequence[Utterance]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for utterance in utterances:
        key = f"{utterance.label} {utterance.speaker if utterance.label == 'bonafide' else utterance.engine}"
        key += f" ({utterance.language})"
        found[key] = found.get(key, 0) + 1
    return dict(sorted(found.items()))


def versions_used() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
