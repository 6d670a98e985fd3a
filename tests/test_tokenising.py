"""Tokens come back in order, the same from any number of processes; one that dies is a sentence."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from corpora import tokenize_parallel as tokenising
from corpora.document import Document
from corpora.tokenize_parallel import tokenised
from corpora.tokenizer import open_tokenizer, train_bpe
from errors import UserError

TEXTS = [f"text {i} " * (1 + i * 37 % 50) for i in range(60)] + ["", "an </s> that somebody wrote"]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_bpe(TEXTS, 300).save(str(file))
    return file


def batches(size: int) -> Iterator[list[Document]]:
    for start in range(0, len(TEXTS), size):
        yield [Document("any", str(i), TEXTS[i]) for i in range(start, min(start + size, len(TEXTS)))]


@pytest.mark.parametrize(("workers", "size"), [(1, 7), (2, 7), (3, 1), (2, 99), (None, 30)])
def test_any_number_of_processes_gives_the_same_tokens_in_order(tokenizer_file: Path, workers: int | None, size: int) -> None:
    """The oracle: one text after another. Each is closed by </s>, which no text can forge."""
    tokenizer = open_tokenizer(str(tokenizer_file))
    expected = [[*tokenizer.encode(text, add_special_tokens=False).ids, 2] for text in TEXTS]
    done = list(tokenised(batches(size), tokenizer_file, workers))
    assert [document.text for batch, _ in done for document in batch] == TEXTS
    assert np.concatenate([tokens.ids for _, tokens in done]).tolist() == [id for ids in expected for id in ids]
    assert [n for _, tokens in done for n in tokens.lengths] == [len(ids) for ids in expected]
    assert sum(ids.count(2) for ids in expected) == len(TEXTS)


def test_few_batches_are_read_ahead_of_their_turn(tokenizer_file: Path) -> None:
    read: list[int] = []

    def counted() -> Iterator[list[Document]]:
        for batch in batches(1):
            read.append(1)
            yield batch

    for done, _ in enumerate(tokenised(counted(), tokenizer_file, 2), 1):
        assert len(read) - done <= 2 * tokenising.AHEAD
    assert done == len(TEXTS)


def test_a_process_that_is_killed_is_a_sentence(tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    begin = tokenising._Process.__init__

    def noted(process: tokenising._Process, file: Path) -> None:
        begin(process, file)
        started.append(process._running.pid)

    monkeypatch.setattr(tokenising._Process, "__init__", noted)
    work = tokenised(batches(1), tokenizer_file, 2)
    next(work)
    for pid in started:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"exit code -9.*fewer corpus\.workers"):
        list(work)
