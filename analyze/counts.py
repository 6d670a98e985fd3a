"""Counts of a corpus and of one layer over it: what is stored, and all that any answer is computed from."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from analyze.firings import Firings
from analyze.segments import Segments, segment_counts, segments_of
from errors import UserError

NEURONS_AT_ONCE = 256  # whose tokens are put in order together: 50,000 tokens x 256 neurons are 50 MB
S = TypeVar("S", bound="Stored")


class Stored:
    """A dataclass of arrays that is one safetensors file."""

    def save(self, file: Path) -> None:
        """Write the file whole: it appears under its name when its last byte is on disk."""
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".partial")
        save_file({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}, str(unfinished))  # type: ignore[arg-type]
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(file)

    @classmethod
    def load(cls: type[S], file: Path) -> S:
        """Read the file.

        Raises:
            UserError: it is damaged.
        """
        try:
            return cls(**load_file(file))
        except (SafetensorError, OSError, TypeError) as broken:
            raise UserError(f"{file} is damaged ({broken}); delete it, and the same command counts it anew.") from None


@dataclass
class CorpusCounts(Stored):
    """What the corpus itself holds, counted positions only."""

    seen_at: Int64[np.ndarray, "domain position"]
    token_occurrences: Int64[np.ndarray, " token"]

    @property
    def n_tokens(self) -> int:
        """Counted positions: all but those of BOS."""
        return int(self.seen_at.sum())


@dataclass
class LayerCounts(Stored):
    """What one layer's neurons did on the corpus. Adds up over corpora by `+`, maximum and minimum."""

    fired_at: Int32[np.ndarray, "domain position neuron"]  # firings at counted positions
    fired_bos: Int64[np.ndarray, " neuron"]  # firings at BOS positions
    max_pre: Float32[np.ndarray, " neuron"]
    first_fired: Int64[np.ndarray, " neuron"]  # index among counted positions in corpus order; -1: never
    token_offsets: Int64[np.ndarray, " neuron_and_end"]  # neuron n's tokens are entries token_offsets[n]:token_offsets[n + 1]
    token_ids: Int32[np.ndarray, " entry"]  # tokens on which it fires, most firings first, then by id
    token_fired: Int32[np.ndarray, " entry"]  # how often

    @property
    def n_fired(self) -> Int64[np.ndarray, " neuron"]:
        """Firings at counted positions."""
        return np.asarray(self.fired_at.sum((0, 1), dtype=np.int64))


@dataclass
class Index:
    """Orders of the corpus' rows, made once and used for every layer."""

    counted: Bool[np.ndarray, "sequence position"]
    domains: int
    by_place: Segments  # segment `domain * positions + position`
    by_token: Segments
    bos: Segments  # one segment: the BOS positions

    @property
    def corpus(self) -> CorpusCounts:
        """Counts of the corpus itself."""
        return CorpusCounts(self.by_place.sizes.reshape(self.domains, -1), self.by_token.sizes)


def index(
    ids: Int32[np.ndarray, "sequence position"],
    domain: UInt8[np.ndarray, " sequence"],
    domains: int,
    bos_id: int,
    vocabulary: int,
) -> Index:
    """Order the corpus by place within domain and by token."""
    counted = ids != bos_id
    rows = counted.ravel()
    places = domain[:, None].astype(np.int64) * ids.shape[1] + np.arange(ids.shape[1])
    return Index(
        counted=counted,
        domains=domains,
        by_place=segments_of(places.ravel(), rows, domains * ids.shape[1]),
        by_token=segments_of(ids.ravel(), rows, vocabulary),
        bos=segments_of(np.zeros(ids.size, np.int64), ~rows, 1),
    )


def count(firings: Firings, index: Index) -> LayerCounts:
    """Count one layer: segment sums of its bit matrix under the orders of `index`."""
    at_place = segment_counts(firings.bits, firings.neurons, index.by_place)
    offsets, ids, fired = _entries(segment_counts(firings.bits, firings.neurons, index.by_token))
    return LayerCounts(
        fired_at=at_place.reshape(index.domains, -1, firings.neurons),
        fired_bos=segment_counts(firings.bits, firings.neurons, index.bos)[0].astype(np.int64),
        max_pre=firings.max_pre,
        first_fired=firings.first_fired,
        token_offsets=offsets,
        token_ids=ids,
        token_fired=fired,
    )


def _entries(
    fired: Int32[np.ndarray, "token neuron"],
) -> tuple[Int64[np.ndarray, " neuron_and_end"], Int32[np.ndarray, " entry"], Int32[np.ndarray, " entry"]]:
    """The table without its zeros: offsets, tokens and counts, every neuron's most fired tokens first."""
    ids, counts, sizes = [], [], [np.zeros(1, np.int64)]
    for begin in range(0, fired.shape[1], NEURONS_AT_ONCE):
        some = np.ascontiguousarray(fired[:, begin : begin + NEURONS_AT_ONCE].T)
        neurons, tokens = np.nonzero(some)
        found = some[neurons, tokens]
        order = np.lexsort((tokens, -found, neurons))
        ids.append(tokens[order].astype(np.int32))
        counts.append(found[order])
        sizes.append(np.bincount(neurons, minlength=len(some)))
    return np.cumsum(np.concatenate(sizes)), np.concatenate(ids), np.concatenate(counts)
