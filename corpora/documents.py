"""text -> documents: every source of text by its name, each text once."""

from collections.abc import Callable, Iterator

from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.files import files
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
    "tokens": _no_documents,
}


def documents(config: CorpusConfig) -> Iterator[Document]:
    """The documents of a corpus in an order that depends on nothing but the corpus; of equal texts the first, of blank ones none.

    A source that cannot be had is a `UserError` at once, before the first document is asked for. Remembers 32 bytes a
    document (with Python's own, about 1 GB for the 8 million of OpenWebText).
    """
    return _distinct(READERS[config.source](config))


def _distinct(found: Iterator[Document]) -> Iterator[Document]:
    seen: set[bytes] = set()
    for document in found:
        if document.text.strip() and (digest := document.digest) not in seen:
            seen.add(digest)
            yield document
