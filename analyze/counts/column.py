"""What a column of a table is, and the table of columns in docs/definitions.md."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True)
class Column(Generic[S]):
    """One column of a table, wherever it is named: in the parquet file, the docs, the page's panel of a neuron and its glossary."""

    name: str
    dtype: Any  # of polars, whose own types beartype cannot check
    meaning: str  # to the edge cases, as docs/definitions.md says it
    make: Callable[[S], Any]  # its values for the rows of one layer
    unit: str = ""
    label: str = ""  # its line in a neuron's panel on the page; "": it has none there
    hint: str = ""  # what the page says where one points at the label; `{asked}` are the thresholds


def markdown(columns: Sequence[Column[Any]]) -> str:
    """The table of these columns in docs/definitions.md."""
    rows = [f"| `{column.name}` | {column.unit} | {column.meaning} |" for column in columns]
    return "\n".join(["| column | unit | meaning |", "|---|---|---|", *rows]) + "\n"
