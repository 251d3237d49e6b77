"""What the donor-free transplants are fitted on: sums over the clips of the choosing half, kept from batch to batch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.experiments.compare.transplants import FittedMap
from interp_core.models.subject import Subject
from interp_core.sinks import Arrays, Sink
from interp_core.sites import Site

CHUNKS = "sums"
PLACES = 2
"""Of the states of sums, which take turns."""


class Sums:
    """The sums of every site where maps act.

    Where a clip is one vector (behind a pooling) nothing is kept here: the vector is the clip's time mean, which the
    sink has, and the sums are made from it again.

    Where a clip is a sequence of positions the sums so far are kept behind each batch, as a running state, in place of
    each batch's share of them. State and share are of one size: two float64 matrices [width, width] a site, 17 MB at a
    width of 1,024, whatever the batch. Shares would pile up, to 10 GB over 10,000 clips in batches of 16; of states the
    last two are enough. Positions themselves (8 clips of 4 s, both models: 13 MB) would pile up too, and grow with the
    clips. Batches come in the order of the plan, so a state says all by the number of the batch it ends with; two
    places take turns, so that a state that cannot be read costs one batch, not all.

    Args:
        sites: where maps act. subject: either model; both are of one shape.
    """

    def __init__(self, sites: Sequence[Site], subject: Subject, sink: Sink) -> None:
        self.vectors = tuple(site for site in sites if subject.stages[site.kind].flat)
        self.sequences = tuple(site for site in sites if site not in self.vectors)
        self._sink, self._upto, self._adds = sink, 0, 0
        self._maps: dict[Site, FittedMap] = {}
        for place in range(PLACES) if self.sequences else ():
            kept = sink.arrays(CHUNKS, place)
            if kept is not None and int(kept["upto"]) > self._upto:
                self._upto, self._adds = int(kept["upto"]), int(kept["adds"])
                self._maps = {site: FittedMap.of(_under(kept, f"{site}.")) for site in self.sequences}

    @property
    def maps(self) -> dict[Site, FittedMap]:
        return dict(self._maps)

    def lack(self, batch: int) -> bool:
        """Whether the sequences of a batch that has clips of the choosing half are not among the sums yet."""
        return bool(self.sequences) and batch >= self._upto

    def add_sequences(
        self,
        batch: int,
        of_choice: NDArray[np.bool_],
        base: Mapping[Site, Tensor],
        donor: Mapping[Site, Tensor],
    ) -> None:
        """Take what both models have at the sites, [clips, pos, width], and keep the sums; once a batch.

        Args:
            of_choice: [clips] which of them are of the choosing half; one is at least.
        """
        if not self.lack(batch):
            return
        for site in self.sequences:
            x, y = (values[site][torch.from_numpy(of_choice)] for values in (base, donor))
            self._maps.setdefault(site, FittedMap(x.shape[-1])).add(x, y)
        place, self._upto, self._adds = self._adds % PLACES, batch + 1, self._adds + 1
        state = {f"{site}.{name}": part for site in self.sequences for name, part in self._maps[site].state().items()}
        self._sink.keep_arrays(CHUNKS, place, {"upto": np.asarray(self._upto), "adds": np.asarray(self._adds), **state})

    def add_vectors(self, site: Site, base: NDArray[np.float32], donor: NDArray[np.float32]) -> None:
        """Take the vectors [clips, width] of the choosing half's clips of a batch, once each time all batches go by."""
        made = self._maps.setdefault(site, FittedMap(base.shape[1]))
        made.add(torch.from_numpy(base), torch.from_numpy(donor))


def _under(arrays: Arrays, start: str) -> Arrays:
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
