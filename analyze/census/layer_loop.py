"""The forward pass of a census: layers x micro-batches, and the counts of a layer as soon as all of its bits are there."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console
from torch import Tensor

from analyze.census.background import Beside
from analyze.census.distributed import Ranks
from analyze.census.exchange import Exchange, counted_here
from analyze.census.job import CensusTask
from analyze.census.joining import collected
from analyze.census.memory_plan import Plan
from analyze.census.progress import progress_bar
from analyze.counts.layer import Index, count
from analyze.firing.mask import DeviceRecorder, Firings, Sink, Whole, record
from analyze.firing.packing import bytes_for
from analyze.forward.layer_by_layer import MicroBatch, ResidualStream
from analyze.forward.residual_store import InFiles, InFilesBeside, InMemory, InPinnedSlabs, Residuals, StreamFiles
from analyze.forward.weight_prefetch import Weights
from analyze.storage.arrays import store
from analyze.storage.layer_files import about_layer
from analyze.storage.scratch import nameless
from device import exact_sums


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

    def __post_init__(self) -> None:
        self.neurons = self.task.checkpoint.config.neurons
        self.positions = self.task.sequences.ids.shape[1]
        self.share = self.ranks.share(-(-len(self.task.sequences.ids) // self.task.micro))

    def run(self) -> Iterator[tuple[int, float]]:
        """Store the counts of every missing layer; yields layer and seconds.

        Raises:
            UserError: a value is not finite, a tensor cannot be read, the disk is full.
        """
        if self.ranks.first:
            self._open_scratch()
        self.ranks.told(None)
        with exact_sums(), self.task.device.current():
            yield from self._layers()
        if self.ranks.first:
            self.task.scratch.remove()

    def _open_scratch(self) -> None:
        """Make it as planned; what a killed program left for another plan is deleted."""
        if self.plan.residuals == "file":
            self.task.scratch.open(self.task.identity | {"residuals": self.plan.residuals})
        else:
            self.task.scratch.remove()

    def _layers(self) -> Iterator[tuple[int, float]]:
        task, rooms = self.task, [self._room() for _ in range(self.plan.rooms)]
        matrices = [self._matrix() for _ in range(self.plan.rooms)]
        residuals = self._residuals()
        stream = self._stream(residuals)
        assert residuals.finished is not None
        layers = range(residuals.finished + 1, self.missing[-1] + 1)
        weights = Weights(task.checkpoint, task.dtype, task.device, self.plan.slots)
        with ExitStack() as stack:
            bar = stack.enter_context(progress_bar(self.console))
            stack.enter_context(closing(residuals))
            recorder = self._recorder(stack)
            counts = stack.enter_context(Beside(self.plan.rooms > 1))
            blocks = stack.enter_context(closing(weights.blocks(layers)))
            progress = bar.add_task(task.out.name, total=len(self.share) * len(layers))

            def watched(walk: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
                for batch in walk:
                    yield batch
                    bar.advance(progress)

            for layer, block in zip(layers, blocks, strict=False):
                begun = time.perf_counter()
                walk = watched(stream.through(block, layer, last=layer == layers[-1]))
                if layer in self.missing:
                    number = self.missing.index(layer) % len(rooms)
                    firings = self._recorded(walk, rooms[number], matrices[number], recorder)
                    counts.do(partial(self._count, layer, firings))
                else:
                    for _ in walk:
                        pass
                if layer != layers[-1]:
                    residuals.finish(layer)  # only now: what is on disk says that the layer before is done
                yield layer, time.perf_counter() - begun
        self.waited = weights.waited()

    def _room(self) -> UInt8[np.ndarray, "token byte"]:
        """Room for the bits of any layer, of the neurons that this rank counts."""
        rows, width = self.rows.counted.size, 8 * len(self.ranks.words(bytes_for(self.neurons) // 8))
        if self.plan.bits == "memory":
            return np.zeros((rows, width), np.uint8)
        return nameless(rows, width, Path(self.task.config.scratch or self.task.out))

    def _matrix(self) -> UInt8[Tensor, "token byte"] | None:
        """Room for them on the device, where they are counted there: by one rank, which has all rows."""
        if not self.plan.on_gpu or self.ranks.world > 1:
            return None
        return self.task.device.empty(self.rows.counted.size, bytes_for(self.neurons), dtype=torch.uint8)

    def _recorder(self, stack: ExitStack) -> DeviceRecorder | None:
        """What takes the bits from a device that computes beside the host."""
        if not self.task.device.asynchronous:
            return None
        rows = self.task.micro * self.positions
        return stack.enter_context(closing(DeviceRecorder(self.task.device, self.rows.counted, self.neurons, rows)))

    def _stream(self, residuals: Residuals) -> ResidualStream:
        """The residual streams: embedded, or as a killed program left them."""
        task, ids = self.task, torch.from_numpy(self.task.sequences.ids)
        agreed = self.ranks.agree(residuals.finished)
        if residuals.finished is not None and (residuals.finished >= self.missing[0] or not agreed):
            residuals.finished = None  # further on than is of use, or not as far as in another process
        ends = task.checkpoint.ends(task.dtype) if residuals.finished is None else None
        return ResidualStream(ends, ids, task.micro, task.device, self.share, residuals)

    def _residuals(self) -> Residuals:
        """Room for them, where it is planned."""
        task = self.task
        shape = (task.micro, self.positions, task.checkpoint.config.width)
        of_all = len(self.share), shape, task.dtype
        if self.plan.residuals == "file":
            name = f"_{self.ranks.rank}_of_{self.ranks.world}" if self.ranks.world > 1 else ""
            files = StreamFiles(*of_all, task.scratch.path, name)
            return InFilesBeside(*of_all, task.device, files) if task.device.asynchronous else InFiles(files)
        return (InPinnedSlabs if self.plan.residuals == "pinned" else InMemory)(*of_all, task.device)

    def _recorded(
        self,
        walk: Iterator[MicroBatch],
        bits: UInt8[np.ndarray, "token byte"],
        matrix: UInt8[Tensor, "token byte"] | None,
        recorder: DeviceRecorder | None,
    ) -> Firings:
        sink = self._sink(bits)
        found = (
            record(walk, self.rows.counted, self.neurons, bits, sink)
            if recorder is None
            else recorder.record(walk, bits, matrix, sink)
        )
        return found if self.ranks.world == 1 else counted_here(found, self.ranks)

    def _sink(self, bits: UInt8[np.ndarray, "token byte"]) -> Sink:
        if self.ranks.world == 1:
            return Whole(bits)
        batches = -(-len(self.task.sequences.ids) // self.task.micro)
        return Exchange(self.ranks, batches, self.task.micro * self.positions, bytes_for(self.neurons) // 8, bits)

    def _count(self, layer: int, firings: Firings) -> None:
        file, about, keep = self.task.counts_of(layer), about_layer(layer, self.task.identity), self.task.config.keep_ngrams
        if self.ranks.world == 1:
            store(count(firings, self.rows, keep), file, about)
        elif whole := collected(count(firings, self.rows, keep) if firings.neurons else None, self.ranks):
            store(whole, file, about)
