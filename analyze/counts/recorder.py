"""Firing mask of a layer -> one statistic of it: a recorder is one file, with the columns that it adds to neurons.parquet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from analyze.counts.column import Column

Arrays = Mapping[str, np.ndarray]  # by name; the neurons stand along the last axis of each


@dataclass(frozen=True)
class FiringMask:
    """Where the neurons of a layer fire. Several processes share a layer: each has some of its neurons, at all positions."""

    bits: UInt8[
        np.ndarray, "token byte"
    ]  # bit `n % 8` of byte `n // 8` is neuron n; row `s * positions + p` is position p of sequence s
    neurons: int
    counted: Bool[np.ndarray, "sequence position"]  # all positions but those of BOS

    def sequences(self) -> Iterator[Bool[np.ndarray, "position neuron"]]:
        """The counted positions of one sequence after another: where which neuron fires."""
        positions = self.counted.shape[1]
        for sequence, counted in enumerate(self.counted):
            rows = self.bits[sequence * positions : (sequence + 1) * positions][counted]
            yield np.unpackbits(rows, axis=1, count=self.neurons, bitorder="little").view(bool)


@runtime_checkable
class Recorder(Protocol):
    """One statistic of firings. What it keeps adds up, or is chosen by a rule that does not depend on the order of the sequences."""

    name: str
    columns: tuple[Column[Arrays], ...]  # of neurons.parquet, made of what it keeps

    def counts(self, mask: FiringMask) -> dict[str, np.ndarray]:
        """What it keeps of a layer."""

    def merge(self, a: Arrays, b: Arrays) -> dict[str, np.ndarray]:
        """What it keeps of two shards of a corpus together."""
