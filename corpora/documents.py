"""text -> documents: every source of text by its name."""

from collections.abc import Callable, Iterator
from itertools import islice

from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.files import files
from corpora.hub import hub
from corpora.local import local
from corpora.openwebtext import openwebtext
from corpora.pile import pile
from errors import UserError

__all__ = ["READERS", "Document", "documents"]


def _no_documents(config: CorpusConfig) -> Iterator[Document]:
    raise UserError(
        f"corpus={config.name} holds token ids for analyze/run.py, not text. To prepare or train on text take another corpus."
    )


READERS: dict[str, Callable[[CorpusConfig], Iterator[Document]]] = {
    "local": local,
    "files": files,
    "openwebtext": openwebtext,
    "pile": pile,
    "hub": hub,
    "tokens": _no_documents,
}


def documents(config: CorpusConfig, start: int = 0) -> Iterator[Document]:
    """The documents of a corpus from the `start`-th on, in an order that depends on nothing but the corpus.

    With `config.distinct`, of equal texts the first and of blank ones none. To know them takes 16 bytes a document (with
    Python's own, some 100), and to go on at `start` all that comes before is read again.

    A source that cannot be had is a `UserError` at once, before the first document is asked for.
    """
    if config.source == "openwebtext" and not config.distinct:
        return openwebtext(config, start)
    every = READERS[config.source](config)
    return islice(_distinct(every) if config.distinct else every, start, None)


def _distinct(found: Iterator[Document]) -> Iterator[Document]:
    seen: set[bytes] = set()
    for document in found:
        if document.text.strip() and (digest := document.digest[:16]) not in seen:
            seen.add(digest)
            yield document
