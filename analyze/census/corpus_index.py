"""The corpus' orders, beside the counts: made once for a corpus, whichever censuses are taken of it, and mapped by all who count."""

import os
from contextlib import suppress
from pathlib import Path

from allocator import given_back
from analyze.census.distributed import Ranks
from analyze.census.job import CensusTask
from analyze.counts.layer import Index, index
from analyze.storage.arrays import store
from analyze.storage.formats import FORMAT
from analyze.storage.stored import opened
from errors import UserError


def corpus_index(task: CensusTask, ranks: Ranks) -> Index:
    """The corpus' orders: those beside the counts, else made and put there with the counts of the corpus.

    The first rank makes them. A rank on another machine, where no such file is seen, makes its own.
    """
    file, vocabulary = task.out / "index.safetensors", task.checkpoint.config.vocab_size
    about = {"corpus": f"{task.sequences.fingerprint}, {vocabulary} ids"}
    if ranks.first:
        _share(file, about)
        if not _holds(file, about):
            with given_back():  # sorting takes several times the room of what is found
                store(_made(task), file, about)
        store(Index.load(file, mapped=True).corpus, task.out / "corpus.safetensors")
    ranks.told(None)
    return Index.load(file, mapped=True) if _holds(file, about) else _made(task)


def _made(task: CensusTask) -> Index:
    s = task.sequences
    return index(s.ids, s.domains, len(s.domain_names), s.bos_id, task.checkpoint.config.vocab_size)


def _holds(file: Path, about: dict[str, str]) -> bool:
    """Whether it is this corpus' orders, as this version writes them; a damaged file is made again."""
    try:
        content = opened(file)
        return (content.about, content.format) == (about, str(FORMAT))
    except UserError:
        return False


def _share(file: Path, about: dict[str, str]) -> None:
    """Give a folder without an index that of a neighbour, of another milestone say, on the same corpus. One file, two names."""
    for theirs in [] if file.exists() else sorted(file.parent.parent.glob(f"*/{file.name}")):
        if _holds(theirs, about):
            with suppress(OSError):  # a file system without such names: it is made again
                os.link(theirs, file)
            return
