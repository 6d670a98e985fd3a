"""text -> documents: OpenWebText, from the hub or from local copies of its files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from corpora.config import CorpusConfig
from corpora.document import Document, in_turn
from corpora.files import file_documents, found, told
from corpora.hub_files import Listing, fetched, listing
from corpora.rows import Texts
from corpora.store_writer import DISK_FULL
from errors import UserError

REPOSITORY, REVISION = "Skylion007/openwebtext", "refs/convert/parquet"  # its loading script no longer runs anywhere


def openwebtext(config: CorpusConfig, start: int = 0) -> Iterator[Document]:
    """The documents from the `start`-th on, of local files where `config.path` names them, else of the hub's."""
    if config.bytes_per_domain is not None:
        every = openwebtext(replace(config, bytes_per_domain=None))
        return islice(in_turn({config.name: every}, config.bytes_per_domain), start, None)
    if config.path:
        texts = Texts(config.text, config.strict)
        return told(file_documents(config.name, found(config.path), texts, start), texts, config.name)
    return _from_hub(config, hub_listing(config), start)


def hub_listing(config: CorpusConfig) -> Listing:
    """The hub's files."""
    with _said():
        return listing(REPOSITORY, REVISION, fetched_folder(config))


def fetched_folder(config: CorpusConfig) -> Path:
    """Where the hub's files are for as long as they are read."""
    return Path(config.store) / f".{config.name}.fetched"


def _from_hub(config: CorpusConfig, listed: Listing, start: int) -> Iterator[Document]:
    """Files before the one with the `start`-th document are not fetched."""
    first = 0
    while first < len(listed.files) and listed.files[first].documents <= start:
        start -= listed.files[first].documents
        first += 1
    with _said():
        for copy in fetched(listed, fetched_folder(config), first):
            yield from file_documents(config.name, [copy], Texts(), start)
            start = 0


@contextmanager
def _said() -> Iterator[None]:
    """Whatever fails on the way from the hub ends in a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as mistake:  # the hub's client has a class for every way a download can fail, from two libraries
        if isinstance(mistake, OSError) and mistake.errno in DISK_FULL:
            raise
        why = mistake if isinstance(mistake, ConnectionError) else f"{type(mistake).__name__} from the hub"
        raise UserError(
            f"OpenWebText is not on this machine and cannot be fetched: {why}. Run `python scripts/prepare_corpus.py corpus=openwebtext` "
            "where there is a network (or here, with corpus.path=FOLDER of its parquet files), "
            "or train on this machine's own text: `python train/run.py experiment=demo model=nopos`."
        ) from mistake
