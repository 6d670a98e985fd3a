"""corpus -> token store: find the store of a corpus, or make it."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from corpora.build import BPE_BYTES, make
from corpora.command import prepare_command
from corpora.config import CorpusConfig
from corpora.documents import documents
from corpora.journal import Journal
from corpora.notices import announce
from corpora.openwebtext import fetched_folder
from corpora.source_identity import ADDED, source_identity, source_words
from corpora.store import SPLITS, TokenStore
from corpora.store_writer import DISK_FULL, SHARD_TOKENS
from corpora.tokenizer import open_tokenizer, tokenizer_hash
from errors import UserError
from files import flush, remove_unfinished
from locks import in_turn


def token_store(config: CorpusConfig, tokenizer: str | None = None, shard_tokens: int = SHARD_TOKENS) -> TokenStore:
    """The corpus as tokens of `tokenizer` (default: the config's own), some for training and some kept from it: see `any_store`."""
    store = any_store(config, tokenizer, shard_tokens)
    documents_of = {name: store.manifest["splits"][name]["documents"] for name in SPLITS}
    if empty := [name for name, n in documents_of.items() if not n]:
        raise UserError(
            f"corpus.validation_share={config.validation_share} of {sum(documents_of.values())} documents leaves the {empty[0]} split "
            "empty: give more documents (a .txt file is one, a line of .jsonl is one), or another share."
        )
    return store


def any_store(config: CorpusConfig, tokenizer: str | None = None, shard_tokens: int = SHARD_TOKENS) -> TokenStore:
    """The corpus as tokens, found in `config.store` or made there; a split of it may be empty.

    A store fits if it was made from the same source with the same settings, and with a tokenizer of the same hash, or
    by the same recipe where a BPE is trained here. Where source or tokenizer are no longer there, the one store that was asked for
    in the same words fits, and a line says so. A second process that wants the same store waits for the first. One
    that was stopped half-way, even by kill -9, is gone on with, to the same bytes.
    """
    where = tokenizer or config.tokenizer
    try:
        source = source_identity(config)
        if not _made_from(source, Path(config.store)):
            documents(config)  # what cannot be read is said before a tokenizer is looked for
        opened = open_tokenizer(where) if where else None
    except UserError as gone:
        if (found := _uncompared(config, where)) is None:
            raise
        announce(f"taking {found.folder}, made with the same settings, without a comparison: {gone}")
        return found
    wanted = _recipe(config, opened)
    short = hashlib.sha256(json.dumps([source, wanted], sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(config.store) / f"{config.name}-{short}"
    if found := _fitting(folder, source, wanted):
        return found
    made_from = {"source": source_words(config) | source, "tokenizer": wanted | ({"asked": where} if where else {})}
    with in_turn(folder, STORE), in_turn(fetched_folder(config), STORE) if config.from_hub else nullcontext():
        if found := _fitting(folder, source, wanted):
            return found
        with _whole(folder) as partial:
            make(partial, config, opened, made_from, shard_tokens)
    return TokenStore.open(folder)


def finished_store(config: CorpusConfig) -> TokenStore:
    """The store that `token_store` finds, for processes that work together: none waits while another makes one, or asks the hub
    for a tokenizer by whose name a store was made.

    Raises:
        UserError: there is none.
    """
    where = config.tokenizer
    try:
        made = _made_from(source_identity(config), Path(config.store))
        fitting = _with_tokenizer(made, {"asked": where}) if where and not Path(where).exists() else []
        if made and len(fitting) != 1:
            fitting = _with_tokenizer(made, _recipe(config, open_tokenizer(where) if where else None))
    except UserError:
        fitting = [found] if (found := _uncompared(config, where)) else []
    if not fitting:
        raise UserError(
            f"the corpus {config.name} is not prepared in {config.store}, and several processes do not wait while one prepares it. "
            f"Run this once before them: {prepare_command(config)}"
        )
    return fitting[0]


def _recipe(config: CorpusConfig, opened: Tokenizer | None) -> dict[str, Any]:
    """What decides the tokenizer: the hash of the one given, or how it is trained here."""
    if opened is None:
        return {"trained": {"vocab_size": config.vocab_size, "bytes": BPE_BYTES}}
    return {"sha256": tokenizer_hash(opened)}


def _fitting(folder: Path, source: dict[str, Any], wanted: dict[str, Any]) -> TokenStore | None:
    """The store of this folder, or one beside it made from the same source with the same tokenizer."""
    if folder.exists():
        return TokenStore.open(folder)
    return next(iter(_with_tokenizer(_made_from(source, folder.parent), wanted)), None)


def _uncompared(config: CorpusConfig, where: str | None) -> TokenStore | None:
    """The store that was asked for in the same words; of source and tokenizer, what is there is compared all the same."""
    source, wanted = source_words(config), {"asked": where} if where else _recipe(config, None)
    with suppress(UserError):
        source = source_identity(config)
    with suppress(UserError):
        wanted = _recipe(config, open_tokenizer(where)) if where else wanted
    fitting = _with_tokenizer(_made_from(source, Path(config.store)), wanted)
    return fitting[0] if len(fitting) == 1 else None


def _made_from(source: dict[str, Any], among: Path) -> list[TokenStore]:
    """The stores of a folder whose manifests say all this of their source, whatever their tokenizer."""
    found: list[Path] = []
    for file in sorted(among.glob("*/manifest.json")):
        with suppress(
            ValueError, AttributeError, TypeError, RecursionError, OSError
        ):  # somebody else's broken manifest is not in our way
            said = {} if file.parent.name.endswith(PARTIAL) else json.loads(file.read_text(encoding="utf-8")).get("source", {})
            if source.items() <= (ADDED | said).items():
                found.append(file.parent)
    return [TokenStore.open(folder) for folder in found]


def _with_tokenizer(stores: list[TokenStore], wanted: dict[str, Any]) -> list[TokenStore]:
    """Those whose manifests say all this of their tokenizer."""
    return [store for store in stores if wanted.items() <= store.manifest["tokenizer"].items()]


PARTIAL = ".partial"
STORE = "corpus.store=FOLDER"
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write in that gets its final name when, and only if, everything went well.

    It is kept for the next time when something went wrong after its first mark.
    """
    partial = folder.with_name(f"{folder.name}{PARTIAL}")
    partial.mkdir(exist_ok=True)
    remove_unfinished(partial)
    try:
        yield partial
        partial.rename(folder)
        flush(folder.parent)
    except OSError as mistake:
        if mistake.errno in NOT_OURS:
            raise UserError(
                f"{partial} cannot be written ({mistake.strerror}): remove it, or choose another corpus.store=FOLDER."
            ) from mistake
        if mistake.errno not in DISK_FULL:
            raise
        raise UserError(
            f"{mistake.strerror} in {folder.parent}{_kept(partial)}: make room there, or choose another disk with corpus.store=FOLDER."
        ) from mistake
    finally:
        if partial.exists() and not (partial / "manifest.json").exists() and Journal.read(partial) is None:
            shutil.rmtree(partial)


def _kept(partial: Path) -> str:
    done = Journal.read(partial)
    return f"; {done.documents:,} documents are kept in {partial} and the same command goes on after them" if done else ""
