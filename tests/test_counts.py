"""Counts of n-grams: planted firing patterns are what the definitions say, tallies are what tables say, shards add up."""

import os
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32, Int64
from test_packing import Interpreting
from tiny import preactivations_as_batches

from analyze.config import Thresholds
from analyze.counts.layer import Index, LayerCounts, count, index
from analyze.counts.merge import merged_counts, merged_index, tally_of
from analyze.counts.ngram_histograms import covering, on_detected
from analyze.counts.ngrams import NAMES, ngrams
from analyze.firing import device_sums
from analyze.firing.mask import Extremes, Firings, record
from analyze.firing.packing import NEVER
from analyze.neuron_types.ngram_detectors import layer_detectors
from analyze.storage import scratch
from analyze.storage.stored import Stored
from analyze.tables.neurons import LayerFindings, neuron_table
from analyze.tables.ngrams import ngram_table
from device import CPU
from errors import UserError

BOS = 2


def fired(fires: np.ndarray, ids: np.ndarray) -> Firings:
    """A layer that fires so, recorded as if it had been walked."""
    pre = torch.from_numpy(np.where(fires, 1.0, -1.0).astype(np.float32)).reshape(*ids.shape, -1)
    return record(preactivations_as_batches(pre, 2), ids != BOS, fires.shape[-1])


def counted(fires: np.ndarray, ids: np.ndarray, keep: int | None = 500, on_device: bool = False) -> tuple[LayerCounts, Index]:
    """Counts of the pattern, and the index of its corpus."""
    rows = index(ids.astype(np.int32), np.zeros(len(ids), np.uint8), 1, BOS, int(ids.max()) + 1)
    firings = fired(fires, ids)
    if on_device:  # and common n-grams and places are nowhere else
        firings.on_device, firings.device = torch.from_numpy(firings.bits), Interpreting()
    return count(firings, rows, keep), rows


