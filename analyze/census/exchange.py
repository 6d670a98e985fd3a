"""Firing bits -> the ranks that count them: who walked a micro-batch keeps its own neurons' columns, and gets the others' rows of them.

Of a layer's B bytes each of R ranks sends, and receives, B (R - 1) / R^2, and none has more than the others.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import UInt8

from analyze.census.distributed import Ranks, connected
from analyze.firing.mask import Firings

AT_ONCE = 1 << 23  # bytes of bits that a rank gathers before it sends; at least those of a micro-batch


class Exchange:
    """Fills `bits`, all rows of this rank's words, with what all ranks record of a layer.

    Every rank sends as often as the others, some micro-batches at once, the last times perhaps none. What is sent is on its way while
    the next micro-batches are recorded.
    """

    def __init__(self, ranks: Ranks, batches: int, rows_of_batch: int, words: int, bits: UInt8[np.ndarray, "token byte"]) -> None:
        self.ranks, self.batches, self.rows_of_batch, self.words, self.bits = ranks, batches, rows_of_batch, words, bits
        self.share, self.columns = ranks.share(batches), [_bytes(ranks.words(words, rank)) for rank in range(ranks.world)]
        self.at_once = max(1, AT_ONCE // max(1, rows_of_batch * 8 * words))
        most = max(len(ranks.share(batches, rank)) for rank in range(ranks.world))
        self.rounds = -(-most // self.at_once)
        self.round = 0  # that is being recorded
        self.coming: tuple[dist.Work, torch.Tensor, torch.Tensor, int] | None = None
        self.recorded = np.empty((min(self.at_once, most) * rows_of_batch, 8 * words), np.uint8)

    def room(self, first: int, rows: int) -> UInt8[np.ndarray, "token byte"]:
        """Where the bits of these rows, of the next micro-batch of this rank's, are to be written, all neurons."""
        begin = first - self._rows(self.round, self.ranks.rank).start
        return self.recorded[begin : begin + rows]

    def written(self, last: int) -> None:
        """The rows up to `last` are."""
        if last == self._rows(self.round, self.ranks.rank).stop:
            self._send()

    def finish(self) -> None:
        """All bits of all ranks are in `bits`."""
        while self.round < self.rounds:
            self._send()
        self._receive()

    def _rows(self, number: int, rank: int) -> slice:
        """The rows that a rank sends at its so-many-th time."""
        share = self.ranks.share(self.batches, rank)
        begin = min(share.start + number * self.at_once, share.stop)
        end = min(begin + self.at_once, share.stop)
        last = len(self.bits)
        return slice(min(begin * self.rows_of_batch, last), min(end * self.rows_of_batch, last))

    def _send(self) -> None:
        self._receive()
        mine = self._rows(self.round, self.ranks.rank)
        rows = self.recorded[: mine.stop - mine.start]
        self.bits[mine] = rows[:, self.columns[self.ranks.rank]]
        parts = [rows[:, self.columns[rank]].ravel() for rank in self._others()]
        leaving = torch.from_numpy(np.concatenate(parts))
        sizes = [self._size(self._rows(self.round, rank)) for rank in range(self.ranks.world)]
        arriving = torch.empty(sum(sizes) - sizes[self.ranks.rank], dtype=torch.uint8)
        sizes[self.ranks.rank] = 0
        leave = [len(rows) * (columns.stop - columns.start) for columns in self.columns]
        leave[self.ranks.rank] = 0
        with connected():
            work = dist.all_to_all_single(arriving, leaving, sizes, leave, async_op=True)
        assert work is not None
        self.coming = (work, arriving, leaving, self.round)
        self.round += 1

    def _receive(self) -> None:
        if self.coming is None:
            return
        work, arriving, _, number = self.coming
        with connected():
            work.wait()
        at = 0
        for rank in self._others():
            rows = self._rows(number, rank)
            size = self._size(rows)
            self.bits[rows] = arriving[at : at + size].numpy().reshape(rows.stop - rows.start, self.bits.shape[1])
            at += size
        self.coming = None

    def _size(self, rows: slice) -> int:
        return int((rows.stop - rows.start) * self.bits.shape[1])

    def _others(self) -> Iterator[int]:
        return (rank for rank in range(self.ranks.world) if rank != self.ranks.rank)


def _bytes(words: range) -> slice:
    return slice(8 * words.start, 8 * words.stop)


def counted_here(firings: Firings, ranks: Ranks) -> Firings:
    """The neurons that this rank counts, of what all ranks recorded beside their bits."""
    never = np.iinfo(np.int64).max
    first = np.where(firings.first_fired < 0, never, firings.first_fired)
    ranks.greatest(torch.from_numpy(firings.max_pre))
    ranks.least(torch.from_numpy(first))
    mine = ranks.neurons(firings.neurons)
    first_fired = np.where(first == never, -1, first)[mine]
    return Firings(firings.bits, len(first_fired), firings.max_pre[mine].copy(), first_fired)
