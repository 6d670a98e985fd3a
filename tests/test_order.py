"""The data order: every token of an epoch once, whoever reads it; the same batches on any number of ranks and workers."""

import pickle

import numpy as np
import pytest
import tiny
import torch
from torch.utils.data import DataLoader

from corpora.prepare import token_store
from corpora.store import TokenSplit, TokenStore
from train.data_order import Steps, TrainingOrder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return token_store(tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text"), shard_tokens=1000)


@pytest.fixture
def split(store: TokenStore) -> TokenSplit:
    return store.split("train")


def stream(split: TokenSplit, seed: int, epoch: int) -> np.ndarray:
    """The epoch's documents end to end, by a plain loop."""
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch]))).permutation(len(split.offsets) - 1)
    return np.concatenate([split.read(int(split.offsets[d]), int(split.offsets[d + 1])) for d in order])


@pytest.mark.parametrize("context", [5, 16, 700])
@pytest.mark.parametrize("epoch", [0, 2])
def test_an_epoch_is_its_documents_cut_into_windows(split: TokenSplit, context: int, epoch: int) -> None:
    order = TrainingOrder(split, context, seed=3)
    windows = [order.window(epoch * order.per_epoch + i) for i in range(order.per_epoch)]
    whole = stream(split, 3, epoch)
    expected = whole[: order.per_epoch * (context + 1)].reshape(-1, context + 1)
    assert sorted(map(tuple, windows)) == sorted(map(tuple, expected))
    assert [tuple(w) for w in windows] != [tuple(w) for w in expected], "windows are permuted too"


def test_epochs_and_seeds_have_orders_of_their_own(split: TokenSplit) -> None:
    order = TrainingOrder(split, 16, seed=3)
    assert not np.array_equal(order.window(0), order.window(order.per_epoch))
    assert not np.array_equal(order.window(0), TrainingOrder(split, 16, seed=4).window(0))
    assert np.array_equal(order.window(5), TrainingOrder(split, 16, seed=3).window(5))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_windows_of_a_step(split: TokenSplit, ranks: int) -> None:
    order = TrainingOrder(split, 16, seed=0)
    alone = Steps(order, 0, 9, micro_steps=8, micro=2).batch(7).flatten(0, 1)
    shared = [Steps(order, 0, 9, 8 // ranks, 2, rank, ranks).batch(7).flatten(0, 1) for rank in range(ranks)]
    assert torch.equal(alone.sort(0).values, torch.cat(shared).sort(0).values)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_starts_do_not_change_the_batches(split: TokenSplit, workers: int) -> None:
    order = TrainingOrder(split, 16, seed=0)
    expected = [(step, Steps(order, 0, 9, 2, 2).batch(step)) for step in range(4, 9)]
    read = list(DataLoader(Steps(order, 4, 9, 2, 2), batch_size=None, num_workers=workers))
    assert [step for step, _ in read] == [step for step, _ in expected]
    assert all(torch.equal(ids, theirs) for (_, ids), (_, theirs) in zip(read, expected, strict=True))


def test_the_documents_of_a_step_are_those_its_ids_come_from(split: TokenSplit) -> None:
    order = TrainingOrder(split, 16, seed=0)
    ranks = [Steps(order, 0, 9, 2, 2, rank, 2) for rank in range(2)]
    ids = torch.cat([steps.batch(7).flatten(0, 1) for steps in ranks])
    bounds = zip(split.offsets[:-1], split.offsets[1:], strict=True)
    texts = {number: f" {' '.join(map(str, split.read(int(a), int(b))))} " for number, (a, b) in enumerate(bounds)}
    pieces = [piece for window in ids.tolist() for piece in f" {' '.join(map(str, window))} ".replace(" 2 ", " 2 | ").split("|")]
    named = ranks[0].documents(7)
    assert named == ranks[1].documents(7) == sorted(set(named)) and len(named) >= 4
    for piece in pieces:
        assert not piece.strip() or any(piece.rstrip() + " " in texts[number] for number in named), piece
    alone = [number for piece in pieces if len(at := [n for n in texts if piece in texts[n]]) == 1 for number in at]
    assert set(alone) <= set(named)
    assert all(any(piece.strip() and piece.rstrip() + " " in texts[number] for piece in pieces) for number in named)


def test_a_reader_elsewhere_opens_the_store_anew(split: TokenSplit) -> None:
    order = TrainingOrder(split, 16, seed=3)
    window = order.window(5)
    sent = pickle.dumps(order)
    assert len(sent) < 1000 and np.array_equal(pickle.loads(sent).window(5), window)
