"""Several processes: which share each has, what they send, and that the files are those of one."""

import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import pytest
import torch
from processes import SERVER, become_rank, free_port
from test_counts import counted, same, text

from analyze import exchange, joining
from analyze.counts import Index, LayerCounts, arrays_of, count, narrow
from analyze.exchange import Exchange
from analyze.firings import Firings
from analyze.joining import collected, joined_neurons
from analyze.ranks import Ranks, joined
from errors import plainly

SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[007-009,12],cpu1", "SLURM_STEP_TASKS_PER_NODE": "2",
}  # fmt: skip


def _rank(number: int, world: int, port: int, work: Callable[..., Any], arguments: tuple[Any, ...], answers: Any) -> None:
    if number == 0:
        os.environ.pop("SLURM_STEP_ID", None)
    become_rank(number, world, port)
    torch.set_num_threads(1)
    with plainly():
        answers.put((number, work(*arguments)))


def on_ranks(world: int, work: Callable[..., Any], *arguments: Any, codes: int = 0) -> list[Any]:
    """What `work` gives in each of so many processes that have joined, all of which end with exit code `codes`."""
    port, answers = free_port(), SERVER.Queue()
    processes: list[BaseProcess] = [
        SERVER.Process(target=_rank, args=(number, world, port, work, arguments, answers)) for number in range(world)
    ]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=120) for _ in processes) if codes == 0 else {}
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [codes] * world
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("things", [0, 1, 2, 5, 8, 33])
def test_shares_are_neighbours_that_differ_by_one_at_most(world: int, things: int) -> None:
    for share in (Ranks(0, world).share, Ranks(0, world).words):
        shares = [share(things, rank) for rank in range(world)]
        assert [n for part in shares for n in part] == list(range(things))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert things == 0 or len(Ranks(0, world).words(things))
    neurons = np.arange(max(0, 64 * things - 13))
    assert (
        np.concatenate([neurons[Ranks(rank, world).neurons(len(neurons))] for rank in range(world)]).tolist() == neurons.tolist()
    )


def _exchanged(whole: np.ndarray, rows_of_batch: int, at_once: int) -> np.ndarray:
    """What a rank has of a matrix when every rank has recorded its share."""
    ranks, words = joined(), whole.shape[1] // 8
    exchange.AT_ONCE = at_once
    batches = -(-len(whole) // rows_of_batch)
    mine = np.full((len(whole), 8 * len(ranks.words(words))), 77, np.uint8)
    for _ in range(2):  # layer after layer
        under_way = Exchange(ranks, batches, rows_of_batch, words, mine)
        for batch in ranks.share(batches):
            rows = whole[batch * rows_of_batch : (batch + 1) * rows_of_batch]
            under_way.room(batch * rows_of_batch, len(rows))[:] = rows
            under_way.written(batch * rows_of_batch + len(rows))
        under_way.finish()
    return mine


@pytest.mark.parametrize(
    ("world", "batches", "words", "at_once"), [(2, 9, 5, 1), (3, 7, 4, 700), (3, 2, 2, 1), (2, 1, 1, 1 << 20), (3, 8, 1, 1)]
)
def test_every_rank_gets_all_rows_of_its_words(world: int, batches: int, words: int, at_once: int) -> None:
    rows_of_batch = 12
    whole = np.random.default_rng(0).integers(0, 256, (rows_of_batch * batches - 5, 8 * words), np.uint8)
    found = on_ranks(world, _exchanged, whole, rows_of_batch, at_once)
    assert np.array_equal(np.concatenate(found, axis=1), whole)


def layer(neurons: int, keep: int | None) -> tuple[LayerCounts, Index, Firings]:
    """Counts of neurons of all kinds on a corpus of n-grams of all kinds: dead ones, ones that fire always and on a token."""
    ids = text(30, 60, 40, 3)
    rng = np.random.default_rng(4)
    fires = rng.random((ids.size, neurons)) < np.where(np.arange(neurons) % 3 == 0, 0, rng.random(neurons) ** 4)
    fires[:, 1] = True
    fires[:, -1] = ids.ravel() == 5
    from test_counts import fired

    return *counted(fires, ids, keep), fired(fires, ids)


def part(firings: Firings, neurons: slice) -> Firings:
    """Some whole words of neurons."""
    bits = np.ascontiguousarray(firings.bits[:, neurons.start // 8 : -(-neurons.stop // 64) * 8])
    return Firings(bits, neurons.stop - neurons.start, firings.max_pre[neurons], firings.first_fired[neurons])


@pytest.mark.parametrize("keep", [None, 20, 0])
def test_parts_of_neurons_joined_are_the_whole(keep: int | None) -> None:
    whole, rows, firings = layer(200, keep)
    parts = [count(part(firings, Ranks(rank, 3).neurons(200)), rows, keep) for rank in range(3)]
    assert same(joined_neurons(parts), whole) and same(joined_neurons([whole]), whole)


def _collected(world: int, keep: int | None) -> dict[str, np.ndarray] | None:
    ranks = joined()
    joining.SENT_AT_ONCE = 1000
    _, rows, firings = layer(200 if world == 2 else 70, keep)
    neurons = ranks.neurons(firings.neurons)
    mine = count(part(firings, neurons), rows, keep) if neurons.stop > neurons.start else None
    found = collected(mine, ranks)
    return None if found is None else dict(found)


@pytest.mark.parametrize("world", [2, 3])
def test_what_ranks_counted_is_collected_in_the_types_of_the_whole(world: int) -> None:
    whole, _, _ = layer(200 if world == 2 else 70, 20)
    found, *nothing = on_ranks(world, _collected, world, 20)
    expected = {name: narrow(array) for name, array in arrays_of(whole).items()}
    assert nothing == [None] * (world - 1) and found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype and np.array_equal(found[name], expected[name]) for name in expected)
