"""Histories of neurons -> the tables of a run over its steps: how many of every type, whence they came, when they became it."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from analyze.storage.tables import write_table
from analyze.tables.census import Census
from analyze.tables.history import history
from analyze.tables.onsets import births
from analyze.tables.transitions import detectors_kept, positional_transitions, transitions


def evolution(told: pl.DataFrame) -> pl.DataFrame:
    """Neurons by step, layer and type: columns step, tokens (trained on so far), layer, type, neurons."""
    kinds = ["step", "tokens", "layer", "type"]
    return told.group_by(kinds).agg(pl.len().alias("neurons")).sort(kinds)


def write_evolution(censuses: Sequence[Census], out: Path) -> pl.DataFrame:
    """Write what is counted from the censuses of one run, as parquet files; returns its history."""
    told = history(censuses)
    tables = {
        "evolution": evolution(told),
        "transitions": transitions(told),
        "positional_transitions": positional_transitions(told),
        "detectors_kept": detectors_kept(told),
        "births": births(told),
    }
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)
    return told
