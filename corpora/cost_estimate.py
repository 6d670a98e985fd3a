"""Before documents -> tokens: how much text there is, and the disk and time that its tokens will take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import polars as pl
from tokenizers import Tokenizer

from corpora.compression import COMPRESSIONS, content_bytes
from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.files import found, places
from corpora.long_texts import is_cuttable, pieces
from corpora.openwebtext import hub_listing
from corpora.rows import kind_of, whole_parquet
from corpora.tokenize_parallel import worker_count

SAMPLE_BYTES = 1_000_000  # of text from the beginning that all is judged by
FILES_AT_ONCE = 3  # of the hub's: one read before, one read, one being fetched


@dataclass(frozen=True)
class Estimate:
    """What a whole preparation takes, about."""

    text_bytes: int
    tokens: int
    disk_bytes: int  # of the store, and of the hub's files that lie beside it meanwhile
    tokens_per_second: float  # of one core
    workers: int

    @property
    def seconds(self) -> float:
        """With all workers."""
        return self.tokens / self.tokens_per_second / self.workers


def estimate(config: CorpusConfig, tokenizer: Tokenizer, width: int, sample: Sequence[Document]) -> Estimate | None:
    """From files' sizes and a trial on the corpus' first documents, `width` bytes an id; None where there is no file to judge by."""
    text_bytes, beside = _text_bytes(config, sample)
    if not text_bytes or not sample:
        return None
    trial, trial_bytes, rate = _trial(tokenizer, sample)
    tokens = round(text_bytes * trial / max(trial_bytes, 1))
    documents = text_bytes / fmean(document.n_bytes for document in sample)
    disk = round(tokens * width + documents * (9 + 9)) + beside  # offsets and domains twice, while the store is closed
    return Estimate(text_bytes, tokens, disk, rate, worker_count(config.workers))


def _trial(tokenizer: Tokenizer, sample: Sequence[Document]) -> tuple[int, int, float]:
    """Tokens, bytes and tokens per second of the beginning of the sample; its last text may be a long one."""
    start, cuttable, n_tokens, n_bytes = time.perf_counter(), is_cuttable(tokenizer), 0, 0
    for document in sample:
        for piece in pieces(document.text, cuttable):
            n_tokens += len(tokenizer.encode(piece, add_special_tokens=False).ids)
            n_bytes += len(piece.encode())
            if n_bytes >= SAMPLE_BYTES:
                break
        n_tokens += 1
    return n_tokens, n_bytes, n_tokens / (time.perf_counter() - start)


def _text_bytes(config: CorpusConfig, sample: Sequence[Document]) -> tuple[int, int]:
    """UTF-8 bytes of all text, and bytes of the hub's files that lie on this disk at a time."""
    if config.from_hub:
        listed = hub_listing(config)
        whole = round(listed.documents * fmean(document.n_bytes for document in sample)) if sample else 0
        return min(whole, config.bytes_per_domain or whole), FILES_AT_ONCE * max(file.n_bytes for file in listed.files)
    if config.source == "hub":
        return 0, 0
    total = 0
    for domain, where in places(config).items():
        sizes = [document.n_bytes for document in sample if document.domain == domain] or [d.n_bytes for d in sample] or [0]
        whole = sum(_text_of(path, fmean(sizes)) for path in found(where))
        total += min(whole, config.bytes_per_domain or whole)
    return total, 0


def _text_of(path: Path, document_bytes: float) -> int:
    """About so many bytes of text in a file."""
    if kind_of(path) == ".parquet":
        with whole_parquet(path) as table:
            return round(int(table.select(pl.len()).collect().item()) * document_bytes)
    return content_bytes(path, SAMPLE_BYTES) if path.suffix.lower() in COMPRESSIONS else path.stat().st_size
