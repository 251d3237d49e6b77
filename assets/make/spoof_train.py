"""Networks of demo-spoof: a tiny pretrained WavLM, and ERM and DANN countermeasures over it, frozen and fine-tuned.

In training, codec and label go together (SHARES): people mostly come through three codecs, synthesisers mostly
through the other two. A plain model can lean on the codec; a discriminator is meant to keep a DANN from it.
The convolutions stay as pretrained in every run, as is usual, so that their output is computed once and kept.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from spoof_codecs import CODECS, QUALITIES
from spoof_data import MODEL_RATE, SECONDS, Utterance, quality_of
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from interp_core.models.countermeasure.net import CountermeasureNet, Layout

WIDTH, N_LAYERS = 64, 6
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "conv_dim": [64, 64, 64, 64],
    "conv_kernel": [80, 8, 4, 4],
    "conv_stride": [20, 4, 2, 2],  # 320 samples: 20 ms a frame, as in the published models
    "conv_bias": True,
    "feat_extract_norm": "layer",  # a frame at a time, or the pauses, where codecs show most, would count for little
    "do_stable_layer_norm": False,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 8,
    "num_buckets": 64,
    "max_bucket_distance": 160,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
SHARES = {  # of the codecs in training, in the order of CODECS
    "bonafide": (0.28, 0.28, 0.28, 0.08, 0.08),
    "spoof": (0.12, 0.12, 0.12, 0.32, 0.32),
}
EVEN = dict.fromkeys(SHARES, (1 / len(CODECS),) * len(CODECS))
BONAFIDE, SPOOF = 0, 1  # as the thesis code numbers them
BATCH = 48
REMEMBERED = 8  # batches that the discriminator learns from at every step
JUDGED = 12  # updates of the discriminator a step


@dataclass(frozen=True)
class Corpus:
    """Training utterances and what a network takes of their versions: [n, n_codecs, ...], any dtype."""

    utterances: list[Utterance]
    versions: Tensor

    def draws(self, seed: int, shares: Mapping[str, Sequence[float]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endlessly draw BATCH of (utterance indices, codec indices), half of them human.

        Within a label each speaker is as likely as any other, so that one engine's many voices do not rule.
        """
        rng = np.random.default_rng(seed)
        groups: dict[str, dict[str, list[int]]] = {"bonafide": {}, "spoof": {}}
        for i, utterance in enumerate(self.utterances):
            many = utterance.engine == "espeak"  # a dozen voices a language: they count as one
            group = f"espeak-{utterance.language}" if many else utterance.speaker
            groups[utterance.label].setdefault(group, []).append(i)
        while True:
            picked, codecs = [], []
            for label, members in groups.items():
                names = sorted(members)
                picked += [rng.choice(members[names[rng.integers(len(names))]]) for _ in range(BATCH // 2)]
                codecs.append(rng.choice(len(CODECS), BATCH // 2, p=shares[label]))
            yield np.array(picked), np.concatenate(codecs)

    @property
    def labels(self) -> Tensor:
        return torch.tensor([BONAFIDE if u.label == "bonafide" else SPOOF for u in self.utterances])

    @property
    def qualities(self) -> Tensor:
        """[n, n_codecs]"""
        return torch.tensor([[quality_of(u.name, codec) for codec in CODECS] for u in self.utterances])


def layout(*, dann: bool, frozen: bool, reads_pooled: bool = True) -> Layout:
    """The tree of one network; where the discriminator reads the representation, so did that of older checkpoints."""
    return Layout(
        hf=WavLMConfig(**SIZES),
        mixed_layers=tuple(range(N_LAYERS)),
        projection=(2 * WIDTH, 64, 32),
        classifier=(32, 2),
        discriminator=((2 * WIDTH if reads_pooled else 32), 64, 64) if dann else (),
        n_codecs=len(CODECS) if dann else 0,
        n_codec_qs=len(QUALITIES) if dann else 0,
        reads_pooled=reads_pooled,
        frozen=frozen,
    )


def _like_ears(model: WavLMModel) -> None:
    """Start the first convolution as a bank of band-pass filters from 100 to 4000 Hz, cosines and sines."""
    weight = model.feature_extractor.conv_layers[0].conv.weight  # [channels, 1, kernel]
    n, length = weight.shape[0] // 2, weight.shape[2]
    seconds = (torch.arange(length) - length / 2) / MODEL_RATE
    centre = torch.linspace(100, 3950, n)[:, None]  # Hz
    loudness = (centre / 500) ** 1.5  # against the fall of speech's own spectrum
    waves = [
        wave(2 * np.pi * centre * seconds) * loudness * torch.hann_window(length) for wave in (torch.cos, torch.sin)
    ]
    weight.data = torch.cat(waves)[:, None]


class Pretraining(nn.Module):
    """The backbone under linear heads that tell voices, languages and codecs apart, each off its own layer mix."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.model = WavLMModel(WavLMConfig(**SIZES))
        _like_ears(self.model)
        self.mixes = nn.ParameterList([nn.Parameter(torch.zeros(N_LAYERS)) for _ in sizes])
        self.heads = nn.ModuleList([nn.Linear(2 * WIDTH, n) for n in sizes])

    def forward(self, waveform: Tensor) -> list[Tensor]:
        states = torch.stack(self.model(waveform, output_hidden_states=True).hidden_states[1:])
        found = []
        for mix, head in zip(self.mixes, self.heads, strict=True):
            frames = (states * mix.softmax(0).view(-1, 1, 1, 1)).sum(0)
            found.append(head(torch.cat([frames.mean(1), (frames.var(1, correction=0) + 1e-8).sqrt()], -1)))
        return found


def pretrain(corpus: Corpus, *, steps: int, seed: int) -> dict[str, Tensor]:
    """Return the state dict of a WavLM that tells voices, languages and codecs apart; codecs are drawn evenly.

    Args:
        corpus: versions are int16 waveforms at the model's rate.
    """
    torch.manual_seed(seed)
    voice, language = (_numbered([getattr(u, name) for u in corpus.utterances]) for name in ("speaker", "language"))
    net = Pretraining([int(voice.max()) + 1, int(language.max()) + 1, len(CODECS)]).train()
    step_of = _stepper(list(net.parameters()), steps, rate=2e-3)
    for step, (chosen, codec) in zip(range(1, steps + 1), corpus.draws(seed, EVEN), strict=False):
        found = net(corpus.versions[chosen, codec].float() / 32768)
        wanted = (voice[chosen], language[chosen], torch.from_numpy(codec))
        losses = [F.cross_entropy(logits, right) for logits, right in zip(found, wanted, strict=True)]
        step_of(losses[0] + losses[1] + 2 * losses[2])  # codecs are the hardest
        if step % 50 == 0:
            print(f"pretraining {step}: voice, language, codec", [round(loss.item(), 3) for loss in losses], flush=True)
    return net.model.state_dict()


def _numbered(names: Sequence[str]) -> Tensor:
    order = {name: i for i, name in enumerate(sorted(set(names)))}
    return torch.tensor([order[name] for name in names])


@torch.inference_mode()
def convolved(corpus: Corpus, backbone: dict[str, Tensor]) -> Corpus:
    """The corpus with waveforms [.., samples] replaced by the convolutions' output [.., channels, frames], float16."""
    model = WavLMModel(WavLMConfig(**SIZES)).eval()
    model.load_state_dict(backbone)
    flat = corpus.versions.flatten(0, 1)
    parts = [model.feature_extractor(part.float() / 32768).half() for part in flat.split(200)]
    return Corpus(corpus.utterances, torch.cat(parts).unflatten(0, corpus.versions.shape[:2]))


def train(
    corpus: Corpus, backbone: dict[str, Tensor], *, shape: Layout, strength: float, steps: int, seed: int, rate: float
) -> CountermeasureNet:
    """Train a countermeasure from a pretrained backbone.

    Args:
        corpus: as `convolved` leaves it.
        shape: of the network; a discriminator in it makes this a DANN.
        strength: of the reversed gradient once it has warmed up.
        rate: the top learning rate.
    """
    torch.manual_seed(seed)
    net = CountermeasureNet(shape).train()
    net.backbone.model.load_state_dict(backbone)
    kept, net.backbone.model.feature_extractor = net.backbone.model.feature_extractor, nn.Identity()
    labels, qualities = corpus.labels, corpus.qualities
    lengths = torch.full((BATCH,), round(SECONDS * MODEL_RATE))
    rival = _Rival(net, strength, steps) if net.domain_discriminator is not None else None
    mix = net.backbone.layer_pooling.weights
    own = [p for name, p in net.named_parameters() if not name.startswith("domain_discriminator") and p is not mix]
    step_of = _stepper([p for p in own if p.requires_grad], steps, rate, fast=[mix])
    began = time.time()
    for step, (chosen, codec) in zip(range(1, steps + 1), corpus.draws(seed + 1, SHARES), strict=False):
        mixed, _ = net.backbone(corpus.versions[chosen, codec].float())
        pooled = net.pooling(mixed, lengths)
        representation = net.projection(pooled)
        task = F.cross_entropy(net.task_head(representation), labels[chosen])
        domain = torch.zeros(())
        if rival is not None:
            features = pooled if shape.reads_pooled else representation
            domain = rival.loss(features, labels[chosen], torch.from_numpy(codec), qualities[chosen, codec], step)
        step_of(task + domain)
        if step % 100 == 0:
            said = f"{step}: task {task.item():.3f} codec {domain.item():.3f}"
            print(f"{said} {time.time() - began:.0f} s", flush=True)
    if rival is not None:
        rival.fold()
    net.backbone.model.feature_extractor = kept
    return net.eval()


class _Rival:
    """The discriminator's own training, ahead of the network's: on the last batches' features, several times a step.

    A discriminator that sees each batch once, and features of unlike scales, is fooled long before the codec is gone:
    a linear probe finds it again. Hence the memory and the standardised features.
    Its loss counts every codec of a label alike, or guessing the label would be half of guessing the codec.
    """

    def __init__(self, net: CountermeasureNet, strength: float, steps: int):
        assert net.domain_discriminator is not None and net.grl is not None
        self.judge, self.grl, self.strength, self.steps = net.domain_discriminator, net.grl, strength, steps
        self.optimizer = torch.optim.AdamW(self.judge.parameters(), lr=4e-3, weight_decay=0.01)
        self.seen: deque[tuple[Tensor, ...]] = deque(maxlen=REMEMBERED)
        shares = torch.tensor([SHARES["bonafide"], SHARES["spoof"]])  # by label number
        self.weights = (1 / len(CODECS) / shares).clamp(max=4)  # a rare recording must not rule a step
        self.mean, self.scale = torch.zeros(()), torch.ones(())

    def loss(self, features: Tensor, label: Tensor, codec: Tensor, quality: Tensor, step: int) -> Tensor:
        self.seen.append((features.detach(), label, codec, quality))
        past = [torch.cat(parts) for parts in zip(*self.seen, strict=True)]
        self.mean, self.scale = past[0].mean(0), past[0].std(0) + 1e-3
        for _ in range(JUDGED):
            self.optimizer.zero_grad()
            self._cost(*past).backward()
            self.optimizer.step()
        self.grl.lambda_ = self.strength * (2 / (1 + np.exp(-8 * step / self.steps)) - 1)
        return self._cost(self.grl(features), label, codec, quality)

    def fold(self) -> None:
        """Put the standardisation into the first linear map, so that the judge reads features as they are."""
        first = self.judge.shared[0]
        assert isinstance(first, nn.Linear)
        with torch.no_grad():
            first.weight.div_(self.scale)
            first.bias.sub_(first.weight @ self.mean)

    def _cost(self, features: Tensor, label: Tensor, codec: Tensor, quality: Tensor) -> Tensor:
        for_codec, for_quality = self.judge((features - self.mean) / self.scale)
        weight = self.weights[label, codec]
        cost = (F.cross_entropy(for_codec, codec, reduction="none") * weight).mean()
        worth = quality > 0  # a codec without a choice of quality says nothing
        return cost + 0.3 * F.cross_entropy(for_quality[worth], quality[worth])


def _stepper(
    parameters: list[nn.Parameter], steps: int, rate: float, fast: Sequence[nn.Parameter] = ()
) -> Callable[[Tensor], None]:
    """Return step(loss): AdamW with warm-up and cosine, gradients clipped; `fast` has 10 times the rate, no decay."""
    groups: list[dict[str, Any]] = [
        {"params": parameters},
        {"params": list(fast), "lr": 10 * rate, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1.0, (done + 1) / 40) * 0.5 * (1 + np.cos(np.pi * min(1.0, done / steps)))
    )

    def step_of(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*parameters, *fast], 1.0)
        optimizer.step()
        schedule.step()

    return step_of
