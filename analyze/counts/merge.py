"""Counts of two corpora -> counts of both as one: what two censuses of one model on two shards say together, without the model."""

import numpy as np
from jaxtyping import Int64

from analyze.counts.layer import Index, LayerCounts, NgramCounts, index, kept
from analyze.counts.ngram_histograms import CELLS, MANY, Tally, cell
from analyze.counts.ngrams import NAMES, RARE, Ngrams
from analyze.counts.recorders import recorders
from analyze.counts.sparse import Table
from analyze.storage.stored import Named
from errors import UserError

Numbers = Int64[np.ndarray, " ngram"]


def merged_index(a: Index, b: Index, bos_id: int) -> Index:
    """The index of the sequences of `a`, then those of `b`, domain by domain."""
    domains = np.concatenate([a.domain, b.domain])
    order = np.argsort(domains, kind="stable")
    ids = np.concatenate([a.ids, b.ids])[order]
    places = len(a.by_place) // a.ids.shape[1]
    return index(ids, domains[order], places, bos_id, len(a.unigrams.occurrences))


def merged_counts(a: LayerCounts, b: LayerCounts, ia: Index, ib: Index, whole: Index, keep: int | None) -> LayerCounts:
    """The counts of a layer on both shards: byte for byte those of one census on the whole.

    Raises:
        UserError: a shard did not keep the n-grams of some neuron.
    """
    return LayerCounts(
        fired_at=a.fired_at + b.fired_at,
        fired_bos=a.fired_bos + b.fired_bos,
        max_pre=np.maximum(a.max_pre, b.max_pre),
        first_fired=_first(_placed(a.first_fired, ia, ib, False), _placed(b.first_fired, ib, ia, True)),
        recorded=_merged_records(a, b),
        **{
            name: _merged_ngrams(
                (getattr(a, name), getattr(ia, name)),
                (getattr(b, name), getattr(ib, name)),
                getattr(whole, name),
                keep,
                name,
            )
            for name in NAMES.values()
        },
    )


def _merged_records(a: LayerCounts, b: LayerCounts) -> Named:
    """What recorders keep, where both shards have it."""
    merged = {r.name: r.merge(a.of(r.name), b.of(r.name)) for r in recorders() if a.of(r.name) and b.of(r.name)}
    return Named({f"{name}.{array}": values for name, arrays in merged.items() for array, values in arrays.items()})


def _placed(first: Int64[np.ndarray, " neuron"], mine: Index, other: Index, after: bool) -> Int64[np.ndarray, " neuron"]:
    """An index among one shard's counted positions as one among both's: the other's of earlier domains come before it."""
    ours, theirs = (i.corpus.seen_at.sum(1) for i in (mine, other))
    domain = np.searchsorted(np.cumsum(ours), np.maximum(first, 0), side="right")
    before = np.cumsum(theirs) - (0 if after else theirs)  # the second shard stands after the first's part of its own domain
    return np.where(first < 0, -1, first + before[np.minimum(domain, len(before) - 1)])


def _first(a: Int64[np.ndarray, " neuron"], b: Int64[np.ndarray, " neuron"]) -> Int64[np.ndarray, " neuron"]:
    return np.where(a < 0, b, np.where(b < 0, a, np.minimum(a, b)))


def _merged_ngrams(
    a: tuple[NgramCounts, Ngrams], b: tuple[NgramCounts, Ngrams], whole: Ngrams, keep: int | None, name: str
) -> NgramCounts:
    if missing := int((~(a[0].table.kept & b[0].table.kept)).sum()):
        raise UserError(
            f"{missing} neurons of a layer have no table of {name} in one of the shards, so their sums would not be exact. "
            "Take the shards' censuses with keep_ngrams=null, or one census of the whole corpus."
        )
    table = _sum(a[0].table, b[0].table, _numbers(a[1], whole), _numbers(b[1], whole))
    tally = tally_of(table, whole.occurrences)
    return NgramCounts(tally, only(table, kept(tally, keep)))


def _numbers(part: Ngrams, whole: Ngrams) -> Numbers:
    """The number in the whole of every n-gram of a part."""
    if len(part.ids) == len(whole.ids):
        return np.arange(len(whole.ids))
    base = int(whole.ids.max()) + 2
    keys = [((ngrams.ids.astype(np.int64) + 1) * base ** np.arange(ngrams.ids.shape[1])[::-1]).sum(1) for ngrams in (whole, part)]
    return np.asarray(np.searchsorted(keys[0], keys[1]))


def _sum(a: Table, b: Table, numbers_a: Int64[np.ndarray, " ngram_of_a"], numbers_b: Int64[np.ndarray, " ngram_of_b"]) -> Table:
    """Both tables in the numbers of the whole, entries of the same neuron and n-gram added."""
    neurons = len(a.kept)
    owner = np.concatenate([np.repeat(np.arange(neurons), np.diff(t.offsets)) for t in (a, b)])
    number = np.concatenate([numbers_a[a.ngrams], numbers_b[b.ngrams]])
    fired = np.concatenate([a.fired, b.fired])
    order = np.lexsort((number, owner))
    owner, number, fired = owner[order], number[order], fired[order]
    new = np.concatenate([np.ones(min(1, len(owner)), bool), (owner[1:] != owner[:-1]) | (number[1:] != number[:-1])])
    sums = np.add.reduceat(fired, np.flatnonzero(new), dtype=np.int32) if len(fired) else fired
    return Table(np.ones(neurons, bool), _offsets(owner[new], neurons), number[new].astype(np.int32), sums)


def _offsets(owner: Int64[np.ndarray, " entry"], neurons: int) -> Int64[np.ndarray, " neuron_and_end"]:
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=neurons))])


def only(table: Table, keep: np.ndarray) -> Table:
    """The table of some of its neurons."""
    owner = np.repeat(np.arange(len(keep)), np.diff(table.offsets))
    chosen = keep[owner]
    return Table(keep, _offsets(owner[chosen], len(keep)), table.ngrams[chosen], table.fired[chosen])


def tally_of(table: Table, occurrences: Numbers) -> Tally:
    """The tally of neurons whose tables are whole: what `tally` counts from bits, from sums of tables."""
    neurons = len(table.kept)
    owner, fired = np.repeat(np.arange(neurons), np.diff(table.offsets)), table.fired.astype(np.int64)
    occurs = occurrences[table.ngrams]
    rare, common, levels = (
        np.zeros((CELLS, neurons), np.int32),
        np.zeros((MANY, neurons), np.int32),
        np.zeros((101, neurons), np.int64),
    )
    few = occurs <= RARE
    np.add.at(rare, (cell(occurs[few], fired[few]), owner[few]), 1)
    owner, fired, occurs = owner[~few], fired[~few], occurs[~few]
    np.add.at(levels, (100 * fired // occurs, owner), fired)
    np.add.at(common, (fired[fired < MANY], owner[fired < MANY]), 1)
    owner, many = owner[fired >= MANY], fired[fired >= MANY].astype(np.int32)
    return Tally(rare, common, _offsets(owner, neurons), many[np.lexsort((many, owner))], levels)
