"""file -> rows: every text of a file with its number, and what its line says beside it."""

import codecs
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from corpora.compression import COMPRESSIONS, opened, opened_text
from corpora.document import utf8
from corpora.json_list import elements
from corpora.notices import announce
from errors import UserError

ROWS = 4096  # of a parquet file in memory at a time
DECODED = 1 << 16  # bytes of a text at a time, so few that most have no wide letter
PATIENCE = 1000  # rows without a text after which the texts of a file are taken to have another name
Row = tuple[int, str, dict[str, object]]  # number from 1, text, what its line says beside it


@dataclass
class Texts:
    """Which key or column of a corpus holds the text; counts the rows that have none there."""

    column: str = "text"
    strict: bool = False  # refuse a row without a text, instead of leaving it out
    skipped: int = 0
    first_skipped: str = ""

    def rows(self, path: Path) -> Iterator[Row]:
        """Every text of a file."""
        kind = kind_of(path)
        assert kind is not None
        return self.chosen(READERS[kind](path, self.column), f"{path} {NUMBERED[kind]}")

    def chosen(self, rows: Iterable[tuple[int, object]], where: str) -> Iterator[Row]:
        """The texts of numbered rows. Lone surrogates, which JSON can write and UTF-8 cannot, become `?`."""
        given, without = False, list[str]()
        for number, value in rows:
            beside = dict(value) if isinstance(value, dict) else {}
            text = beside.pop(self.column, None) if isinstance(value, dict) else value
            if isinstance(text, str):
                given = True
                yield number, _without_surrogates(text), beside
                continue
            place = f"{where} {number}"
            if self.strict or not given:
                without.append(f"{place} has {self._instead(value)}")
            if self.strict or len(without) == PATIENCE:
                raise UserError(without[0])
            self.skipped += 1
            self.first_skipped = self.first_skipped or place
        if without and not given:
            raise UserError(without[0])

    def _instead(self, value: object) -> str:
        """What a row has instead of a text, and what to do."""
        skip = " To leave out such rows: corpus.strict=false." if self.strict else ""
        if not isinstance(value, dict) or self.column in value:
            found = value[self.column] if isinstance(value, dict) else value
            return f'no text in its field "{self.column}" but {_words(found)}.{skip}'
        there = ", ".join(map(str, value)) or "none"
        return f'no field "{self.column}", only {there}: name the one with the text, corpus.text=FIELD.{skip}'

    def say_skipped(self, corpus: str) -> None:
        """One line on what was left out, if anything was."""
        if self.skipped:
            rows, which = ("rows", "the first one") if self.skipped > 1 else ("row", "namely")
            announce(
                f"corpus {corpus}: {self.skipped:,} {rows} without a text in {self.column!r} left out, {which} {self.first_skipped}; "
                "corpus.strict=true refuses them"
            )


def _words(value: object) -> str:
    kinds = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def _without_surrogates(text: str) -> str:
    try:
        for _ in utf8(text) if not text.isascii() else ():
            pass
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _txt(path: Path, column: str) -> Iterator[tuple[int, object]]:
    with opened_text(path) as file:
        yield 1, _decoded(file.read(), f"{path} is")


def _jsonl(path: Path, column: str) -> Iterator[tuple[int, object]]:
    with opened_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parsed(path, number, line)


def _parsed(path: Path, number: int, line: bytes) -> object:
    text = _decoded(line, f"{path} line {number} is")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as mistake:
        raise UserError(f'{path} line {number} is not JSON: expected {{"text": "..."}} on every line.') from mistake


def _decoded(raw: bytes, what: str) -> str:
    """UTF-8 as text, some bytes after others: decoded at once, a long text is held twice whenever a wider letter turns up in it."""
    decoder, parts = codecs.getincrementaldecoder("utf-8")(), list[str]()
    for begin in range(0, len(raw), DECODED):
        part, before = raw[begin : begin + DECODED], begin - len(decoder.getstate()[0])
        try:
            parts.append(decoder.decode(part, final=begin + DECODED >= len(raw)))
        except UnicodeDecodeError as mistake:
            raise UserError(f"{what} not UTF-8 text (byte {before + mistake.start}): convert it, or leave it out.") from mistake
    return "".join(parts)


def _json(path: Path, column: str) -> Iterator[tuple[int, object]]:
    """A list of objects or strings, one object, or JSON lines under another name."""
    with opened_text(path) as file:
        begins = file.peek(1 << 12).lstrip()[:1]
    yield from enumerate(elements(path), 1) if begins == b"[" else _object_or_lines(path, column)


def _object_or_lines(path: Path, column: str) -> Iterator[tuple[int, object]]:
    with opened_text(path) as lines:
        first = next((line for line in lines if line.strip()), b"")
        if first and not _is_json(first):
            yield 1, _parsed(path, 1, first + lines.read())
            return
    yield from _jsonl(path, column)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parquet(path: Path, column: str) -> Iterator[tuple[int, object]]:
    with whole_parquet(path) as table:
        texts = table.select(_text_column(path, table, column))
        for start in range(0, int(table.select(pl.len()).collect().item()), ROWS):
            yield from enumerate(texts.slice(start, ROWS).collect().to_series(), start + 1)


def _text_column(path: Path, table: pl.LazyFrame, column: str) -> pl.Expr:
    kinds = table.collect_schema()
    if column not in kinds:
        raise UserError(
            f'{path} has no column "{column}", only {", ".join(kinds)}: name the one with the text, corpus.text=COLUMN.'
        )
    if not isinstance(kinds[column], pl.String | pl.Categorical | pl.Enum | pl.Null):
        raise UserError(
            f'the column "{column}" of {path} holds {kinds[column]}, not text: name another with corpus.text=COLUMN, '
            f"of {', '.join(kinds)}."
        )
    return pl.col(column)


@contextmanager
def whole_parquet(path: Path) -> Iterator[pl.LazyFrame]:
    """The table of a parquet file, of a compressed one in a temporary file."""
    try:
        with opened(path) as file, tempfile.NamedTemporaryFile(suffix=".parquet") as plain:
            packed = path.suffix.lower() in COMPRESSIONS
            if packed:
                shutil.copyfileobj(file, plain)
                plain.flush()
            yield pl.scan_parquet(plain.name if packed else _nameable(path, file.fileno()), glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as mistake:
        raise UserError(f"{path} is no whole parquet file: fetch it again.") from mistake


def _nameable(path: Path, file: int) -> str:
    """The path, or where the locale is not UTF-8 and it cannot be said to polars, the open file's."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{file}"
    return str(path)


READERS: dict[str, Callable[[Path, str], Iterator[tuple[int, object]]]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
NUMBERED = {".txt": "text", ".jsonl": "line", ".ndjson": "line", ".json": "item", ".parquet": "row"}
KINDS = f"{', '.join(READERS)}, each also with {' or '.join(COMPRESSIONS)}"


def kind_of(path: Path) -> str | None:
    """The ending that decides how a file is read, whatever its compression; None for a file that is no text."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    if endings and endings[-1] in COMPRESSIONS:
        endings.pop()
    return endings[-1] if endings and endings[-1] in READERS else None
