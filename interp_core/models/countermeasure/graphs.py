"""AASIST's back end: two graphs of nodes, one over the spectrum and one over time, read together.

Modules are called as in the published state dicts. Dropout, which acts in training alone, is left out.

Source: Jung et al. 2022, "AASIST: Audio anti-spoofing using integrated spectro-temporal graph attention networks",
arXiv:2110.01200; github.com/clovaai/aasist (commit a04c986), models/AASIST.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class GraphSizes:
    """What the graphs' weights do not show.

    Attributes:
        kept_s, kept_t, kept: shares of the nodes that pooling keeps: of the spectral graph, of the temporal one, and of
            both behind the first layer that joins them.
        temperature, joint_temperature: what attention scores are divided by in the single graphs and in the joint ones.
    """

    kept_s: float
    kept_t: float
    kept: float
    temperature: float = 2.0
    joint_temperature: float = 100.0


class GraphAttention(nn.Module):
    """Attention among the nodes of one graph: [batch, nodes, width_in] -> [batch, nodes, width_out]."""

    def __init__(self, width_in: int, width_out: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.att_proj = nn.Linear(width_in, width_out)
        self.att_weight = nn.Parameter(torch.zeros(width_out, 1))
        self.proj_with_att = nn.Linear(width_in, width_out)
        self.proj_without_att = nn.Linear(width_in, width_out)
        self.bn = nn.BatchNorm1d(width_out)

    def forward(self, nodes: Tensor) -> Tensor:
        pairs = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))  # [batch, nodes, nodes, width_out]
        share = ((pairs @ self.att_weight).squeeze(-1) / self.temperature).softmax(-1)
        return _normed(self.bn, self.proj_with_att(share @ nodes) + self.proj_without_att(nodes))


class JointAttention(nn.Module):
    """Attention among the nodes of two graphs, with weights of its own for pairs in the first, in the second and across
    both; and a master node that reads all of them."""

    def __init__(self, width_in: int, width_out: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.proj_type1, self.proj_type2 = nn.Linear(width_in, width_in), nn.Linear(width_in, width_in)
        self.att_proj, self.att_projM = nn.Linear(width_in, width_out), nn.Linear(width_in, width_out)
        self.att_weight11, self.att_weight22 = (nn.Parameter(torch.zeros(width_out, 1)) for _ in range(2))
        self.att_weight12, self.att_weightM = (nn.Parameter(torch.zeros(width_out, 1)) for _ in range(2))
        self.proj_with_att, self.proj_without_att = nn.Linear(width_in, width_out), nn.Linear(width_in, width_out)
        self.proj_with_attM, self.proj_without_attM = nn.Linear(width_in, width_out), nn.Linear(width_in, width_out)
        self.bn = nn.BatchNorm1d(width_out)

    def forward(self, first: Tensor, second: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return both graphs and the master node, each [batch, nodes or 1, width_out]."""
        n_first = first.shape[1]
        nodes = torch.cat([self.proj_type1(first), self.proj_type2(second)], 1)
        pairs = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))  # [batch, nodes, nodes, width_out]
        weights = torch.cat([self.att_weight11, self.att_weight12, self.att_weight22], 1)
        scores = pairs @ weights  # of each pair of nodes under all three weights
        kind = (torch.arange(nodes.shape[1], device=nodes.device) >= n_first).long()
        kinds = (kind[:, None] + kind)[None, :, :, None].expand(len(nodes), -1, -1, 1)
        share = (scores.gather(-1, kinds).squeeze(-1) / self.temperature).softmax(-1)
        toward = torch.tanh(self.att_projM(nodes * master)) @ self.att_weightM / self.temperature
        master = self.proj_with_attM(toward.softmax(1).transpose(1, 2) @ nodes) + self.proj_without_attM(master)
        nodes = _normed(self.bn, self.proj_with_att(share @ nodes) + self.proj_without_att(nodes))
        return nodes[:, :n_first], nodes[:, n_first:], master


class GraphPool(nn.Module):
    """The nodes with the highest scores, the highest first, each times its score."""

    def __init__(self, width: int, kept: float):
        super().__init__()
        self.kept = kept
        self.proj = nn.Linear(width, 1)

    def forward(self, nodes: Tensor) -> Tensor:
        scores = self.proj(nodes).sigmoid()
        _, best = scores.topk(max(int(nodes.shape[1] * self.kept), 1), dim=1)
        return (nodes * scores).gather(1, best.expand(-1, -1, nodes.shape[2]))


