"""documents -> token store: the files of a store, made in a folder that may hold the beginning of them already."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tokenizers import Tokenizer

from checksums import file_sha256
from corpora.config import CorpusConfig
from corpora.cost_estimate import SAMPLE_BYTES, estimate
from corpora.document import Document
from corpora.documents import documents
from corpora.journal import Journal
from corpora.openwebtext import fetched_folder, hub_listing
from corpora.progress import Progress
from corpora.splitting import Splitting, splitting
from corpora.store import FORMAT, SPLITS, fingerprint, whole_checksum
from corpora.store_writer import GROWING, SplitWriter, write_manifest, write_text
from corpora.tokenize_parallel import tokenised
from corpora.tokenizer import bos_id, id_count, open_tokenizer, tokenizer_hash, train_bpe
from errors import UserError

BPE_BYTES = 100_000_000  # of text that a BPE is trained on: the beginning of the corpus, which holds its domains in equal parts
BATCH_DOCUMENTS, BATCH_CHARACTERS = 1000, 1_000_000  # tokenised at a time
MOST_DOMAINS = 256  # that a uint8 can tell apart


def make(folder: Path, config: CorpusConfig, tokenizer: Tokenizer | None, made_from: dict[str, Any], shard_tokens: int) -> None:
    """Write all files of a store into a folder, or those that are missing there."""
    if not (folder / "manifest.json").exists():  # else only the last steps are missing
        with Progress(config.name) as progress:
            _fill(folder, config, tokenizer, made_from, shard_tokens, progress)
    _tidy(folder, config)


def _fill(
    folder: Path,
    config: CorpusConfig,
    tokenizer: Tokenizer | None,
    made_from: dict[str, Any],
    shard_tokens: int,
    progress: Progress,
) -> None:
    journal, kept = _journal(folder, shard_tokens), splitting(config)
    texts = documents(config, journal.documents)
    if journal.documents:
        progress.announce(f"goes on after the {journal.documents:,} documents that are done")
        tokenizer = open_tokenizer(str(folder / "tokenizer.json"))
        journal.expect_tokenizer(folder)
    elif tokenizer is None:
        tokenizer, texts = _trained_here(config, texts, kept, progress)
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    journal.tokenizer_sha256 = file_sha256(folder / "tokenizer.json")
    texts = _judged(folder, config, tokenizer, texts, journal, progress)
    content = _write_splits(folder, config, tokenizer, texts, kept, journal, progress)
    content["tokenizer"] = made_from["tokenizer"] | {
        "sha256": tokenizer_hash(tokenizer),
        "file_sha256": file_sha256(folder / "tokenizer.json"),
        "bytes": (folder / "tokenizer.json").stat().st_size,
    }
    beside = {"source": made_from["source"], "hub": _hub(config), "fingerprint": fingerprint(content)}
    manifest = content | beside
    write_manifest(folder, manifest | {"checksum": whole_checksum(manifest)})
    progress.close(journal.documents, journal.n_bytes, sum(split["tokens"] for split in content["splits"].values()))
    _say_who_is_not_held_out(content, config, progress)


def _journal(folder: Path, shard_tokens: int) -> Journal:
    """How far the folder's files are. Where nothing vouches for them they are removed."""
    journal = Journal.read(folder)
    if journal is None or journal.shard_tokens != shard_tokens:
        shutil.rmtree(folder)
        folder.mkdir()
        return Journal(shard_tokens)
    return journal


def _trained_here(
    config: CorpusConfig, texts: Iterator[Document], kept: Splitting, progress: Progress
) -> tuple[Tokenizer, Iterator[Document]]:
    """A BPE trained on the training documents among the first BPE_BYTES, and all documents again."""
    beginning = _beginning(texts, BPE_BYTES)
    progress.say(f"training a BPE of {config.vocab_size:,} ids")
    learned_from = (document.text for document, out in zip(beginning, kept(beginning, 0), strict=True) if not out)
    return train_bpe(learned_from, config.vocab_size), chain(beginning, texts)


def _beginning(texts: Iterator[Document], n_bytes: int) -> list[Document]:
    beginning: list[Document] = []
    while n_bytes > 0 and (document := next(texts, None)):
        beginning.append(document)
        n_bytes -= document.n_bytes
    return beginning


