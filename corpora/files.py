"""text -> documents: files of text, by path, folder or glob."""

import glob
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import polars as pl

from corpora.config import CorpusConfig
from corpora.document import Document, in_turn
from corpora.notices import announce
from corpora.rows import KINDS, Texts, kind_of, whole_parquet
from errors import UserError
from paths import expanded


def files(config: CorpusConfig) -> Iterator[Document]:
    """The texts of every domain's files in turn; with `path` alone the corpus is the one domain."""
    texts = Texts(config.text, config.strict)
    domains = {domain: file_documents(domain, found(where), texts) for domain, where in places(config).items()}
    return told(in_turn(domains, config.bytes_per_domain), texts, config.name)


def told(documents: Iterator[Document], texts: Texts, corpus: str) -> Iterator[Document]:
    """The documents, and at their end a line on the rows that had no text."""
    yield from documents
    texts.say_skipped(corpus)


def places(config: CorpusConfig) -> dict[str, str]:
    """Every domain of a corpus of files, and its file, folder or glob."""
    return dict(config.domains) if config.domains else {config.name: config.path} if config.path else {}


def found(where: str) -> list[Path]:
    """The files of text at a path, in a folder (with all below it, links followed) or of a glob, sorted, each once.

    A line names how many files of other kinds a folder or a glob has.

    Raises:
        UserError: there is none, the one named is of another kind, or a folder cannot be read.
    """
    path = Path(expanded(where))
    try:
        if path.is_file() and not kind_of(path):
            raise UserError(f"{path} is not a file of text that can be read here: allowed are {KINDS}.")
        return [path] if path.is_file() else _several(where, path)
    except OSError as mistake:
        raise _unreadable(mistake) from mistake


def _several(where: str, path: Path) -> list[Path]:
    at = [path] if path.is_dir() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    others: dict[str, str] = {}
    texts: dict[str, Path] = {}
    for file in sorted({file for place in at for file in _below(place)}):
        if (reason := _no_text(file)) is None:
            texts.setdefault(os.path.realpath(file), file)
        else:
            others[os.path.realpath(file)] = reason
    kinds = ", ".join(f"{n:,} {reason}" for reason, n in sorted(Counter(others.values()).items()))
    if not texts:
        several = " Several paths are a glob, or corpus.domains='{a: PATH, b: PATH}'." if "," in where else ""
        only = f", only {kinds}" if kinds else ""
        raise UserError(f"{where} matches no file of text{only}. Give a file, a folder or a quoted glob of {KINDS}.{several}")
    if kinds:
        announce(f"{where}: reading {len(texts):,} files of text; passed over {kinds}")
    return list(texts.values())


def _below(place: Path) -> Iterator[Path]:
    """A file, or all files below a folder; a folder that links lead to twice, or back to, is gone into once."""
    if not place.is_dir():
        yield place
        return
    seen = {os.path.realpath(place)}
    for folder, inner, names in os.walk(place, onerror=_raise, followlinks=True):
        below = {name: os.path.realpath(Path(folder, name)) for name in sorted(inner)}
        hidden = [name for name in below if name.startswith(".")]
        inner[:] = [name for name, real in below.items() if name not in hidden and real not in seen]
        seen |= {below[name] for name in inner}
        yield from (Path(folder, name) for name in (*names, *hidden))


def _unreadable(mistake: OSError) -> UserError:
    return UserError(f"{mistake.filename} cannot be read ({mistake.strerror}): mend it, or leave it out.")


def _raise(mistake: OSError) -> None:
    raise mistake


def _no_text(file: Path) -> str | None:
    """Why a file is passed over, if it is."""
    if file.name.startswith("."):
        return "hidden"
    if file.is_symlink() and not file.exists():
        return "broken links"
    if not file.is_file():
        return "no regular files"
    return None if kind_of(file) else "".join(file.suffixes[-1:]) or "without a suffix"


def file_documents(domain: str, paths: list[Path], texts: Texts, start: int = 0) -> Iterator[Document]:
    """The texts of the files from the `start`-th on, in order. Whole files before it are only counted."""
    for path in paths:
        if start and (n := document_count(path, texts)) <= start:
            start -= n
            continue
        for row in islice(named_rows([path], texts), start, None):
            yield Document(domain, row[0], row[1])
        start = 0


def document_count(path: Path, texts: Texts) -> int:
    """How many texts a file has; of parquet without reading them."""
    kind = kind_of(path)
    if kind == ".parquet":
        with whole_parquet(path) as table:
            if texts.column in table.collect_schema():
                return int(table.select(pl.col(texts.column).count()).collect().item())
    return 1 if kind == ".txt" else sum(1 for _ in Texts(texts.column, texts.strict).rows(path))


def named_rows(paths: list[Path], texts: Texts) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Every text of the files with its name (file, and line or row from 1) and what its line says beside it."""
    for path in paths:
        for number, text, beside in texts.rows(path):
            yield f"{path}:{number}", text, beside
