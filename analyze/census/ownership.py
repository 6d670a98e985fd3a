"""A census folder becomes ours, or is refused: it remembers what its counts were made from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from analyze.census.job import CensusTask
from analyze.storage.census_files import TOKENIZER
from analyze.storage.formats import FORMAT, format_of, read_meta, write_meta
from analyze.storage.layer_files import check_layers, layer_files
from checksums import Damaged
from errors import UserError
from files import UNFINISHED, remove_unfinished, write_whole
from locks import LOCK, only_writer
from models.checkpoint import Checkpoint


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Be the only process that writes tables, figures and a page into a folder; folders in it have owners of their own.

    Raises:
        UserError: another process is writing it.
    """
    with only_writer(out, "out="):
        remove_unfinished(out, deep=False)
        remove_unfinished(out / "figures")
        yield


def occupied(out: Path) -> bool:
    """Whether there are files in a folder, other than what its writers leave for each other."""
    passing = (UNFINISHED, LOCK)
    return out.exists() and any(not any(kind.fullmatch(file.name) for kind in passing) for file in out.iterdir())


def check(task: CensusTask) -> None:
    """Refuse a folder that holds something else.

    Raises:
        UserError: counts made otherwise, named; or files that are no census.
    """
    if (there := _there(task)) is not None:
        theirs = there.get("identity", {})
        if format_of(there) != FORMAT:
            raise UserError(
                f"out={task.out} holds a census of format {format_of(there)}, which can be read and drawn but not gone on with: this "
                f"version counts into format {FORMAT}. Choose another out=, and the same command makes it anew."
            )
        if differs := [_difference(key, there, task) for key, value in task.identity.items() if theirs.get(key) != value]:
            raise UserError(f"out={task.out} holds a census with another {'; another '.join(differs)}. Choose another out=.")
    else:
        check_folder(task.out)
    check_layers(task.out, there or {}, task.identity, but=task.unfinished)


def _there(task: CensusTask) -> dict[str, Any] | None:
    """The folder's meta.json; None where it has none, or a damaged one beside layers that say of which census they are."""
    try:
        return read_meta(task.out) if (task.out / "meta.json").exists() else None
    except Damaged:
        if not layer_files(task.out):
            raise
        return None


def check_folder(out: Path) -> None:
    """Refuse, before any text is read, a folder that holds something and is no census."""
    if not (out / "meta.json").exists() and occupied(out) and not layer_files(out):
        raise UserError(f"out={out} is not empty and is no census. Choose another out=.")


def _difference(key: str, there: dict[str, Any], task: CensusTask) -> str:
    """What differs, there and here: checkpoints and corpora by their names, and not by their hashes."""
    theirs, ours = there.get("identity", {}).get(key), task.identity[key]
    if key in ("checkpoint", "corpus"):
        before, now = (of[key] for of in (asked_of(there), asked(task)))
        theirs, ours = (before, now) if before != now else (f"{before} as it was", "as it is now")
    return f"{key} (there {theirs}, here {ours})"


def asked(task: CensusTask) -> dict[str, str]:
    """What a census is of, in words: its checkpoint and its corpus."""
    sequences, positions = task.sequences.ids.shape
    text = f"{task.config.corpus.name}, {split_of(task)}"
    return {"checkpoint": str(task.checkpoint.path), "corpus": f"{text}: {sequences:,} sequences of {positions:,}"}


def split_of(task: CensusTask) -> str:
    """Which split of its corpus a census reads: an array of tokens has none."""
    return task.sequences.read.split if task.sequences.read else "all"


def asked_of(there: dict[str, Any]) -> dict[str, str]:
    """The same of a census that is begun or finished."""
    checkpoint, corpus = there.get("checkpoint", {}), there.get("corpus", {})
    if not corpus:
        return {"checkpoint": "another", "corpus": "another", **there.get("asked", {})}
    text = f"{corpus.get('name')}, {corpus.get('split')}"
    read = f"{corpus.get('sequences', 0):,} sequences of {corpus.get('context', 0):,}"
    return {"checkpoint": str(checkpoint.get("path")), "corpus": f"{text}: {read}"}


def claim(task: CensusTask) -> None:
    """Make a folder that passed the check ours, without what killed processes left: first its meta.json, which says so, then the rest."""
    remove_unfinished(task.out)
    if _there(task) is None:
        write_meta(task.out, {"format": FORMAT, "identity": task.identity, "asked": asked(task)})
    tokenizer, copy = task.sequences.tokenizer_file or _tokenizer_of(task.checkpoint), task.out / TOKENIZER
    if tokenizer is not None and not (copy.is_file() and copy.read_bytes() == tokenizer.read_bytes()):
        write_whole(copy, tokenizer.read_bytes())


def _tokenizer_of(checkpoint: Checkpoint) -> Path | None:
    if checkpoint.tokenizer is None:
        return None
    file = Path(checkpoint.tokenizer)
    file = file / "tokenizer.json" if file.is_dir() else file
    return file if file.is_file() else None
