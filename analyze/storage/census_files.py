"""Tables and tokenizer of a census folder, compared with the checksums in its meta.json before anything is read from them."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl
from tokenizers import Tokenizer

from analyze.storage.formats import is_finished, is_live
from analyze.storage.layer_files import layer_files
from checksums import Damaged, file_checksum
from errors import UserError

TABLES = ("neurons", "ngrams", "layers", "position_domains")
TOKENIZER = "tokenizer.json"
NEEDED = ("neurons.parquet", "layers.parquet")  # of a census that can be opened


def contents(folder: Path) -> dict[str, Any]:
    """What meta.json says of the files beside it: checksums of tables and tokenizer, names of those that carry their own."""
    files = [folder / name for name in (*(f"{name}.parquet" for name in TABLES), TOKENIZER)]
    checksums = {file.name: file_checksum(file) for file in files if file.is_file()}
    return {"files": checksums, "counted": [str(file.relative_to(folder)) for file in layer_files(folder)]}


def check_finished(folder: Path, meta: Mapping[str, Any]) -> None:
    """`UserError` where a census was not written to its end, or a table of it is gone."""
    if not is_finished(meta):
        raise UserError(f"{folder} is no finished census; the analyze/run.py command that began it goes on.")
    for name in NEEDED:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: {_anew(folder, name)}.")


def checked(folder: Path, meta: Mapping[str, Any], name: str) -> Path:
    """A file of the folder, which is as it was when meta.json was written. Older formats know no checksums.

    Raises:
        UserError: it is missing; `Damaged`: it is another.
    """
    file = folder / name
    known = meta.get("files", {}).get(name)
    try:
        if known is None or file_checksum(file) == known:
            return file
    except FileNotFoundError:
        raise UserError(f"{file} is missing: {_anew(folder, name)}.") from None
    except OSError as broken:
        raise UserError(f"{file} cannot be read ({broken.strerror or broken}).") from None
    raise Damaged(f"{file} is damaged, or was changed since it was written: {_anew(folder, name)}.")


def read_table(folder: Path, meta: Mapping[str, Any], name: str) -> pl.DataFrame:
    """A table of the folder.

    Raises:
        UserError: see `checked`; or it is no table.
    """
    file = checked(folder, meta, f"{name}.parquet")
    try:
        return pl.read_parquet(file, glob=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):  # of an older format
        raise Damaged(f"{file} is damaged: {_anew(folder, file.name)}.") from None


def read_tokenizer(folder: Path, meta: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of the folder; None where the census has none.

    Raises:
        UserError: see `checked`; or it is none.
    """
    if not meta.get("tokenizer"):
        return None
    file = checked(folder, meta, TOKENIZER)
    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception:  # tokenizers raises nothing narrower: gone, or of an older format
        raise Damaged(f"{file} is damaged: {_anew(folder, TOKENIZER)}.") from None


def _anew(folder: Path, name: str) -> str:
    if name != TOKENIZER:
        return f"python analyze/draw.py out={quote(str(folder))} makes it anew"
    if is_live(folder):
        return f"copy it from {folder.resolve().parents[1] / TOKENIZER}"
    return "the analyze/run.py command that made this census copies it again"
