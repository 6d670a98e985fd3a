"""The corpus' orders, beside the counts: made once for a corpus, whichever censuses are taken of it."""

import os
from contextlib import suppress
from pathlib import Path

from analyze.counts import Index, about_file, index
from analyze.storing import store
from analyze.task import CensusTask


def corpus_index(task: CensusTask, keep: bool) -> Index:
    """The corpus' orders: those beside the counts, else made and, if `keep`, put there with the counts of the corpus."""
    file, s, vocabulary = task.out / "index.safetensors", task.sequences, task.checkpoint.config.vocab_size
    about = {"corpus": f"{s.fingerprint}, {vocabulary} ids"}
    if not keep:
        return index(s.ids, s.domains, len(s.domain_names), s.bos_id, vocabulary)
    _share(file, about)
    if about_file(file) != about:
        store(index(s.ids, s.domains, len(s.domain_names), s.bos_id, vocabulary), file, about)
    found = Index.load(file)
    store(found.corpus, task.out / "corpus.safetensors")
    return found


def _share(file: Path, about: dict[str, str]) -> None:
    """Give a folder without an index that of a neighbour, of another milestone say, on the same corpus. One file, two names."""
    for theirs in [] if file.exists() else sorted(file.parent.parent.glob(f"*/{file.name}")):
        if about_file(theirs) == about:
            with suppress(OSError):  # a file system without such names: it is made again
                os.link(theirs, file)
            return