def tables(counts: LayerCounts, rows: Index, thresholds: Thresholds | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    thresholds = thresholds or Thresholds()
    found = layer_detectors(counts, rows, thresholds)
    return neuron_table(LayerFindings(0, counts, rows.corpus, found, thresholds)), ngram_table(0, found, rows)


def same(a: LayerCounts, b: LayerCounts) -> bool:
    from analyze.storage.stored import arrays_of

    ours, theirs = arrays_of(a), arrays_of(b)
    return all(ours[n].dtype == theirs[n].dtype and np.array_equal(ours[n], theirs[n]) for n in ours | theirs)


def text(sequences: int, positions: int, vocabulary: int, seed: int) -> np.ndarray:
    """Ids with many repetitions, so that n-grams occur often, rarely and once; another BOS now and then."""
    rng = np.random.default_rng(seed)
    ids = 3 + np.minimum(rng.geometric(3 / vocabulary, (sequences, positions)), vocabulary - 4)
    ids[:, 0] = BOS
    ids[rng.random(ids.shape) < 0.01] = BOS
    return ids


def planted() -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, str | None]]:
    """Ids, firing patterns by name, and the type that each is to have (None: only its detectors are asked)."""
    rng = np.random.default_rng(0)
    ids = rng.integers(100, 150, (40, 200))
    ids[:, 0] = BOS
    flat = ids.ravel()
    free = np.setdiff1d(np.arange(len(flat)), np.flatnonzero(flat == BOS))
    spots = rng.permutation(free[free % 200 > 5])
    for token, times in ((10, 1000), (11, 20), (12, 20), (13, 20), (14, 20), (15, 20), (16, 20)):
        flat[spots[:times]] = token
        spots = spots[times:]
    for start in range(24, 8000, 40):  # the trigram 20 21 22 as often as 21 22 after others
        flat[start : start + 3] = (20, 21, 22)
        flat[start + 8 : start + 11] = (101, 21, 22)
    ids[ids == 0] = 100
    at = {token: np.flatnonzero(flat == token) for token in (*range(10, 17), 20, 21, 22)}
    bigram = np.flatnonzero((flat == 21) & (np.roll(flat, 1) == 20))
    trigram = np.flatnonzero((flat == 22) & (np.roll(flat, 1) == 21) & (np.roll(flat, 2) == 20))
    many = len(at[10])
    enough, short = -(-95 * many // 100), -(-95 * many // 100) - 1

    def pattern(*rows: np.ndarray) -> np.ndarray:
        fires = np.zeros(len(flat), bool)
        fires[np.concatenate([np.zeros(0, np.int64), *rows])] = True
        return fires

    return ids, {
        "one token": pattern(at[10]),
        "five tokens": pattern(*(at[t] for t in range(11, 16))),
        "six tokens": pattern(*(at[t] for t in range(11, 17))),
        "95 % of occurrences": pattern(at[10][:enough]),
        "less than 95 % of occurrences": pattern(at[10][:short]),
        "a trigram": pattern(trigram),
        "a bigram": pattern(bigram),
        "after BOS": pattern(np.flatnonzero(flat == BOS) + 1),
        "always": pattern(np.arange(len(flat))),
        "dead": pattern(),
        "dead except on BOS": pattern(np.flatnonzero(flat == BOS)),
    }, {
        "one token": "token", "five tokens": "token", "95 % of occurrences": "token", "a bigram": "bigram", "a trigram": "trigram",
        "always": "other", "dead": "dead", "dead except on BOS": "dead",
    }  # fmt: skip


def test_planted_neurons_are_what_they_are_and_near_misses_are_not() -> None:
    ids, patterns, types = planted()
    fires = np.stack(list(patterns.values()), axis=1)
    neurons, listed = tables(*counted(fires, ids))
    rows = dict(zip(patterns, neurons.iter_rows(named=True), strict=True))
    assert {name: rows[name]["type"] for name in types} == types
    assert rows["one token"]["detected_tokens"] == [10]
    assert rows["five tokens"]["token_detector"] and sorted(rows["five tokens"]["detected_tokens"]) == [11, 12, 13, 14, 15]
    assert rows["six tokens"]["unigrams_95"] == 6 and not rows["six tokens"]["token_detector"]
    assert not rows["less than 95 % of occurrences"]["token_detector"]
    assert rows["a bigram"]["unigrams_95"] == 1 and not rows["a bigram"]["token_detector"]  # no unigram table reveals it
    assert rows["a trigram"]["bigrams_95"] == 1 and not rows["a trigram"]["bigram_detector"]
    number = list(patterns).index("a trigram")
    assert listed.filter((pl.col("neuron") == number) & (pl.col("n") == 3))["ids"].to_list() == [[20, 21, 22]]
    assert rows["dead except on BOS"]["n_fired_bos"] == 40 and rows["dead except on BOS"]["trigrams_95"] == 0
    expected = oracle.neuron_rows(ids.tolist(), np.where(fires, 1.0, -1.0).reshape(*ids.shape, -1).tolist(), BOS)
    names = ("n_fired", "unigrams_95", "bigrams_95", "trigrams_95", "token_detector", "bigram_detector", "trigram_detector",
             "detected_tokens", "n_detected_bigrams", "n_detected_trigrams", "first_fired", "type")  # fmt: skip
    for row, theirs in zip(rows.values(), expected, strict=True):
        assert {name: row[name] for name in names} == {name: theirs[name] for name in names}


@pytest.mark.parametrize(("beside", "detects"), [(50, True), (51, False)])
def test_detected_tokens_make_up_95_percent_of_all_firings_or_one_firing_less(beside: int, detects: bool) -> None:
    ids = np.full((20, 101), 10)
    ids[:, 0] = BOS
    ids[10:, 1:] = 100 + np.arange(1000).reshape(10, 100) // 10  # 100 tokens, ten times each
    ids[0, 1:51] = 100  # leaves token 10 950 times
    flat = ids.ravel()
    elsewhere = np.concatenate([np.flatnonzero(flat == token)[:1] for token in range(120, 120 + beside)])
    fires = (flat == 10)[:, None].copy()
    fires[elsewhere] = True
    row = tables(*counted(fires, ids))[0].row(0, named=True)
    assert row["n_fired"] == 950 + beside
    assert row["token_detector"] is detects and (row["detected_tokens"] == [10]) is detects


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_count_is_that_of_a_plain_loop(on_device: bool, seed: int) -> None:
    ids = text(12, 150, 20 + 40 * seed, seed)
    rng = np.random.default_rng(seed)
    fires = rng.random((ids.size, 70)) < rng.random(70) ** 3
    fires[:, 0], fires[:, 1] = True, False
    counts, rows = counted(fires, ids, None, on_device)
    for n, name in NAMES.items():
        part, grams = getattr(counts, name), getattr(rows, name)
        grids = [(s, p) for s, p in np.ndindex(*ids.shape) if ids[s, p] != BOS]
        at = [oracle.ngram(ids[s].tolist(), p, n) for s, p in grids]
        occurs = Counter(at)
        assert {tuple(g): o for g, o in zip(grams.ids.tolist(), grams.occurrences.tolist(), strict=True) if o} == occurs
        assert (np.diff(grams.ids @ (1000 ** np.arange(n)[::-1])) > 0).all()  # lexicographic
        for neuron in range(70):
            expected = Counter(g for (s, p), g in zip(grids, at, strict=True) if fires[s * ids.shape[1] + p, neuron])
            entries = slice(part.table.offsets[neuron], part.table.offsets[neuron + 1])
            found = zip(grams.ids[part.table.ngrams[entries]].tolist(), part.table.fired[entries].tolist(), strict=True)
            assert {tuple(g): f for g, f in found} == expected
        of_neuron: list[oracle.Grams] = [
            Counter({(i,): count for i, count in enumerate(f.tolist())})
            for f in np.split(part.table.fired, part.table.offsets[1:-1])
        ]
        for coverage in (1, 50, 95, 100):
            assert covering(part.tally, coverage).tolist() == [oracle.least_covering(f, coverage) for f in of_neuron]
        owner = np.repeat(np.arange(70), np.diff(part.table.offsets))
        f, o = part.table.fired, grams.occurrences[part.table.ngrams]
        for detection, least, often in ((50, 1, 5), (95, 3, 2), (100, 16, 16)):
            detects = (100 * f >= detection * o) & (o >= least)
            plain = [np.bincount(owner, np.where(some, f, 0), 70).tolist() for some in (detects, detects & (o >= often))]
            assert [sums.tolist() for sums in on_detected(part.tally, detection, least, often)] == plain
        again = tally_of(part.table, grams.occurrences)
        assert all(np.array_equal(getattr(again, field), getattr(part.tally, field)) for field in vars(again))


def test_a_layer_counted_on_a_device_is_that_layer_counted_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heavy n-grams of several pieces, many chunks of counts, and neurons that fill no word."""
    monkeypatch.setattr(device_sums, "COUNTS_AT_ONCE", 700)
    ids = text(20, 150, 30, 5)
    fires = np.random.default_rng(5).random((ids.size, 70)) < np.geomspace(0.001, 0.99, 70)
    (here, rows), (there, _) = counted(fires, ids), counted(fires, ids, on_device=True)
    assert rows.unigrams.common.sizes.max() > device_sums.PIECE and len(rows.bigrams.common) > 20
    assert same(here, there)


def test_a_device_that_counts_keeps_orders_and_room_from_layer_to_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, device = text(4, 60, 10, 0), Interpreting()
    put: list[int] = []

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        put.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(device, "put", noted, raising=False)
    rows = index(ids.astype(np.int32), np.zeros(4, np.uint8), 1, BOS, 13)
    for layer in range(3):
        firings = fired(np.random.default_rng(layer).random((ids.size, 9)) < 0.5, ids)
        expected = count(firings, rows)
        firings.on_device, firings.device = torch.from_numpy(firings.bits), device
        assert same(count(firings, rows), expected)
        assert len(put) == 5 * 5  # five arrays of the orders by place, of BOS and of common n-grams


def test_what_is_just_enough_is_enough_and_more_is_not_taken() -> None:
    ids = np.repeat([BOS, 5, 6, 7], [1, 300, 270, 30])[None]
    counts, _ = counted((ids != BOS).reshape(-1, 1), ids)
    k = {coverage: covering(counts.unigrams.tally, coverage).tolist() for coverage in (50, 51, 95, 96, 100)}
    assert k == {50: [1], 51: [2], 95: [2], 96: [3], 100: [3]}


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), vocabulary=st.integers(5, 60), density=st.floats(0.001, 1))
def test_longer_ngrams_never_cover_with_fewer(seed: int, vocabulary: int, density: float) -> None:
    ids = text(4, 60, vocabulary, seed)
    counts, _ = counted(np.random.default_rng(seed).random((ids.size, 9)) < density, ids)
    for coverage in (50, 95, 100):
        k = [covering(getattr(counts, name).tally, coverage) for name in NAMES.values()]
        assert (k[0] <= k[1]).all() and (k[1] <= k[2]).all()


def test_a_pruned_table_changes_no_number_and_a_question_that_needs_it_is_refused() -> None:
    ids = text(20, 150, 60, 1)
    fires = np.random.default_rng(1).random((ids.size, 40)) < np.geomspace(0.002, 0.5, 40)
    (whole, rows), (pruned, _) = (counted(fires, ids, keep) for keep in (None, 60))
    assert whole.trigrams.table.kept.all() and 0 < pruned.trigrams.table.kept.sum() < 40
    for ours, theirs in zip(tables(whole, rows), tables(pruned, rows), strict=True):
        assert ours.equals(theirs)
    ever = Thresholds(coverage=1, detection=1, bigrams=10_000, trigrams=10_000)
    tables(whole, rows, ever)
    with pytest.raises(UserError, match="keep_ngrams"):
        tables(pruned, rows, ever)


@pytest.mark.parametrize("domains", [1, 3])
@pytest.mark.parametrize("keep", [None, 100_000])
def test_shards_add_up_to_the_whole(domains: int, keep: int | None) -> None:
    ids = text(12, 80, 40, 3)
    of = np.sort(np.random.default_rng(0).integers(0, domains, 12)).astype(np.uint8)
    fires = (np.random.default_rng(3).random((12, 80, 33)) < np.geomspace(0.0005, 0.9, 33)).astype(bool)
    chosen = np.zeros(12, bool)
    chosen[::2] = True  # any shards do, as long as each keeps its order; here domain by domain
    a, b = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    whole_order = np.concatenate([np.concatenate([part[of[part] == d] for part in (a, b)]) for d in range(domains)])

    def taken(rows: np.ndarray) -> tuple[LayerCounts, Index]:
        rows_index = index(ids[rows].astype(np.int32), of[rows], domains, BOS, 40)
        return count(fired(fires[rows].reshape(-1, 33), ids[rows]), rows_index, keep), rows_index

    (ca, ia), (cb, ib), (expected, index_of_whole) = taken(a), taken(b), taken(whole_order)
    together = merged_index(ia, ib, BOS)
    assert np.array_equal(together.ids, index_of_whole.ids)
    assert same(merged_counts(ca, cb, ia, ib, together, keep), expected)


def test_shards_without_whole_tables_are_not_added_up_wrongly() -> None:
    ids = text(6, 80, 40, 3)
    counts, rows = counted(np.random.default_rng(3).random((480, 9)) < 0.5, ids, keep=5)
    with pytest.raises(UserError, match="would not be exact"):
        merged_counts(counts, counts, rows, rows, merged_index(rows, rows, BOS), 5)


def test_more_than_two_to_the_24_firings_are_counted_one_by_one() -> None:
    tokens = 2**24 + 4096 + 3
    ids = np.full((1, tokens), 5, np.int32)
    ids[0, ::2] = 4
    ids[0, 0] = BOS
    bits = np.zeros((tokens, 8), np.uint8)
    bits[:, 0] = 1
    at = index(ids.reshape(1, -1), np.zeros(1, np.uint8), 1, BOS, 6).unigrams
    from analyze.counts.ngram_histograms import tally
    from analyze.counts.sparse import table
    from analyze.firing.segment_sum import HostSums, Segments

    every = Segments(np.arange(1, tokens, dtype=np.int32), np.array([0, tokens - 1], np.int32))
    assert HostSums(bits, 2).whole(every).tolist() == [[tokens - 1, 0]]
    found = tally(bits, 2, at)
    assert found.n_fired.tolist() == [tokens - 1, 0] and covering(found, 95).tolist() == [2, 0]
    assert table(bits, np.ones(2, bool), at).fired.tolist() == [(tokens - 1) // 2, (tokens - 1) - (tokens - 1) // 2]


def test_bits_in_a_file_leave_nothing_behind(tmp_path: Path) -> None:
    bits = scratch.nameless(1000, 8, tmp_path / "scratch")
    bits[999] = 7
    assert isinstance(bits, np.memmap) and bits[999].tolist() == [7] * 8 and not bits[:999].any()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    "take", [lambda folder: scratch.nameless(1000, 8, folder), lambda folder: scratch.mapped(folder / "f", 8)]
)
def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: Callable[[Path], object]) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left.* Finished layers are kept"):
        take(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [scratch.WRITTEN // 2, scratch.WRITTEN + 1])
def test_room_is_taken_where_no_system_call_reserves_it(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: zeros are written, so that a disk with less room says so now."""
    monkeypatch.delattr(os, "posix_fallocate")
    assert not scratch.nameless(size, 1, tmp_path).any()
    assert len(scratch.mapped(tmp_path / "f", size)) == size <= 512 * (tmp_path / "f").stat().st_blocks
    (tmp_path / "f").unlink()
    as_ever = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, as_ever[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            scratch.nameless(size, 1, tmp_path)
        with pytest.raises(UserError, match="File too large"):
            scratch.mapped(tmp_path / "f", size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, as_ever)
    assert not list(tmp_path.iterdir())


def test_ngrams_do_not_cross_sequences_nor_end_on_bos() -> None:
    ids = np.array([[BOS, 5, 6], [7, BOS, 8]], np.int32)
    assert ngrams(ids, ids != BOS, 2, 9).ids.tolist() == [[-1, 7], [2, 5], [2, 8], [5, 6]]
    assert ngrams(ids, ids != BOS, 3, 9).ids.tolist() == [[-1, -1, 7], [-1, 2, 5], [2, 5, 6], [7, 2, 8]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_packing_in_numba_is_packing_in_torch(dtype: torch.dtype) -> None:
    from analyze.firing.mask import _pack_on_cpu
    from analyze.firing.packing import pack

    pre = torch.randn(300, 70, generator=torch.Generator().manual_seed(0)).to(dtype)
    pre[:, 3], pre[:, 4], pre[:, 5] = 0.0, -0.0, -7.0
    some = np.arange(300) % 7 != 0
    ours, theirs = np.zeros((300, 16), np.uint8), torch.zeros(300, 16, dtype=torch.uint8)
    found, expected = Extremes.of(70), Extremes.of(70)
    greatest, first = torch.from_numpy(expected.max_pre), torch.from_numpy(expected.first)
    for begin in (0, 100):  # in pieces
        part = slice(begin, begin + (100 if begin == 0 else 200))
        _pack_on_cpu(pre[part], some[part], ours[part], found, begin)
        pack(CPU(), pre[part], torch.from_numpy(some[part]), theirs[part], greatest, first, begin)
    assert np.array_equal(ours, theirs.numpy()) and np.array_equal(found.max_pre, greatest.numpy())
    assert np.array_equal(found.first, first.numpy()) and found.first[5] == NEVER and found.first[0] < 20
    fires = (pre > 0).numpy() & some[:, None]
    assert (found.first[fires.any(0)] == fires.argmax(0)[fires.any(0)]).all()


@dataclass
class Two(Stored):
    """Two arrays."""

    max_pre: Float32[np.ndarray, " neuron"]
    first_fired: Int64[np.ndarray, " neuron"]


@pytest.mark.parametrize(
    ("least", "greatest", "stored"),
    [
        (0, 255, "U8"),
        (0, 256, "U16"),
        (-1, 127, "I8"),
        (-1, 128, "I16"),
        (0, 65536, "U32"),
        (-1, 40_000, "I32"),
        (0, 2**32, "I64"),
    ],
)
def test_integers_take_few_bytes_on_disk_and_come_back_as_they_were(
    tmp_path: Path, least: int, greatest: int, stored: str
) -> None:
    part = Two(np.array([0.1, -np.inf], np.float32), np.array([least, greatest]))
    part.save(tmp_path / "part.safetensors")
    again = Two.load(tmp_path / "part.safetensors")
    assert np.array_equal(again.first_fired, part.first_fired) and again.first_fired.dtype == np.int64
    assert np.array_equal(again.max_pre, part.max_pre) and again.max_pre.dtype == np.float32
    header = (tmp_path / "part.safetensors").read_bytes()
    assert f'"dtype":"{stored}"'.encode() in header
