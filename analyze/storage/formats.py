"""meta.json of a census folder, and the number that says how such a folder is laid out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checksums import CHECKSUM, Damaged, read_object, write_object
from errors import UserError

FORMAT = 3  # of folders that this version writes; 1, which had no number, hashed checkpoints in another way
WITH_CHECKSUMS = 3  # the first format whose files carry checksums, or have theirs in meta.json
READABLE = (1, 2, 3)  # of which tables, counts and figures are read


def read_meta(folder: Path) -> dict[str, Any]:
    """A census folder's meta.json.

    Raises:
        UserError: it is missing, or of a format that this version does not read; `Damaged`: it is not as it was written.
    """
    file = folder / "meta.json"
    try:
        meta = read_object(file, without=True)
        if CHECKSUM not in meta and _has_checksums(meta):
            raise ValueError("it has no checksum")
    except FileNotFoundError:
        raise UserError(f"{folder} is no census: meta.json is missing.") from None
    except OSError as broken:
        raise UserError(f"{file} cannot be read ({broken.strerror or broken}).") from None
    except ValueError as broken:
        raise Damaged(f"{file} is damaged ({str(broken).splitlines()[0][:200]}): {_anew(folder)}.") from None
    if format_of(meta) not in READABLE:
        raise UserError(
            f"{folder} is a census of format {str(format_of(meta))[:20]}; this version reads {_listed(READABLE)}. "
            "Take it anew with this version: the command that made it, with another out=."
        )
    return meta


def write_meta(folder: Path, entries: Mapping[str, Any]) -> None:
    """Write a census folder's meta.json, with its checksum.

    Raises:
        UserError: the disk is full, or takes no files.
    """
    write_object(folder / "meta.json", entries)


def format_of(meta: Mapping[str, Any]) -> Any:
    """The number in a meta.json; folders of the first format have none."""
    return meta.get("format", 1)


def is_finished(meta: Mapping[str, Any]) -> bool:
    """Whether a census was written to its end: its meta.json is complete at the very last."""
    return "title" in meta


def _has_checksums(meta: Mapping[str, Any]) -> bool:
    number = format_of(meta)
    return number in READABLE and bool(number >= WITH_CHECKSUMS)


def is_live(folder: Path) -> bool:
    """Whether a run took this census of itself: no command takes it again."""
    return folder.resolve().parent.name == "live"


def without(folder: Path) -> str:
    """What is left to do where nothing makes a live census whole again."""
    return f"remove {folder}; the run's other censuses stand without it"


def _anew(folder: Path) -> str:
    again = "the analyze/run.py command that made this census writes it anew and keeps its counts"
    return without(folder) if is_live(folder) else again


def _listed(numbers: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
