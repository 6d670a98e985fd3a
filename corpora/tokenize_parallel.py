"""documents -> tokens: batches of texts through processes of their own, on all cores, and back in order.

A long text goes in pieces, each to any of them. Each process is `python -m corpora.tokenize_parallel TOKENIZER`: it reads
pickled pieces from its standard input, answers with ids,
and ends when the input does, so that nothing is left of a preparation that was killed. Processes, because the tokenizer's
threads wait for each other; not multiprocessing's, because those import the whole main program again.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from queue import LifoQueue
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt
from tokenizers import Tokenizer

from corpora.document import Document
from corpora.long_texts import is_cuttable, pieces
from corpora.tokenizer import bos_id, open_tokenizer
from errors import UserError

AHEAD = 2  # batches a process that wait or are done before their turn


class Tokens(NamedTuple):
    """A batch of documents end to end, each with the closing id after it."""

    ids: UInt[np.ndarray, " token"]  # of two bytes where they fit, else of four
    lengths: Int64[np.ndarray, " document"]


Piece = tuple[str, bool]  # of a document, and whether it is its last
JOB = 1_000_000  # characters of pieces that a process is given at a time


def tokens(texts: Sequence[Piece], tokenizer: Tokenizer, closing: int) -> Tokens:
    """The pieces' ids, the last one of a document closed by the id `closing`."""
    encodings = tokenizer.encode_batch_fast([text for text, _ in texts], add_special_tokens=False)
    ids = [[*encoding.ids, closing] if last else encoding.ids for encoding, (_, last) in zip(encodings, texts, strict=True)]
    flat = np.array(list(chain.from_iterable(ids)), dtype=np.uint32)
    narrow = flat.astype(np.uint16) if flat.max(initial=0) <= 0xFFFF else flat
    return Tokens(narrow, np.array([len(i) for i in ids], dtype=np.int64))


def jobs(batch: Sequence[Document], cuttable: bool) -> Iterator[list[Piece]]:
    """The pieces of a batch in order, so many at a time that memory is bounded however long a document is."""
    job: list[Piece] = []
    characters = 0
    for document in batch:
        done = 0
        for piece in pieces(document.text, cuttable):
            done += len(piece)
            job.append((piece, done == len(document.text)))
            characters += len(piece)
            if characters >= JOB:
                yield job
                job, characters = [], 0
    yield job


def joined(parts: Sequence[Tokens], lasts: Sequence[bool]) -> Tokens:
    """The documents of pieces; `lasts` says of each piece whether it is the last of its document."""
    ends = np.cumsum(np.concatenate([part.lengths for part in parts]))[np.array(lasts, dtype=bool)]
    ids = parts[0].ids if len(parts) == 1 else np.concatenate([part.ids for part in parts])
    return Tokens(ids, np.diff(ends, prepend=0))


def tokenised(
    batches: Iterator[list[Document]], tokenizer_file: Path, workers: int | None
) -> Generator[tuple[list[Document], Tokens], None, None]:
    """Every batch and its tokens, in order, by so many processes (None: one a core). A corpus of one batch is done here."""
    first = list(islice(batches, 2))
    count = worker_count(workers)
    tokenizer = open_tokenizer(str(tokenizer_file))
    cuttable = is_cuttable(tokenizer)
    if count == 1 or (len(first) < 2 and sum(len(document.text) for batch in first for document in batch) <= JOB):
        closing = bos_id(tokenizer)
        for batch in chain(first, batches):
            done = [(tokens(job, tokenizer, closing), [last for _, last in job]) for job in jobs(batch, cuttable)]
            yield batch, joined([part for part, _ in done], [last for _, lasts in done for last in lasts])
        return
    with ExitStack() as running:
        idle: LifoQueue[_Process] = LifoQueue()
        for _ in range(count):
            idle.put(running.enter_context(_Process(tokenizer_file)))
        yield from _in_order(chain(first, batches), idle, count, cuttable)


def worker_count(workers: int | None) -> int:
    """So many processes; None: one for each core that this one may use."""
    return workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def _in_order(
    batches: Iterator[list[Document]], idle: "LifoQueue[_Process]", count: int, cuttable: bool
) -> Iterator[tuple[list[Document], Tokens]]:
    waiting: deque[_Job] = deque()
    parts: list[Tokens] = []
    lasts: list[bool] = []

    def finished() -> Iterator[tuple[list[Document], Tokens]]:
        job = waiting.popleft()
        parts.append(job.future.result())
        lasts.extend(job.lasts)
        if job.batch is not None:
            done = joined(parts, lasts)
            parts.clear()
            lasts.clear()
            yield job.batch, done

    with ThreadPoolExecutor(count) as threads:
        try:
            for batch in batches:
                for job, is_last in _with_last(jobs(batch, cuttable)):
                    future = threads.submit(_by_an_idle_one, idle, job)
                    waiting.append(_Job(batch if is_last else None, [last for _, last in job], future))
                    if len(waiting) > AHEAD * count:
                        yield from finished()
            while waiting:
                yield from finished()
        finally:
            threads.shutdown(cancel_futures=True)


class _Job(NamedTuple):
    """Pieces under way, and the batch that is done with them."""

    batch: list[Document] | None
    lasts: list[bool]
    future: Future[Tokens]


def _with_last(some: Iterator[list[Piece]]) -> Iterator[tuple[list[Piece], bool]]:
    """Each with whether it is the last one."""
    ahead = next(some)
    for following in some:
        yield ahead, False
        ahead = following
    yield ahead, True


def _by_an_idle_one(idle: "LifoQueue[_Process]", job: list[Piece]) -> Tokens:
    process = idle.get()
    try:
        return process.tokens(job)
    finally:
        idle.put(process)


class _Process:
    """One tokenising process and the two pipes to it."""

    def __init__(self, tokenizer_file: Path) -> None:
        command = [sys.executable, "-m", "corpora.tokenize_parallel", str(tokenizer_file.resolve())]
        alone = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        here = Path(__file__).parents[1]
        self._running = subprocess.Popen(command, cwd=here, env=alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        self._running.communicate()

    def tokens(self, texts: list[Piece]) -> Tokens:
        """Have the pieces tokenised there."""
        assert self._running.stdin and self._running.stdout
        try:
            pickle.dump(texts, self._running.stdin, protocol=5)
            self._running.stdin.flush()
            return Tokens(*pickle.load(self._running.stdout))
        except (BrokenPipeError, EOFError) as mistake:
            raise UserError(
                f"a process that tokenises ended (exit code {self._running.wait()}; -9 is mostly a lack of memory): "
                "run the same command again, with fewer corpus.workers if it is memory."
            ) from mistake


def _serve(tokenizer_file: str) -> None:
    """Answer batches on standard input until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group; the main program says when to stop, or ends
    tokenizer = open_tokenizer(tokenizer_file)
    closing = bos_id(tokenizer)
    while True:
        try:
            texts = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(tuple(tokens(texts, tokenizer, closing)), sys.stdout.buffer, protocol=5)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
