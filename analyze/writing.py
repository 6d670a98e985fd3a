"""Files written whole: a reader finds the old one, the new one or none, never half of one."""

import os
from pathlib import Path

import polars as pl


def write_whole(file: Path, content: bytes | str) -> None:
    """Write a file under a temporary name, flush it to disk and rename it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.partial")
    with unfinished.open("wb") as stream:
        stream.write(content if isinstance(content, bytes) else content.encode())
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)


def write_table(file: Path, table: pl.DataFrame) -> None:
    """Write a parquet file in the same way."""
    unfinished = file.with_name(f".{file.name}.partial")
    table.write_parquet(unfinished)
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(file)
