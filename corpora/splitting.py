"""documents -> splits: which documents are kept from training."""

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
from jaxtyping import Bool

from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.files import document_count, found, places
from corpora.openwebtext import hub_listing
from corpora.rows import Texts

NANOGPT_SEED = 2357


# which documents of a batch, whose first is the so-manieth of the corpus, are kept from training
Splitting = Callable[[Sequence[Document], int], Bool[np.ndarray, " document"]]


def splitting(config: CorpusConfig) -> Splitting:
    """The split that the settings ask for."""
    return ByHash(config.validation_share) if config.split == "hash" else NanoGPT(config.validation_share, _documents_of(config))


class ByHash:
    """By the hash of the text alone: no order, other document or seed changes it, and equal texts share a split."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, batch: Sequence[Document], start: int) -> Bool[np.ndarray, " document"]:
        return np.array([int.from_bytes(document.digest[:8], "big") < self.share * 2**64 for document in batch], dtype=bool)


class NanoGPT:
    """nanoGPT's: what `train_test_split(test_size=share, seed=2357, shuffle=True)` of `datasets` draws as its test split.

    Which documents these are depends on how many there are and on their order alone. Here both splits stay in the order of
    the corpus; nanoGPT's files hold them in the order drawn.
    """

    def __init__(self, share: float, n_documents: int) -> None:
        drawn = np.random.default_rng(NANOGPT_SEED).permutation(n_documents)[: ceil(share * n_documents)]
        self.kept = np.zeros(n_documents, dtype=bool)
        self.kept[drawn] = True

    def __call__(self, batch: Sequence[Document], start: int) -> Bool[np.ndarray, " document"]:
        return self.kept[start : start + len(batch)]


def _documents_of(config: CorpusConfig) -> int:
    """How many documents all files have, from their footers or by counting lines."""
    if config.from_hub:
        return hub_listing(config).documents
    texts = Texts(config.text, config.strict)
    return sum(document_count(path, texts) for where in places(config).values() for path in found(where))
