"""Which documents are kept from training: nanoGPT's split is that of `datasets`, to the document."""

from pathlib import Path

import datasets
import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer

from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.prepare import token_store
from corpora.splitting import NanoGPT
from corpora.tokenizer import train_bpe
from errors import UserError


@pytest.mark.parametrize(("n", "share"), [(10, 0.0005), (2000, 0.0005), (2001, 0.0005), (313, 0.2), (64, 0.5)])
def test_nanogpt_s_split_is_that_of_datasets(n: int, share: float) -> None:
    """What data/openwebtext/prepare.py of nanoGPT calls, and our answer in batches of any size."""
    drawn = datasets.Dataset.from_dict({"number": range(n)}).train_test_split(test_size=share, seed=2357, shuffle=True)
    kept = NanoGPT(share, n)
    all_of_them = [Document("any", str(i), "") for i in range(n)]
    ours = np.concatenate([kept(all_of_them[start : start + 7], start) for start in range(0, n, 7)])
    assert np.flatnonzero(ours).tolist() == sorted(drawn["test"]["number"])
    assert np.flatnonzero(~ours).tolist() == sorted(drawn["train"]["number"])


def test_a_store_has_nanogpt_s_validation_documents(tmp_path: Path) -> None:
    """Blank and repeated texts included: they have their places among the documents drawn from."""
    texts = [*(f"document {i} of many" for i in range(90)), "", "document 3 of many", "  "] * 2
    for i in range(3):
        pl.DataFrame({"text": texts[i * 62 : i * 62 + 62]}).write_parquet(tmp_path / f"{i}.parquet")
    train_bpe(texts, 300).save(str(tmp_path / "tokenizer.json"))
    config = CorpusConfig(
        "mine",
        "openwebtext",
        path=str(tmp_path / "*.parquet"),
        tokenizer=str(tmp_path / "tokenizer.json"),
        distinct=False,
        split="nanogpt",
        validation_share=0.1,
        store=str(tmp_path / "stores"),
    )
    store = token_store(config)
    tokenizer = Tokenizer.from_file(str(store.tokenizer_file))
    drawn = datasets.Dataset.from_dict({"text": texts}).train_test_split(test_size=0.1, seed=2357, shuffle=True)
    for ours, theirs in (("train", "train"), ("validation", "test")):
        split = store.split(ours)
        read = [tokenizer.decode(split.document(i)[:-1].tolist()) for i in range(split.n_documents)]
        assert sorted(read) == sorted(drawn[theirs]["text"])


@pytest.mark.parametrize("wrong", [{"distinct": True}, {"bytes_per_domain": 9}, {"source": "local", "path": None}])
def test_nanogpt_s_split_is_of_all_documents(wrong: dict[str, object]) -> None:
    right = {"name": "mine", "source": "files", "path": "x", "distinct": False, "split": "nanogpt"}
    CorpusConfig(**right)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"needs corpus\.distinct=false"):
        CorpusConfig(**(right | wrong))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="none of hash, nanogpt"):
        CorpusConfig(**(right | {"split": "random"}))  # type: ignore[arg-type]
