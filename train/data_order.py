"""Token store -> training batches. Which tokens a step reads is a pure function of (seed, step, rank, micro-step)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from corpora.store import TokenSplit
from errors import UserError

Epoch = tuple[Integer[np.ndarray, " document"], Int[np.ndarray, " document"], Integer[np.ndarray, " window"]]


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
                f"The {split.folder.name} split of the corpus has {split.n_tokens} tokens, fewer than one window of {self.length}: "
                "give it more text, or another corpus.validation_share."
            )
        self._epochs: dict[int, Epoch] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A reader in a process of its own opens the store anew, instead of being sent what was read of it."""
        return TrainingOrder, (replace(self.split), self.length - 1, self.seed)

    def window(self, number: int) -> Int[np.ndarray, " position"]:
        """Ids of the `number`-th window since the beginning of training."""
        documents, ends, start = self._place(number)
        pieces = []
        for document, stop_of_document in zip(documents, ends, strict=True):
            begin, end = self.split.offsets[document], self.split.offsets[document + 1]
            shift = end - stop_of_document  # from the epoch's stream to the store
            pieces.append(self.split.read(int(max(begin, start + shift)), int(min(end, start + self.length + shift))))
        return np.concatenate(pieces).astype(np.int64)

    def documents(self, number: int) -> list[int]:
        """Numbers in the split of the documents that the `number`-th window is cut from."""
        return [int(document) for document in self._place(number)[0]]

    def _place(self, number: int) -> tuple[Integer[np.ndarray, " document"], Int[np.ndarray, " document"], int]:
        """The documents of a window, where each ends in the epoch's stream, and where the window starts in it."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch not in self._epochs:
            self._epochs = dict(list(self._epochs.items())[-1:]) | {epoch: self._laid_out(epoch)}
        documents, ends, places = self._epochs[epoch]
        start = int(places[place]) * self.length
        first, last = np.searchsorted(ends, [start, start + self.length - 1], side="right")
        return documents[first : last + 1], ends[first : last + 1], start

    def _laid_out(self, epoch: int) -> Epoch:
        """Documents in the order of the epoch, where each ends in its stream, and the order of the windows cut from it."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        documents = generator.permutation(len(self.split.offsets) - 1)
        ends = np.cumsum(np.diff(self.split.offsets)[documents])
        places = generator.permutation(self.per_epoch)
        return _small(documents), ends, _small(places)


def _small(numbers: Integer[np.ndarray, " number"]) -> Integer[np.ndarray, " number"]:
    """The same in half the memory where 32 bits hold them: OpenWebText has 8 million documents, and every reader its own order."""
    return numbers.astype(np.uint32) if numbers.max(initial=0) < 2**32 else numbers


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
        begin = self.windows(step).start
        numbers = (
            begin + (m * self.ranks + self.rank) * self.micro + j for m in range(self.micro_steps) for j in range(self.micro)
        )
        ids = np.stack([self.order.window(number) for number in numbers])
        return torch.from_numpy(ids).view(self.micro_steps, self.micro, -1)

    def windows(self, step: int) -> range:
        """Numbers of the windows that all ranks together learn from in `step`."""
        per_step = self.micro_steps * self.micro * self.ranks
        return range(step * per_step, (step + 1) * per_step)

    def documents(self, step: int) -> list[int]:
        """Numbers in the split of the documents in the batch of `step`, ascending."""
        return sorted({document for number in self.windows(step) for document in self.order.documents(number)})
