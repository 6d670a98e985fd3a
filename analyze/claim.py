"""A census folder becomes ours, or is refused: it remembers what its counts were made from."""

import json
from pathlib import Path

from analyze.formats import FORMAT, format_of, read_meta
from analyze.task import CensusTask
from errors import UserError
from files import UNFINISHED, write_whole
from models.checkpoint import Checkpoint


def check(task: CensusTask) -> None:
    """Refuse a folder that holds something else.

    Raises:
        UserError: counts made otherwise, named; or files that are no census.
    """
    meta = task.out / "meta.json"
    if meta.exists():
        there = read_meta(task.out)
        theirs = there.get("identity", {})
        if format_of(there) != FORMAT:
            raise UserError(
                f"out={task.out} holds a census of format {format_of(there)}, which can be read and drawn but not gone on with: this "
                f"version counts into format {FORMAT}. Choose another out=, and the same command makes it anew."
            )
        if differs := [f"{k} (there {theirs.get(k)}, here {v})" for k, v in task.identity.items() if theirs.get(k) != v]:
            raise UserError(f"out={task.out} holds a census with another {'; another '.join(differs)}. Choose another out=.")
    elif task.out.exists() and any(not UNFINISHED.fullmatch(file.name) for file in task.out.iterdir()):
        raise UserError(f"out={task.out} is not empty and is no census. Choose another out=.")


def claim(task: CensusTask) -> None:
    """Make a folder that passed the check ours: first its meta.json, which says so, then what is still lacking."""
    if not (task.out / "meta.json").exists():
        write_whole(task.out / "meta.json", json.dumps({"format": FORMAT, "identity": task.identity}, indent=2) + "\n")
    tokenizer, copy = task.sequences.tokenizer_file or _tokenizer_of(task.checkpoint), task.out / "tokenizer.json"
    if tokenizer is not None and not copy.exists():
        write_whole(copy, tokenizer.read_bytes())


def _tokenizer_of(checkpoint: Checkpoint) -> Path | None:
    if checkpoint.tokenizer is None:
        return None
    file = Path(checkpoint.tokenizer)
    file = file / "tokenizer.json" if file.is_dir() else file
    return file if file.is_file() else None
