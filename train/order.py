"""Token store -> training batches. Which tokens a step reads is a pure function of (seed, step, rank, micro-step)."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from corpora.store import TokenSplit
from errors import UserError


class TrainingOrder:
    """Documents, each with its closing </s>, permuted anew every epoch, laid end to end, cut into windows of context + 1 ids
    and the windows permuted.

    One id more than the context, so that every position of the model predicts something and is trained. No document mask,
    no position reset (metaseq, launcher/opt_baselines.py). What is left at an epoch's end is dropped. Windows are permuted
    because a small batch would otherwise be pieces of one or two documents.
    """

    def __init__(self, split: TokenSplit, context: int, seed: int) -> None:
        self.split, self.length, self.seed = split, context + 1, seed
        self.per_epoch = split.n_tokens // self.length
        if not self.per_epoch:
            raise UserError(
                f"The corpus has {split.n_tokens} tokens to train on, fewer than one window of {self.length}; give it more text."
            )
        self._epoch = lru_cache(maxsize=2)(self._laid_out)

    def window(self, number: int) -> Int[np.ndarray, " position"]:
        """Ids of the `number`-th window since the beginning of training."""
        epoch, place = divmod(number, self.per_epoch)
        documents, ends, places = self._epoch(epoch)
        start = places[place] * self.length
        stop = start + self.length
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        pieces = []
        for at in range(first, last + 1):
            document = documents[at]
            begin, end = self.split.offsets[document], self.split.offsets[document + 1]
            shift = end - ends[at]  # from the epoch's stream to the store
            pieces.append(self.split.read(int(max(begin, start + shift)), int(min(end, stop + shift))))
        return np.concatenate(pieces).astype(np.int64)

    def _laid_out(
        self, epoch: int
    ) -> tuple[Int[np.ndarray, " document"], Int[np.ndarray, " document"], Int[np.ndarray, " window"]]:
        """Documents in the order of the epoch, where each ends in its stream, and the order of the windows cut from it."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        documents = generator.permutation(len(self.split.offsets) - 1)
        return documents, np.cumsum(np.diff(self.split.offsets)[documents]), generator.permutation(self.per_epoch)


class Steps(IterableDataset[tuple[int, Tensor]]):
    """The batches of one rank from step `start` on: (step, ids [micro-step, sequence, position]).

    A step reads the same windows whatever the number of ranks and workers: sequence `j` of micro-step `m` on rank `r` of `R`
    is window `step * B + (m * R + r) * micro + j`.
    """

    def __init__(self, order: TrainingOrder, start: int, stop: int, micro_steps: int, micro: int, rank: int = 0, ranks: int = 1):
        self.order, self.start, self.stop = order, start, stop
        self.micro_steps, self.micro, self.rank, self.ranks = micro_steps, micro, rank, ranks

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.start + first, self.stop, stride):
            yield step, self.batch(step)

    def batch(self, step: int) -> Int[Tensor, "micro_step sequence position"]:
        """Ids that this rank learns from in `step`."""
        begin = step * self.micro_steps * self.micro * self.ranks
        numbers = (
            begin + (m * self.ranks + self.rank) * self.micro + j for m in range(self.micro_steps) for j in range(self.micro)
        )
        ids = np.stack([self.order.window(number) for number in numbers])
        return torch.from_numpy(ids).view(self.micro_steps, self.micro, -1)
