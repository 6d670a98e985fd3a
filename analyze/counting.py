"""The walk of a census: passes x layers x micro-batches, and the counts of a layer as soon as all of its bits are there.

A statistic needs a layer's whole bit matrix: the n-grams that cover a neuron are not a sum over parts of a corpus, and tables of all
n-grams of all neurons, which are, take several times the room of the bits. So several passes put each layer's bits into a file, each
pass its rows, and the last one counts them: the integers, and the bytes, are those of one pass.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console

from analyze.bar import progress_bar
from analyze.beside import Beside
from analyze.counts import Index, count
from analyze.exchange import Exchange
from analyze.firings import Firings, bytes_for, record
from analyze.joining import collected
from analyze.passes import Part, together
from analyze.plan import Plan
from analyze.prefetch import Weights
from analyze.ranks import Ranks
from analyze.residuals import InFiles, InMemory, InPinnedSlabs, Residuals
from analyze.scratch import nameless
from analyze.storing import store
from analyze.task import CensusTask
from analyze.walk import MicroBatch, ResidualStream


@dataclass
class Counting:
    """The layers of a task that are missing, to be counted as planned."""

    task: CensusTask
    plan: Plan
    missing: list[int]
    rows: Index
    ranks: Ranks
    console: Console
    waited: float = 0.0  # seconds that computing stood still for want of weights

    def run(self) -> Iterator[tuple[int, float]]:
        """Store the counts of every missing layer; yields layer and seconds, in each pass.

        Raises:
            UserError: a value is not finite, a tensor cannot be read, the disk is full.
        """
        if self.task.device.type == "cuda":
            torch.cuda.set_device(self.task.device)
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = (
                False  # products of float16 are added up in float32
            )
        if self.ranks.first:
            self._open_scratch()
        self.ranks.told(None)
        for number, chunk in enumerate(self.plan.chunks()):
            if wanted := self.ranks.told([layer for layer in self.missing if not self._recorded(layer, number)]):
                yield from Pass(self, number, chunk, wanted).run()
        if self.ranks.first:
            self.task.scratch.remove()

    def _open_scratch(self) -> None:
        """Make it as planned; what a killed program left for another plan is deleted."""
        if self.plan.kept:
            self.task.scratch.open(self.task.identity | {"passes": self.plan.passes, "residuals": self.plan.residuals})
        else:
            self.task.scratch.remove()

    def _recorded(self, layer: int, number: int) -> bool:
        return number < self.plan.passes - 1 and self.task.scratch.part(layer, number).exists()


@dataclass
class Pass:
    """A chunk of the sequences, through all layers that are wanted of it."""

    counting: Counting
    number: int
    chunk: range  # its micro-batches
    wanted: list[int]

    def __post_init__(self) -> None:
        self.task, self.plan, self.ranks = self.counting.task, self.counting.plan, self.counting.ranks
        self.neurons = self.task.checkpoint.config.neurons
        micro, self.positions = self.task.micro, self.task.sequences.ids.shape[1]
        self.sequences = slice(self.chunk.start * micro, min(self.chunk.stop * micro, len(self.task.sequences.ids)))
        self.counted = self.counting.rows.counted[self.sequences]
        share = self.ranks.share(len(self.chunk))
        self.share = range(self.chunk.start + share.start, self.chunk.start + share.stop)

    @property
    def last(self) -> bool:
        """Whether all bits are there once it is done."""
        return self.number == self.plan.passes - 1

    def run(self) -> Iterator[tuple[int, float]]:
        """Walk, record, and count what is complete; yields layer and seconds."""
        task, rooms = self.task, [self._room() for _ in range(self.plan.rooms)]
        stream = self._stream()
        assert stream.residuals.finished is not None
        layers = range(stream.residuals.finished + 1, self.wanted[-1] + 1)
        weights = Weights(task.checkpoint, task.dtype, task.device, self.plan.slots)
        counts = Beside(self.plan.rooms > 1)
        with progress_bar(self.counting.console) as bar, closing(weights.blocks(layers)) as blocks, counts:
            of_how_many = f", pass {self.number + 1} of {self.plan.passes}" if self.plan.passes > 1 else ""
            progress = bar.add_task(task.out.name + of_how_many, total=len(self.share) * len(layers))

            def watched(walk: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
                for batch in walk:
                    yield MicroBatch(batch.first - self.sequences.start, batch.pre)
                    bar.advance(progress)

            for layer, block in zip(layers, blocks, strict=False):
                begun = time.perf_counter()
                walk = watched(stream.through(block, layer, last=layer == layers[-1]))
                if layer in self.wanted:
                    self._record(layer, walk, rooms[self.wanted.index(layer) % len(rooms)], counts)
                else:
                    for _ in walk:
                        pass
                if layer != layers[-1]:
                    stream.residuals.finish(layer)  # only now: what is on disk says that the layer before is done
                yield layer, time.perf_counter() - begun
        self.counting.waited += weights.waited()

    def _room(self) -> UInt8[np.ndarray, "token byte"] | None:
        """Room for the bits of any layer; None where each has a file of its own."""
        if self.plan.passes > 1 and self.ranks.first:
            return None
        rows, width = self.counted.size, 8 * len(self.ranks.words(bytes_for(self.neurons) // 8))
        if self.plan.bits == "memory" or self.plan.passes > 1:
            return np.zeros((rows, width), np.uint8)
        return nameless(rows, width, Path(self.task.config.scratch or self.task.out))

    def _stream(self) -> ResidualStream:
        """The residual streams, where they are planned to lie: embedded, or as a killed program left them."""
        task, ids = self.task, torch.from_numpy(self.task.sequences.ids)
        residuals = self._residuals()
        agreed = self.ranks.agree(residuals.finished)
        if residuals.finished is not None and (residuals.finished >= self.wanted[0] or not agreed):
            residuals.finished = None  # further on than is of use, or not as far as in another process
        ends = task.checkpoint.ends(task.dtype) if residuals.finished is None else None
        return ResidualStream(ends, ids, task.micro, task.device, self.share, residuals)

    def _residuals(self) -> Residuals:
        task = self.task
        shape = (task.micro, self.positions, task.checkpoint.config.width)
        if self.plan.residuals == "file":
            name = f"_{self.ranks.rank}_of_{self.ranks.world}" if self.ranks.world > 1 else ""
            return InFiles(len(self.share), shape, task.dtype, task.device, task.scratch.path, name)
        place = InPinnedSlabs if self.plan.residuals == "pinned" else InMemory
        return place(len(self.share), shape, task.dtype, task.device)

    def _record(
        self, layer: int, walk: Iterator[MicroBatch], room: UInt8[np.ndarray, "token byte"] | None, counts: Beside
    ) -> None:
        """Record the layer's bits, and have them counted if they are all there."""
        bits, file = room, None
        if bits is None:
            file = self.task.scratch.bits(layer, self.counting.rows.counted.size * bytes_for(self.neurons))
            whole = file.reshape(-1, bytes_for(self.neurons))
            bits = whole[self.sequences.start * self.positions : self.sequences.stop * self.positions]
        rows_of_batch, words = self.task.micro * self.positions, bytes_for(self.neurons) // 8
        exchange = Exchange(self.ranks, len(self.chunk), rows_of_batch, words, bits)
        firings = record(walk, self.counted, self.neurons, bits, exchange)
        if self.last:
            counts.do(partial(self._count, layer, firings if file is None else self._whole(layer, firings, whole)))
        elif self.ranks.first:
            assert file is not None
            file.flush()
            store(Part(firings.max_pre, firings.first_fired), self.task.scratch.part(layer, self.number))

    def _count(self, layer: int, firings: Firings) -> None:
        config, file = self.task.config, self.task.counts_of(layer)
        if self.ranks.world == 1:
            store(count(firings, self.counting.rows, config.keep_ngrams, config.kernel), file)
        elif all_neurons := collected(
            count(firings, self.counting.rows, config.keep_ngrams, config.kernel) if firings.neurons else None, self.ranks
        ):
            store(all_neurons, file)
        if self.plan.passes > 1:
            self.task.scratch.drop(layer)

    def _whole(self, layer: int, firings: Firings, bits: UInt8[np.ndarray, "token byte"]) -> Firings:
        """A layer's firings, of this pass and those before."""
        before = [Part.load(self.task.scratch.part(layer, number)) for number in range(self.number)]
        counted = self.counting.rows.counted
        sizes = [int(counted[c.start * self.task.micro : c.stop * self.task.micro].sum()) for c in self.plan.chunks()]
        return together(bits, self.neurons, [*before, Part(firings.max_pre, firings.first_fired)], sizes)
