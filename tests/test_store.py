"""Laws of the token store: same corpus, same bytes; what was written is what is read; nothing half-made, nothing damaged goes unseen."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from corpora import making, prepare
from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.documents import documents
from corpora.prepare import token_store
from corpora.splitting import ByHash
from corpora.store import TokenStore
from corpora.tokenizer import train_bpe
from corpora.writing import SplitWriter
from errors import UserError


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusConfig:
    """Two domains of small texts, one of them twice in the corpus, and one that spells the closing token."""
    for domain, word in (("fruit", "apple"), ("stone", "granite")):
        texts = [f"{word} number {i} is not {word} {i + 1}\n" * (1 + i % 5) for i in range(120)]
        lines = [json.dumps({"text": text}) for text in [*texts, texts[0], "an </s> that somebody wrote", "   "]]
        (tmp_path / f"{domain}.jsonl").write_text("\n".join(lines))
    domains = {domain: str(tmp_path / f"{domain}.jsonl") for domain in ("fruit", "stone")}
    return CorpusConfig("small", "files", domains=domains, vocab_size=300, validation_share=0.2, store=str(tmp_path / "stores"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_same_corpus_twice_gives_the_same_bytes(corpus: CorpusConfig, tmp_path: Path) -> None:
    first = token_store(corpus)
    corpus.store = str(tmp_path / "elsewhere")
    assert content(first.folder) == content(token_store(corpus).folder)


def test_a_store_is_found_again_by_its_recipe_and_by_its_own_tokenizer(
    corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = token_store(corpus)
    monkeypatch.setattr(prepare, "make", None)
    assert token_store(corpus).folder == token_store(corpus, str(made.tokenizer_file)).folder == made.folder


def test_a_changed_source_or_setting_makes_another_store(corpus: CorpusConfig) -> None:
    before = token_store(corpus)
    with Path(corpus.domains["fruit"]).open("a") as file:
        file.write('\n{"text": "a new fruit"}')
    changed = token_store(corpus)
    corpus.vocab_size = 310
    assert len({before.fingerprint, changed.fingerprint, token_store(corpus).fingerprint}) == 3


@pytest.mark.parametrize("shard_tokens", [13, 1000, 10**8])
def test_what_is_read_is_what_was_written(corpus: CorpusConfig, shard_tokens: int) -> None:
    """Also where shards are smaller than a document; every document is closed by </s>, and a written </s> is only text."""
    store = token_store(corpus, shard_tokens=shard_tokens)
    tokenizer = Tokenizer.from_file(str(store.tokenizer_file))
    expected = list(documents(corpus))
    for name in ("train", "validation"):
        split = store.split(name)
        held_out = ByHash(corpus.validation_share)(expected, 0)
        mine = [document for document, out in zip(expected, held_out, strict=True) if out == (name == "validation")]
        assert len(split.offsets) == len(mine) + 1 and split.n_tokens == split.offsets[-1]
        for document, domain, start, stop in zip(mine, split.domains, split.offsets, split.offsets[1:], strict=False):
            ids = split.read(int(start), int(stop)).tolist()
            assert tokenizer.decode(ids[:-1], skip_special_tokens=False) == document.text
            assert ids.count(store.bos_id) == 1 and ids[-1] == store.bos_id
            assert store.domain_names[domain] == document.domain
        everything = split.read(0, split.n_tokens)
        assert np.array_equal(
            np.concatenate([split.read(i, min(i + 5, split.n_tokens)) for i in range(0, split.n_tokens, 5)]), everything
        )
    store.verify()


def test_equal_texts_are_kept_once_and_blank_ones_never(corpus: CorpusConfig) -> None:
    texts = [document.text for document in documents(corpus)]
    assert len(texts) == len(set(texts)) == 2 * 120 + 1


def test_a_split_depends_on_the_text_alone() -> None:
    texts = [Document("any", str(i), f"text {i}") for i in range(2000)]
    held_out = ByHash(0.2)(texts, 0)
    assert 320 < held_out.sum() < 480
    others = [Document("other", "x", document.text) for document in reversed(texts)]
    assert np.array_equal(ByHash(0.2)(others, 777)[::-1], held_out)


def test_ids_beyond_65535_take_four_bytes(tmp_path: Path) -> None:
    with SplitWriter(tmp_path / "train", "uint32", shard_tokens=2) as writer:
        writer.add(np.array([70_000, 3, 4_000_000], dtype=np.uint32), np.array([3]), np.array([0], dtype=np.uint8))
        assert [shard["tokens"] for shard in writer.close(["one"])["shards"]] == [2, 1]
    assert (tmp_path / "train" / "tokens_00000.bin").read_bytes() == np.array([70_000, 3], dtype="<u4").tobytes()


def test_a_large_vocabulary_makes_a_store_of_uint32(corpus: CorpusConfig, tmp_path: Path) -> None:
    tokenizer = train_bpe(["some text"], 300)
    tokenizer.add_tokens([f"<extra {i}>" for i in range(65_536)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert token_store(corpus, str(tmp_path)).split("train").read(0, 1).dtype == np.uint32


def test_a_failed_preparation_leaves_nothing_and_a_killed_one_is_cleared(
    corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Path(corpus.store)
    with monkeypatch.context() as patch:
        patch.setattr(making, "write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            token_store(corpus)
    assert not [path for path in stores.iterdir() if path.is_dir()]
    made = token_store(corpus)
    killed = made.folder.rename(made.folder.with_name(f"{made.folder.name}.partial"))
    (killed / "manifest.json").unlink()
    (killed / "left over").touch()
    assert "left over" not in content(token_store(corpus).folder) and not killed.exists()


def test_damage_is_seen(corpus: CorpusConfig) -> None:
    store = token_store(corpus)
    shard = store.split("train").shard_files[0]
    good = shard.read_bytes()
    shard.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(UserError, match="sha256"):
        TokenStore.open(store.folder).verify()
    shard.write_bytes(good[:-1])
    with pytest.raises(UserError, match="damaged"):
        token_store(corpus)
    (store.folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not a token store"):
        token_store(corpus)


def test_every_document_in_one_split_is_a_mistake(corpus: CorpusConfig) -> None:
    corpus.validation_share = 1e-9
    with pytest.raises(UserError, match="validation split empty"):
        token_store(corpus)