def _judged(
    folder: Path, config: CorpusConfig, tokenizer: Tokenizer, texts: Iterator[Document], journal: Journal, progress: Progress
) -> Iterator[Document]:
    """The documents again, after disk and time that they need were said; `UserError` where the disk has no room for them."""
    sample = _beginning(texts, SAMPLE_BYTES)
    needs = estimate(config, tokenizer, np.dtype(_dtype(tokenizer)).itemsize, sample)
    if needs:
        free = shutil.disk_usage(folder).free
        there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        progress.expect(needs, journal.n_bytes, folder.parent, free)
        if needs.disk_bytes > free + there:
            raise UserError(
                f"corpus={config.name} needs about {needs.disk_bytes / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free: "
                "make room there, choose another disk with corpus.store=FOLDER, or take less with corpus.bytes_per_domain=N."
            )
    return chain(sample, texts)


def _write_splits(
    folder: Path,
    config: CorpusConfig,
    tokenizer: Tokenizer,
    texts: Iterator[Document],
    kept: Splitting,
    journal: Journal,
    progress: Progress,
) -> dict[str, Any]:
    """Tokenise every document into its split; the part of the manifest that says what is there."""
    marked = journal.n_bytes
    with ExitStack() as files:
        writers = {
            name: files.enter_context(
                SplitWriter(folder / name, _dtype(tokenizer), journal.shard_tokens, journal.splits.get(name))
            )
            for name in SPLITS
        }
        batches = _batches(texts, min(BATCH_CHARACTERS, config.mark_bytes))
        done = files.enter_context(closing(tokenised(batches, folder / "tokenizer.json", config.workers)))
        for batch, tokens in done:
            held_out, domains = kept(batch, journal.documents), _numbers(batch, config, journal)
            for name, mine in (("train", ~held_out), ("validation", held_out)):
                if not mine.any():
                    continue
                ids = tokens.ids if mine.all() else tokens.ids[np.repeat(mine, tokens.lengths)]
                writers[name].add(ids, tokens.lengths[mine], domains[mine])
            journal.count(batch)
            progress.add(batch, len(tokens.ids))
            if journal.n_bytes - marked >= config.mark_bytes:
                journal.splits = {name: writer.mark() for name, writer in writers.items()}
                journal.write(folder)
                marked = journal.n_bytes
        _expect_text(config, journal)
        splits = {name: writer.close(journal.domain_names) for name, writer in writers.items()}
    return {
        "format": FORMAT,
        "vocab_size": id_count(tokenizer),
        "bos_id": bos_id(tokenizer),
        "dtype": _dtype(tokenizer),
        "domain_names": journal.domain_names,
        "splits": splits,
    }


def _dtype(tokenizer: Tokenizer) -> str:
    return "uint16" if id_count(tokenizer) <= 65_536 else "uint32"


def _numbers(batch: list[Document], config: CorpusConfig, journal: Journal) -> UInt8[np.ndarray, " document"]:
    """The domain of each document, numbered in the order they turn up."""
    for document in batch:
        if document.domain not in journal.domain_names:
            journal.domain_names.append(document.domain)
    if len(journal.domain_names) > MOST_DOMAINS:
        raise UserError(f"corpus={config.name} has more than {MOST_DOMAINS} domains: merge some with corpus.domains.")
    number = {name: i for i, name in enumerate(journal.domain_names)}
    return np.array([number[document.domain] for document in batch], dtype=np.uint8)


def _batches(texts: Iterator[Document], most_characters: int) -> Iterator[list[Document]]:
    """Documents to be tokenised together; a long one alone, so that its ids go to the disk as they are."""
    batch: list[Document] = []
    characters = 0
    for document in texts:
        if batch and len(document.text) >= most_characters:
            yield batch
            batch, characters = [], 0
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= most_characters:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _expect_text(config: CorpusConfig, journal: Journal) -> None:
    if journal.documents == 0:
        raise UserError(
            f"corpus={config.name} has no text at all: every document of {config.path or config.domains or config.source} is empty."
        )


def _say_who_is_not_held_out(content: dict[str, Any], config: CorpusConfig, progress: Progress) -> None:
    held_out = content["splits"]["validation"]["of_domain"]
    if none := [name for name in content["domain_names"] if not held_out[name]["documents"]]:
        progress.announce(
            f"no validation document fell to {', '.join(none)}: a census of the validation split says nothing of "
            f"{'them' if len(none) > 1 else 'it'}. Give more documents, or a corpus.validation_share above {config.validation_share}."
        )


def _hub(config: CorpusConfig) -> dict[str, Any] | None:
    """The commit and the checksums of what was fetched."""
    return asdict(hub_listing(config)) if config.from_hub else None


def _tidy(folder: Path, config: CorpusConfig) -> None:
    """Remove what a finished store has no use for."""
    for name in SPLITS:
        for growing in GROWING:
            (folder / name / growing).unlink(missing_ok=True)
    (folder / Journal.NAME).unlink(missing_ok=True)
    if config.from_hub:
        shutil.rmtree(fetched_folder(config), ignore_errors=True)
