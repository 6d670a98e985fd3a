"""meta.json of a census folder, and the number that says how such a folder is laid out."""

from pathlib import Path
from typing import Any

from errors import UserError
from models.objects import read_object

FORMAT = 2  # of folders that this version writes; 1, which had no number, hashed checkpoints in another way
READABLE = (1, 2)  # of which tables, counts and figures are read


def read_meta(folder: Path) -> dict[str, Any]:
    """A census folder's meta.json.

    Raises:
        UserError: it is damaged, or of a format that this version does not read.
    """
    meta = read_object(folder / "meta.json")
    if format_of(meta) not in READABLE:
        raise UserError(
            f"{folder} is a census of format {str(format_of(meta))[:20]}; this version reads {' and '.join(map(str, READABLE))}. "
            "Take it anew with this version: the command that made it, with another out=."
        )
    return meta


def format_of(meta: dict[str, Any]) -> Any:
    """The number in a meta.json; folders of the first format have none."""
    return meta.get("format", 1)
