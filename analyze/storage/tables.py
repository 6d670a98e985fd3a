"""Tables written whole."""

from io import BytesIO
from pathlib import Path

import polars as pl

from files import write_whole


def write_table(file: Path, table: pl.DataFrame) -> None:
    """Write a parquet file whole. It is made in memory: polars tells a full disk as anything but that.

    Raises:
        UserError: the disk is full, or takes no files.
    """
    made = BytesIO()
    table.write_parquet(made)
    write_whole(file, made.getvalue())
