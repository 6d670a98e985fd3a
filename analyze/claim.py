"""A census folder becomes ours, or is refused: it remembers what its counts were made from."""

from pathlib import Path
from typing import Any

from analyze.census_files import TOKENIZER
from analyze.counted import check_layers, layer_files
from analyze.formats import FORMAT, format_of, read_meta, write_meta
from analyze.task import CensusTask
from checksums import Damaged
from errors import UserError
from files import UNFINISHED, write_whole
from models.checkpoint import Checkpoint


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
        if differs := [f"{k} (there {theirs.get(k)}, here {v})" for k, v in task.identity.items() if theirs.get(k) != v]:
            raise UserError(f"out={task.out} holds a census with another {'; another '.join(differs)}. Choose another out=.")
    elif (
        not layer_files(task.out)
        and task.out.exists()
        and any(not UNFINISHED.fullmatch(file.name) for file in task.out.iterdir())
    ):
        raise UserError(f"out={task.out} is not empty and is no census. Choose another out=.")
    check_layers(task.out, there or {}, task.identity, but=task.unfinished)


def _there(task: CensusTask) -> dict[str, Any] | None:
    """The folder's meta.json; None where it has none, or a damaged one beside layers that say of which census they are."""
    try:
        return read_meta(task.out) if (task.out / "meta.json").exists() else None
    except Damaged:
        if not layer_files(task.out):
            raise
        return None


def claim(task: CensusTask) -> None:
    """Make a folder that passed the check ours: first its meta.json, which says so, then what is still lacking."""
    if _there(task) is None:
        write_meta(task.out, {"format": FORMAT, "identity": task.identity})
    tokenizer, copy = task.sequences.tokenizer_file or _tokenizer_of(task.checkpoint), task.out / TOKENIZER
    if tokenizer is not None and not (copy.is_file() and copy.read_bytes() == tokenizer.read_bytes()):
        write_whole(copy, tokenizer.read_bytes())


def _tokenizer_of(checkpoint: Checkpoint) -> Path | None:
    if checkpoint.tokenizer is None:
        return None
    file = Path(checkpoint.tokenizer)
    file = file / "tokenizer.json" if file.is_dir() else file
    return file if file.is_file() else None