class SpectroTemporalGraphs(nn.Module):
    """From the features of spectral and temporal nodes to the vector that the classifier reads.

    Args:
        n_spectral: nodes of the spectral graph.
        width: of a node's features. inner, outer: of a node in the single graphs and in the joint ones.
        sizes: what the weights do not show.
    """

    def __init__(self, n_spectral: int, width: int, inner: int, outer: int, sizes: GraphSizes):
        super().__init__()
        self.pos_S = nn.Parameter(torch.zeros(1, n_spectral, width))
        self.master1 = nn.Parameter(torch.zeros(1, 1, inner))
        self.master2 = nn.Parameter(torch.zeros(1, 1, inner))
        self.GAT_layer_S = GraphAttention(width, inner, sizes.temperature)
        self.GAT_layer_T = GraphAttention(width, inner, sizes.temperature)
        for branch in "12":
            self.add_module(f"HtrgGAT_layer_ST{branch}1", JointAttention(inner, outer, sizes.joint_temperature))
            self.add_module(f"HtrgGAT_layer_ST{branch}2", JointAttention(outer, outer, sizes.joint_temperature))
            self.add_module(f"pool_hS{branch}", GraphPool(outer, sizes.kept))
            self.add_module(f"pool_hT{branch}", GraphPool(outer, sizes.kept))
        self.pool_S = GraphPool(inner, sizes.kept_s)
        self.pool_T = GraphPool(inner, sizes.kept_t)

    def joined(self, spectral: Tensor, temporal: Tensor) -> Tensor:
        """[batch, 5 outer] of nodes [batch, n_spectral, width] and [batch, n_temporal, width]."""
        spectral = self.pool_S(self.GAT_layer_S(spectral + self.pos_S))
        temporal = self.pool_T(self.GAT_layer_T(temporal))
        branches = [self._branch(branch, spectral, temporal) for branch in "12"]
        of_time, of_spectrum, master = (torch.maximum(*each) for each in zip(*branches, strict=True))
        parts = [part for nodes in (of_time, of_spectrum) for part in (nodes.abs().amax(1), nodes.mean(1))]
        return torch.cat([*parts, master.squeeze(1)], 1)

    def _branch(self, branch: str, spectral: Tensor, temporal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def part(name: str) -> nn.Module:
            return self.get_submodule(name)

        master = self.get_parameter(f"master{branch}").expand(len(spectral), -1, -1)
        temporal, spectral, master = part(f"HtrgGAT_layer_ST{branch}1")(temporal, spectral, master)
        spectral, temporal = part(f"pool_hS{branch}")(spectral), part(f"pool_hT{branch}")(temporal)
        more = part(f"HtrgGAT_layer_ST{branch}2")(temporal, spectral, master)
        return temporal + more[0], spectral + more[1], master + more[2]


class Residual(nn.Module):
    """Two convolutions over spectrum and time, and what went in: [batch, width_in, bands, frames] to width_out.

    `bn1` has weights and acts on nothing: the published code norms what goes in, and then convolves what it was before.

    Args:
        first: whether it is the first of its row, which has no `bn1`.
        thins: whether three frames become one at its end.
    """

    def __init__(self, width_in: int, width_out: int, *, first: bool = False, thins: bool = False):
        super().__init__()
        self.bn1 = None if first else nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, (2, 3), padding=(1, 1))
        self.bn2 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, (2, 3), padding=(0, 1))
        self.conv_downsample = nn.Conv2d(width_in, width_out, (1, 3), padding=(0, 1)) if width_in != width_out else None
        self.thins = thins

    def forward(self, image: Tensor) -> Tensor:
        beside = image if self.conv_downsample is None else self.conv_downsample(image)
        image = beside + self.conv2(F.selu(self.bn2(self.conv1(image))))
        return F.max_pool2d(image, (1, 3)) if self.thins else image


def residuals(widths: tuple[int, ...], *, thins: bool) -> nn.Sequential:
    """The row of residual units from the first width to the last, each in a row of its own as it was published."""
    pairs = zip(widths, widths[1:], strict=False)
    return nn.Sequential(*(nn.Sequential(Residual(*pair, first=not i, thins=thins)) for i, pair in enumerate(pairs)))


class SslGraphs(SpectroTemporalGraphs):
    """SSL-AASIST's pooling: the frames of a self-supervised trunk as an image, whose rows and columns become nodes.

    Source: Tak et al. 2022, arXiv:2202.12233; github.com/TakHemlata/SSL_Anti-spoofing (commit 4acaa61), model.py.
    """

    def __init__(self, d_model: int, bands: int, widths: tuple[int, ...], inner: int, outer: int, sizes: GraphSizes):
        super().__init__(bands // 3, widths[-1], inner, outer, sizes)
        self.LL = nn.Linear(d_model, bands)
        self.first_bn, self.first_bn1 = nn.BatchNorm2d(1), nn.BatchNorm2d(widths[-1])
        self.encoder = residuals(widths, thins=False)
        wide = 2 * widths[-1]
        self.attention = nn.Sequential(
            nn.Conv2d(widths[-1], wide, 1), nn.SELU(), nn.BatchNorm2d(wide), nn.Conv2d(wide, widths[-1], 1)
        )

    def forward(self, frames: Tensor, n_samples: int) -> Tensor:
        """[batch, pos, d_model] -> [batch, 5 outer]."""
        image = F.max_pool2d(self.LL(frames).transpose(1, 2)[:, None], 3)  # [batch, 1, bands / 3, pos / 3]
        image = F.selu(self.first_bn1(self.encoder(F.selu(self.first_bn(image)))))
        scores = self.attention(image)
        spectral = (image * scores.softmax(-1)).sum(-1)  # [batch, width, bands / 3]
        temporal = (image * scores.softmax(-2)).sum(-2)
        return self.joined(spectral.transpose(1, 2), temporal.transpose(1, 2))


def _normed(norm: nn.BatchNorm1d, nodes: Tensor) -> Tensor:
    return F.selu(norm(nodes.flatten(0, 1)).view_as(nodes))
