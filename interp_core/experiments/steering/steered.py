"""What a model answers to copies of one clip with a vector added to what a layer leaves.

Two routes give the same numbers:

- *reference*: the model's own forward with one hook, one forward a copy. The definition of right.
- *fast*: an addition behind layer l changes nothing before it, so the copies leave the clip's clean state of layer l as
  rows of one batch and travel through the blocks behind it. In a causal decoder the positions before the first edited
  one cannot change either: their keys and values are those of the clean run, but where computing all costs less.

An addition that is zero leaves the clip as it is, so its answer is that of the clean run and nothing is computed.
"""

import torch
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader, ReadyClip
from interp_core.experiments.steering.request import Positions, Route
from interp_core.models.labels import LabelTokens
from interp_core.sites import Site
from interp_core.trace.finite import check_finite, finite_run
from interp_core.trace.hooks import edited
from interp_core.trace.rows import BlockRows, CachedPrefixRows, RowRunner, first_computed


def steered_positions(reader: ClipReader, ready: ReadyClip, positions: Positions, layer: int, n_pos: int) -> Tensor:
    """[n_pos] bool: the positions behind a layer at which a vector is added."""
    if positions == "last":
        mask = torch.zeros(n_pos, dtype=torch.bool)
        mask[-1] = True
        return mask
    return reader.inside(ready, Site("resid_post", layer), n_pos)


