"""text -> documents: files of text, by path, folder or glob: .txt, .jsonl, .jsonl.zst and .parquet."""

import glob
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import polars as pl
import zstandard

from corpora.config import CorpusConfig
from corpora.document import Document, in_turn
from errors import UserError

ROWS = 4096  # of a parquet file in memory at a time


def files(config: CorpusConfig) -> Iterator[Document]:
    """The texts of every domain's files in turn; with `path` alone the corpus is the one domain."""
    domains = {domain: file_documents(domain, found(where)) for domain, where in places(config).items()}
    return in_turn(domains, config.bytes_per_domain)


def places(config: CorpusConfig) -> dict[str, str]:
    """Every domain of a corpus of files, and its file, folder or glob."""
    return dict(config.domains) if config.domains else {config.name: config.path} if config.path else {}


def found(where: str) -> list[Path]:
    """The files of a path, a folder (with all below it) or a glob, sorted; `UserError` for none, or for one of another kind."""
    path = Path(where).expanduser()
    if path.is_dir():
        matches = [file for file in path.rglob("*") if file.is_file() and _reader(file)]
    else:
        matches = [file for name in glob.glob(str(path), recursive=True) if (file := Path(name)).is_file()]  # noqa: PTH207
    if not matches:
        raise UserError(f"{where} matches no file. Give a file, a folder or a quoted glob of {', '.join(READERS)} files.")
    if others := [file for file in matches if not _reader(file)]:
        raise UserError(f"{others[0]} is not a file of text that can be read here: allowed are {', '.join(READERS)}.")
    return sorted(matches)


def file_documents(domain: str, paths: list[Path], start: int = 0) -> Iterator[Document]:
    """The texts of the files from the `start`-th on, in order. Whole files before it are only counted."""
    for path in paths:
        if start and (n := document_count(path)) <= start:
            start -= n
            continue
        for row in islice(rows([path]), start, None):
            yield Document(domain, row[0], row[1])
        start = 0


def document_count(path: Path) -> int:
    """How many texts a file has, without reading them."""
    if path.name.endswith(".parquet"):
        with _whole_parquet(path):
            return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    if path.name.endswith(".txt"):
        return 1
    with _plain(path) as lines:
        return sum(1 for line in lines if line.strip())


def rows(paths: list[Path]) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Every text of the files with its name (file, and line or row from 1) and what its line says beside it.

    Lone surrogates, which JSON can write and UTF-8 cannot, become `?`.
    """
    for path in paths:
        reader = _reader(path)
        assert reader is not None
        for number, text, beside in reader(path):
            clean = text if text.isascii() else text.encode("utf-8", "replace").decode()
            yield f"{path}:{number}", clean, beside


Row = tuple[int, str, dict[str, object]]


def _txt(path: Path) -> Iterator[Row]:
    try:
        yield 1, path.read_text(encoding="utf-8"), {}
    except UnicodeDecodeError as mistake:
        raise UserError(f"{path} is not UTF-8 text (byte {mistake.start}): convert it, or leave it out.") from mistake


def _jsonl(path: Path) -> Iterator[Row]:
    with _plain(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _json_row(path, number, line)


def _json_row(path: Path, number: int, line: bytes) -> Row:
    try:
        beside = json.loads(line)
    except ValueError as mistake:
        raise UserError(f'{path} line {number} is not JSON: expected {{"text": "..."}} on every line.') from mistake
    if not isinstance(beside, dict) or not isinstance(beside.get("text"), str):
        raise UserError(f'{path} line {number} has no field "text" with a string: expected {{"text": "..."}} on every line.')
    return number, beside.pop("text"), beside


@contextmanager
def _plain(path: Path) -> Iterator[Iterable[bytes]]:
    """The lines of a .jsonl or .jsonl.zst."""
    with path.open("rb") as file:
        if not path.name.endswith(".zst"):
            yield file
            return
        with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as plain:
            try:
                yield io.BufferedReader(plain)
            except zstandard.ZstdError as mistake:
                raise UserError(f"{path} is no whole zstandard file ({mistake}): fetch it again.") from mistake


def _parquet(path: Path) -> Iterator[Row]:
    with _whole_parquet(path):
        table = pl.scan_parquet(path)
        columns = table.collect_schema()
        if columns.get("text") != pl.String:
            raise UserError(f'{path} has no column "text" of strings, only {", ".join(columns)}: rename the one with the text.')
        for start in range(0, document_count(path), ROWS):
            for row, text in enumerate(table.select("text").slice(start, ROWS).collect()["text"], start + 1):
                yield row, text or "", {}


@contextmanager
def _whole_parquet(path: Path) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.ComputeError as mistake:
        raise UserError(f"{path} is no whole parquet file: fetch it again.") from mistake


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".jsonl.zst": _jsonl,
    ".parquet": _parquet,
}


def _reader(path: Path) -> Callable[[Path], Iterator[Row]] | None:
    return next((read for ending, read in READERS.items() if path.name.endswith(ending)), None)
