"""Counts of a corpus and of one layer over it: what is stored, and all that any answer is computed from."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from analyze.counts.ngram_histograms import Tally, covering, tally
from analyze.counts.ngrams import Ngrams, ngrams
from analyze.counts.recorder import Arrays, FiringMask
from analyze.counts.recorders import recorders
from analyze.counts.sparse import Table, table
from analyze.firing.device_sums import DeviceSums, OnDevice
from analyze.firing.mask import Firings
from analyze.firing.segment_sum import HostSums, Segments, segments_of
from analyze.storage.stored import Named, Stored
from device import Device

KEPT_COVERAGE = 80  # percent that at most `keep` n-grams cover, if a table is kept; a fixed number: counts know no thresholds


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
class NgramCounts:
    """What one layer's neurons did on the n-grams of one n."""

    tally: Tally  # of all neurons
    table: Table  # of those whose table is kept: all for n = 1


@dataclass
class LayerCounts(Stored):
    """What one layer's neurons did on the corpus."""

    fired_at: Int32[np.ndarray, "domain position neuron"]  # firings at counted positions
    fired_bos: Int64[np.ndarray, " neuron"]  # firings at BOS positions
    max_pre: Float32[np.ndarray, " neuron"]
    first_fired: Int64[np.ndarray, " neuron"]  # index among counted positions in corpus order; -1: never
    unigrams: NgramCounts
    bigrams: NgramCounts
    trigrams: NgramCounts
    recorded: Named = field(default_factory=Named)  # RECORDER.ARRAY: what each recorder keeps

    @property
    def n_fired(self) -> Int64[np.ndarray, " neuron"]:
        """Firings at counted positions."""
        return np.asarray(self.fired_at.sum((0, 1), dtype=np.int64))

    def of(self, recorder: str) -> Arrays:
        """What a recorder keeps; nothing where the layer was counted without it."""
        begins = f"{recorder}."
        return {name.removeprefix(begins): array for name, array in self.recorded.items() if name.startswith(begins)}


@dataclass
class Index(Stored):
    """The corpus in the orders that counting needs, made once and used for every layer."""

    ids: Int32[np.ndarray, "sequence position"]
    domain: UInt8[np.ndarray, " sequence"]
    counted: Bool[np.ndarray, "sequence position"]
    by_place: Segments  # segment `domain * positions + position`
    bos: Segments  # one segment: the BOS positions
    unigrams: Ngrams
    bigrams: Ngrams
    trigrams: Ngrams

    @property
    def corpus(self) -> CorpusCounts:
        """Counts of the corpus itself."""
        return CorpusCounts(self.by_place.sizes.reshape(-1, self.counted.shape[1]), self.unigrams.occurrences)

    def on(self, device: Device) -> OnDevice:
        """Its orders on a device, where they stay."""
        if str(device) not in self._on:
            self._on[str(device)] = OnDevice(device)
        return self._on[str(device)]

    @cached_property
    def _on(self) -> dict[str, OnDevice]:
        return {}


def index(
    ids: Int32[np.ndarray, "sequence position"],
    domain: UInt8[np.ndarray, " sequence"],
    domains: int,
    bos_id: int,
    vocabulary: int,
) -> Index:
    """Order the corpus by place within domain and by n-gram."""
    counted = ids != bos_id
    rows = counted.ravel()
    places = domain[:, None].astype(np.int64) * ids.shape[1] + np.arange(ids.shape[1])
    return Index(
        ids,
        domain,
        counted,
        by_place=segments_of(places.ravel(), rows, domains * ids.shape[1]),
        bos=segments_of(np.zeros(ids.size, np.int64), ~rows, 1),
        unigrams=ngrams(ids, counted, 1, vocabulary),
        bigrams=ngrams(ids, counted, 2, vocabulary),
        trigrams=ngrams(ids, counted, 3, vocabulary),
    )


def count(firings: Firings, index: Index, keep: int | None = 100) -> LayerCounts:
    """Count one layer: segment sums of its bit matrix under the orders of `index`.

    Tables are kept of neurons that need at most `keep` n-grams to cover `KEPT_COVERAGE` percent of their firings; None: of all.
    """
    sums = _sums(firings, index)
    return LayerCounts(
        fired_at=sums.whole(index.by_place).reshape(-1, index.counted.shape[1], firings.neurons),
        fired_bos=sums.whole(index.bos)[0].astype(np.int64),
        max_pre=firings.max_pre,
        first_fired=firings.first_fired,
        unigrams=_count_ngrams(firings, index.unigrams, keep, sums),
        bigrams=_count_ngrams(firings, index.bigrams, keep, sums),
        trigrams=_count_ngrams(firings, index.trigrams, keep, sums),
        recorded=_recorded(FiringMask(firings.bits, firings.neurons, index.counted)),
    )


def _recorded(mask: FiringMask) -> Named:
    kept = {recorder.name: recorder.counts(mask) for recorder in recorders()}
    return Named({f"{name}.{array}": values for name, arrays in kept.items() for array, values in arrays.items()})


def _sums(firings: Firings, index: Index) -> HostSums | DeviceSums:
    """Where the bits are: on the device if they were left there and it runs Triton, else on the host."""
    if firings.on_device is None or firings.device is None or not firings.device.triton:
        return HostSums(firings.bits, firings.neurons)
    return DeviceSums(index.on(firings.device), firings.on_device, firings.neurons)


def _count_ngrams(firings: Firings, ngrams: Ngrams, keep: int | None, sums: HostSums | DeviceSums) -> NgramCounts:
    tallied = tally(firings.bits, firings.neurons, ngrams, sums)
    return NgramCounts(tallied, table(firings.bits, kept(tallied, keep), ngrams))


def kept(tallied: Tally, keep: int | None) -> Bool[np.ndarray, " neuron"]:
    """Of which neurons the table is kept. A neuron past the bound can be no detector: `covering` alone says so."""
    return np.asarray(covering(tallied, KEPT_COVERAGE) <= keep) if keep is not None else np.ones(len(tallied.n_fired), bool)
