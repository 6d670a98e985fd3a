"""text -> documents: any data set of the hub, streamed, or a folder of one, through `datasets`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpora.config import CorpusConfig
from corpora.document import Document, in_turn
from corpora.files import told
from corpora.rows import Texts
from corpora.store_writer import DISK_FULL
from errors import UserError
from hub_access import reachable
from paths import expanded

SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk leaves in a folder


def hub(config: CorpusConfig) -> Iterator[Document]:
    """The texts of `config.path`: NAME or NAME@REVISION on the hub, or a folder of `save_to_disk` or of its files.

    Raises:
        UserError: it cannot be had, or has no such subset, part or column.
    """
    with _said(config):
        rows = _rows(config)
        columns = rows.features
        if columns is not None and config.text not in columns:
            raise UserError(
                f"{config.path} has no column {config.text!r}, only {', '.join(columns)}: name one with corpus.text=COLUMN."
            )
        if columns is not None and "string" not in str(getattr(columns[config.text], "dtype", "")):
            raise UserError(
                f"the column {config.text!r} of {config.path} holds {columns[config.text]}, not text: take another of them."
            )
        chosen = rows.select_columns([config.text])
    texts = Texts(config.text, config.strict)
    return told(in_turn({config.name: _documents(config, chosen, texts)}, config.bytes_per_domain), texts, config.name)


def _documents(config: CorpusConfig, rows: Iterable[object], texts: Texts) -> Iterator[Document]:
    with _said(config):
        for number, text, _ in texts.chosen(enumerate(rows, 1), f"{config.path} row"):
            yield Document(config.name, f"{config.path}:{number}", text)


def _rows(config: CorpusConfig) -> Any:
    import datasets  # here: a second, that the other sources need not wait

    folder = local_folder(config)
    if folder and any((folder / name).is_file() for name in SAVED):
        saved = datasets.load_from_disk(str(folder))
        if not isinstance(saved, datasets.DatasetDict):
            return saved
        if config.part not in saved:
            raise UserError(f"corpus.part={config.part} is none of the parts of {folder}: {', '.join(map(str, saved))}.")
        return saved[config.part]
    name, _, revision = (config.path or "").partition("@")
    where = {"path": str(folder)} if folder else {"path": name, "revision": commit(config) if reachable() else revision or None}
    return datasets.load_dataset(**where, name=config.subset, split=config.part, streaming=True)


def local_folder(config: CorpusConfig) -> Path | None:
    """The folder that `config.path` names; None for a name on the hub."""
    folder = Path(expanded(config.path or ""))
    return folder if folder.is_dir() else None


def commit(config: CorpusConfig) -> str:
    """The hub's commit of NAME or NAME@REVISION now. `UserError` where it cannot be asked."""
    from huggingface_hub import HfApi

    with _said(config):
        if not reachable():
            raise ConnectionError("the hub cannot be reached")
        name, _, revision = (config.path or "").partition("@")
        return str(HfApi().dataset_info(name, revision=revision or None).sha)


@contextmanager
def _said(config: CorpusConfig) -> Iterator[None]:
    """Whatever fails on the way ends in a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as mistake:  # `datasets`, its readers and the hub's client have a class each for whatever can fail
        if isinstance(mistake, OSError) and mistake.errno in DISK_FULL:
            raise
        raise UserError(f"{config.path} cannot be read: {_why(mistake)}") from mistake


def _why(mistake: Exception) -> str:
    words = " ".join(str(mistake).split())[:300].rstrip(".")
    ways = {
        "scripts are no longer supported": "Take its parquet files, for most data sets corpus.path=NAME@refs/convert/parquet",
        "BuilderConfig": "Name one with corpus.subset=NAME",
        "Config name is missing": "Name one with corpus.subset=NAME",
        "Bad split": "Name one with corpus.part=NAME",
    }
    way = next((way for sign, way in ways.items() if sign in words), None)
    if way is None and isinstance(mistake, OSError):
        way = "Run this where there is a network, or give corpus.path=FOLDER of its files or of save_to_disk"
    return f"{words or type(mistake).__name__}. {way or 'Give the name of a data set on the hub, or a folder of one'}."
