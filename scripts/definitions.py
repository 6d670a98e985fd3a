"""Write the tables of columns in docs/definitions.md anew from the columns themselves: python scripts/definitions.py"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
sys.path[0] = str(HERE)

from analyze.counts.column import markdown
from analyze.tables.neurons import COLUMNS, RECORDED, TYPE, WEIGHT_COLUMNS
from errors import plainly
from files import write_whole

TABLE = re.compile(r"\| column \| unit \| meaning \|\n(?:\|.*\n)+")
TABLES = ((*COLUMNS, *RECORDED, TYPE), WEIGHT_COLUMNS)  # as they follow one another in the file


def definitions(text: str) -> str:
    """docs/definitions.md with its tables as the columns are now."""
    tables = iter(TABLES)
    return TABLE.sub(lambda _: markdown(next(tables)), text)


def main() -> None:
    """Write the file."""
    file = HERE / "docs/definitions.md"
    write_whole(file, definitions(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    with plainly():
        main()