class SteeredClip:
    """One clip under one prompt, ready for any number of steered copies.

    Args:
        reader: the model, asked something.
        clip: the recording.
        labels: whose logits are read.
        positions: where a vector is added: at those that hold the recording, or at the last one.
        together: copies in one pass, at most; halved where memory runs out.
        method: the route.
    Attributes:
        logits: [n_labels] float32, unedited, on the CPU. log_mass: log of the probability on the labels, unedited.
    """

    def __init__(
        self,
        reader: ClipReader,
        clip: Clip,
        labels: LabelTokens,
        positions: Positions = "audio",
        *,
        together: int = 64,
        method: Route = "fast",
    ) -> None:
        self._reader, self._labels, self._positions, self._method = reader, labels, positions, method
        self._subject, self._together = reader.subject, together
        self._ready = reader.ready(clip)
        self._stem = reader.stem(self._ready)
        self._runner: RowRunner | None = None
        with torch.inference_mode(), self._subject.lock:
            logits, log_mass = labels.read(self._clean())
        self.logits, self.log_mass = logits[0].cpu(), float(log_mass[0])

    @property
    def route(self) -> str:
        """Which way the copies go, in words."""
        if self._method == "reference":
            return "the model's own forward, one hook, one forward a copy"
        kept = "keys and values before the recording kept" if self._keeps_keys else "all positions"
        return f"from the layer on, copies in one batch, {kept}"

    def cost(self, layer: int) -> float:
        """Passes of the clip that one copy takes behind a layer, as block-positions."""
        n_layers = self._subject.n_layers
        behind = n_layers - layer - 1
        if self._method == "reference":
            return 1.0
        if not self._keeps_keys or not behind:
            return behind / n_layers
        n_pos = self._stem.n_pos
        tail = n_pos - first_computed(self._subject, n_pos, int(self.inside(0, n_pos).nonzero()[0]))
        return ((behind - 1) * tail + 1) / (n_layers * n_pos)  # the last block passes on what is read alone

    def inside(self, layer: int, n_pos: int) -> Tensor:
        """[n_pos] bool: the positions behind a layer at which a vector is added."""
        return steered_positions(self._reader, self._ready, self._positions, layer, n_pos)

    def answers(self, layer: int, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Add each vector to what a layer leaves, and read the answers.

        Args:
            layer: from 0.
            shifts: [copies, width], of the model's scale; a row of zeros is the clip as it is.
        Returns:
            Label logits [copies, n_labels] float32 and the log of the probability on the labels [copies], on the CPU.
        Raises:
            InterpError: no such layer, another width, or an answer that is NaN or infinite.
        """
        self._subject.locate(Site("resid_post", layer))
        logits = self.logits.repeat(len(shifts), 1)
        log_mass = torch.full((len(shifts),), self.log_mass)
        moving = shifts.any(-1)
        if not moving.any():
            return logits, log_mass
        logits[moving], log_mass[moving] = self.computed(layer, shifts[moving])
        return logits, log_mass

    def computed(self, layer: int, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """As `answers`, but a vector of zeros is added too, and not taken for the clip as it is."""
        with torch.inference_mode(), self._subject.lock:
            made = self._by_hook(layer, shifts) if self._method == "reference" else self._from(layer, shifts)
        check_finite(self._subject, made, [f"clip {self._ready.clip.clip_id!r} steered behind layer {layer}"])
        found, mass = self._labels.read(made)
        return found.cpu(), mass.cpu()

    # ---- the routes --------------------------------------------------------------------------------------------------

    @property
    def _keeps_keys(self) -> bool:
        return self._subject.shortcut_refusal() is None and self._reader.subject.takes == "recordings"

    def _clean(self) -> Tensor:
        """[1, n_classes] of the clip as it is."""
        if self._method == "reference":
            return finite_run(self._subject, [self._stem.clip_id], lambda: self._subject.forward(self._stem.inputs))
        if self._keeps_keys:
            return self._reader.store.run(self._ready.clip, self._reader.prompt).logits[None]
        runner = self._rows()
        return runner.logits(runner.start(self._subject.n_layers, runner.clean(self._subject.n_layers)))

    def _rows(self) -> RowRunner:
        """What the copies travel in; made once, and anew where fewer may travel together."""
        if self._runner is None:
            if self._keeps_keys:
                run = self._reader.store.run(self._ready.clip, self._reader.prompt)
                n_pos = run.prompted.n_pos
                first = first_computed(self._subject, n_pos, int(self.inside(0, n_pos).nonzero()[0]))
                self._runner = CachedPrefixRows(self._subject, [run], [run], [first], self._together)
            else:
                self._runner = BlockRows(self._subject, [self._stem])
        return self._runner

    def _from(self, layer: int, shifts: Tensor) -> Tensor:
        """[copies, n_classes]: the copies as rows of one batch, from the layer on."""
        while True:
            try:
                return torch.cat([self._travel(layer, part) for part in shifts.split(self._together)])
            except torch.OutOfMemoryError as error:
                if self._together == 1:
                    raise InterpError(
                        f"one steered copy of clip {self._ready.clip.clip_id!r} ({self._stem.n_pos} positions) does "
                        "not fit into the device's memory; use half precision, or a shorter clip."
                    ) from error
            self._together, self._runner = self._together // 2, None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _travel(self, layer: int, shifts: Tensor) -> Tensor:
        runner, last = self._rows(), self._subject.n_layers - 1
        own = runner.clean(layer + 1)  # [1, pos, width]
        whole = self._stem.n_pos if runner.reads_last else own.shape[1]
        at = runner.place(0, self.inside(layer, whole).nonzero().flatten()).to(own.device)
        hidden = own.repeat(len(shifts), 1, 1)
        hidden[:, at] += _of_width(shifts, own)[:, None]
        if layer == last and runner.reads_last:
            hidden = hidden[:, -1:]
        rows = runner.start(layer + 1, hidden)
        for later in range(layer + 1, self._subject.n_layers):
            rows = runner.finish(rows) if later == last else runner.run(later, rows)
        return runner.logits(rows)

    def _by_hook(self, layer: int, shifts: Tensor) -> Tensor:
        found = []
        for shift in shifts:

            def add(value: Tensor, shift: Tensor = shift) -> Tensor:
                value = value.clone()
                value[:, self.inside(layer, value.shape[1]).to(value.device)] += _of_width(shift[None], value)[0]
                return value

            with edited(self._subject, {Site("resid_post", layer): add}):
                found.append(self._subject.forward(self._stem.inputs))
        return torch.cat(found)


def _of_width(shifts: Tensor, like: Tensor) -> Tensor:
    if shifts.shape[-1] != like.shape[-1]:
        raise InterpError(f"a vector of {shifts.shape[-1]} numbers cannot be added to a state of {like.shape[-1]}.")
    return shifts.to(like)
