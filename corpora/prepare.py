"""documents -> token store: find the store of a corpus, or make it."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.documents import documents
from corpora.identity import source_identity
from corpora.progress import Progress
from corpora.store import FORMAT, SPLITS, TokenStore, file_hash, fingerprint
from corpora.tokenizer import bos_id, id_count, open_tokenizer, tokenizer_hash, train_bpe
from corpora.writing import SHARD_TOKENS, SplitWriter, write_manifest, write_text
from errors import UserError

BPE_BYTES = 100_000_000  # of text that a BPE is trained on: the beginning of the corpus, which holds its domains in equal parts
BATCH_DOCUMENTS, BATCH_CHARACTERS = 1000, 4_000_000  # tokenised at a time
MOST_DOMAINS = 256  # that a uint8 can tell apart


def token_store(config: CorpusConfig, tokenizer: str | None = None, shard_tokens: int = SHARD_TOKENS) -> TokenStore:
    """The corpus as tokens of `tokenizer` (default: the config's own): found in `config.store`, or made there.

    A store fits if it was made from the same source with the same settings, and with a tokenizer of the same hash, or
    by the same recipe where a BPE is trained here. A second process that wants the same store waits for the first.
    """
    source = source_identity(config)
    if not _made_from(source, Path(config.store)):
        documents(config)  # what cannot be read is said before a tokenizer is looked for
    where = tokenizer or config.tokenizer
    opened = open_tokenizer(where) if where else None
    wanted = {"sha256": tokenizer_hash(opened)} if opened else {"trained": {"vocab_size": config.vocab_size, "bytes": BPE_BYTES}}
    short = hashlib.sha256(json.dumps([source, wanted], sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(config.store) / f"{config.name}-{short}"
    if found := _fitting(folder, source, wanted):
        return found
    with _alone(folder):
        if found := _fitting(folder, source, wanted):
            return found
        with _whole(folder) as partial:
            _make(partial, config, opened, {"source": source, "tokenizer": wanted}, shard_tokens)
    return TokenStore.open(folder)


def _fitting(folder: Path, source: dict[str, Any], wanted: dict[str, Any]) -> TokenStore | None:
    """The store of this folder, or one beside it made from the same source with the same tokenizer."""
    if folder.exists():
        return TokenStore.open(folder)
    fitting = (store for store in _made_from(source, folder.parent) if wanted.items() <= store.manifest["tokenizer"].items())
    return next(fitting, None)


def _made_from(source: dict[str, Any], among: Path) -> list[TokenStore]:
    """The stores of a folder that were made from this source, whatever their tokenizer."""
    found: list[Path] = []
    for file in sorted(among.glob("*/manifest.json")):
        with suppress(ValueError):  # somebody else's broken manifest is not in our way
            if json.loads(file.read_text()).get("source") == source:
                found.append(file.parent)
    return [TokenStore.open(folder) for folder in found]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock on a store's name, so that ranks and programs started together prepare it once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write in that gets its final name when, and only if, everything went well."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a preparation that was killed
    partial.mkdir()
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make(folder: Path, config: CorpusConfig, tokenizer: Tokenizer | None, made_from: dict[str, Any], shard_tokens: int) -> None:
    """Write all files of a store into an empty folder."""
    with Progress(config.name) as progress:
        texts = documents(config)
        if tokenizer is None:
            tokenizer, texts = _trained_here(config, texts, progress)
        write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
        content = _write_splits(folder, config, tokenizer, texts, shard_tokens, progress)
        content["tokenizer"] = made_from["tokenizer"] | {
            "sha256": tokenizer_hash(tokenizer),
            "file_sha256": file_hash(folder / "tokenizer.json"),
            "bytes": (folder / "tokenizer.json").stat().st_size,
        }
        write_manifest(folder, content | {"source": made_from["source"], "fingerprint": fingerprint(content)})
        progress.close(sum(split["tokens"] for split in content["splits"].values()))


def _trained_here(config: CorpusConfig, texts: Iterator[Document], progress: Progress) -> tuple[Tokenizer, Iterator[Document]]:
    """A BPE trained on the training documents among the first BPE_BYTES, and all documents again."""
    beginning: list[Document] = []
    n_bytes = 0
    for document in texts:
        beginning.append(document)
        n_bytes += len(document.text.encode())
        if n_bytes >= BPE_BYTES:
            break
    progress.say(f"training a BPE of {config.vocab_size:,} ids on {n_bytes / 1e6:,.1f} MB")
    learned_from = (document.text for document in beginning if split_of(document, config.validation_share) == "train")
    return train_bpe(learned_from, config.vocab_size), chain(beginning, texts)


def split_of(document: Document, validation_share: float) -> str:
    """`train` or `validation`, by the hash of the text alone: no order, other document or seed changes it."""
    return "validation" if int.from_bytes(document.digest[:8], "big") < validation_share * 2**64 else "train"


def _write_splits(
    folder: Path, config: CorpusConfig, tokenizer: Tokenizer, texts: Iterator[Document], shard_tokens: int, progress: Progress
) -> dict[str, Any]:
    """Tokenise every document into its split; the part of the manifest that says what is there."""
    vocab_size, closing = id_count(tokenizer), bos_id(tokenizer)
    dtype = "uint16" if vocab_size <= 65_536 else "uint32"
    numbers: dict[str, int] = {}  # of the domains, in the order they turn up
    with ExitStack() as files:
        writers = {name: files.enter_context(SplitWriter(folder / name, dtype, shard_tokens)) for name in SPLITS}
        for batch in _batches(texts):
            encodings = tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
            for document, encoding in zip(batch, encodings, strict=True):
                domain = numbers.setdefault(document.domain, len(numbers))
                if domain >= MOST_DOMAINS:
                    raise UserError(f"corpus={config.name} has more than {MOST_DOMAINS} domains: merge some with corpus.domains.")
                writers[split_of(document, config.validation_share)].add(np.array([*encoding.ids, closing], dtype=dtype), domain)
            progress.add(batch)
        _expect_text(config, progress, writers)
        splits = {name: writer.close() | {"of_domain": writer.count(list(numbers))} for name, writer in writers.items()}
    return {
        "format": FORMAT,
        "vocab_size": vocab_size,
        "bos_id": closing,
        "dtype": dtype,
        "domain_names": list(numbers),
        "splits": splits,
    }


def _batches(texts: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in texts:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _expect_text(config: CorpusConfig, progress: Progress, writers: dict[str, SplitWriter]) -> None:
    if progress.documents == 0:
        raise UserError(
            f"corpus={config.name} has no text at all: every document of {config.path or config.domains or config.source} is empty."
        )
    for name, writer in writers.items():
        if not writer.domains:
            raise UserError(
                f"corpus.validation_share={config.validation_share} of {progress.documents} documents leaves the {name} split empty: "
                "give more documents (a .txt file is one, a line of .jsonl is one), or another share."
            )
