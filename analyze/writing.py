"""Files written whole: a reader finds the old one, the new one or none, never half of one."""

import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import polars as pl

from errors import UserError


def write_whole(file: Path, content: bytes | str) -> None:
    """Write a file under a temporary name, flush it to disk and rename it.

    Raises:
        UserError: the disk is full, or takes no files; nothing is left under the temporary name.
    """
    unfinished = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            stream.write(content if isinstance(content, bytes) else content.encode())
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError as full:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(
            f"{file} could not be written ({full.strerror}); make room or choose another place, and the same command goes on."
        ) from None


def write_table(file: Path, table: pl.DataFrame) -> None:
    """Write a parquet file in the same way. It is made in memory: polars tells a full disk as anything but that."""
    made = BytesIO()
    table.write_parquet(made)
    write_whole(file, made.getvalue())
