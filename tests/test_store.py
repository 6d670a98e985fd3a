"""Laws of the token store: same corpus, same bytes; what was written is what is read; nothing half-made, nothing damaged goes unseen."""

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tokenizers import Tokenizer

from corpora import build as making
from corpora import prepare
from corpora.command import prepare_command
from corpora.config import CorpusConfig
from corpora.document import Document
from corpora.documents import documents
from corpora.prepare import finished_store, token_store
from corpora.splitting import ByHash
from corpora.store import TokenStore
from corpora.store_writer import SplitWriter
from corpora.tokenizer import train_bpe
from errors import UserError
from scripts.prepare_corpus import PrepareConfig


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


def test_a_store_outlives_its_text(corpus: CorpusConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tokenizer is compared all the same, and the words that it was asked for in."""
    made = token_store(corpus)
    own = str(made.tokenizer_file)
    for file in corpus.domains.values():
        Path(file).unlink()
    capsys.readouterr()
    assert token_store(corpus).folder == token_store(corpus, own).folder == token_store(corpus).folder == made.folder
    said = capsys.readouterr().err
    assert said.count(f"taking {made.folder}, made with the same settings, without a comparison: ") == 1 and "no file" in said
    train_bpe(["another"], 300).save(str(tmp_path / "other.json"))
    others = [{"validation_share": 0.3}, {"domains": {"fruit": corpus.domains["fruit"]}}, {"vocab_size": 301}]
    others += [{"tokenizer": str(tmp_path / "other.json")}, {"tokenizer": "nobody/nothing"}]
    for other in others:
        with pytest.raises(UserError, match="matches no file"):
            token_store(replace(corpus, **other))  # type: ignore[arg-type]


def test_a_store_outlives_its_tokenizer_s_name(corpus: CorpusConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the text is there it is compared: of another, nothing was made with that name."""
    asked = tmp_path / "opt.json"
    train_bpe(["some text"], 300).save(str(asked))
    named = replace(corpus, tokenizer=str(asked))
    made = token_store(named)
    asked.rename(tmp_path / "moved.json")
    assert token_store(named).folder == made.folder
    assert f"taking {made.folder}" in (said := capsys.readouterr().err) and "opt.json does not exist" in said
    with pytest.raises(UserError, match=r"other\.json does not exist"):
        token_store(named, str(tmp_path / "other.json"))
    with Path(corpus.domains["fruit"]).open("a") as file:
        file.write('\n{"text": "a new fruit"}')
    with pytest.raises(UserError, match=r"opt\.json does not exist"):
        token_store(named)
    for text in corpus.domains.values():
        Path(text).unlink()
    assert token_store(named).folder == made.folder


def test_of_two_stores_that_fit_by_their_words_none_is_guessed(corpus: CorpusConfig) -> None:
    token_store(corpus)
    with Path(corpus.domains["fruit"]).open("a") as file:
        file.write('\n{"text": "a new fruit"}')
    token_store(corpus)
    Path(corpus.domains["fruit"]).unlink()
    with pytest.raises(UserError, match="matches no file"):
        token_store(corpus)


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


@pytest.mark.parametrize("shard_tokens", [7, 50, 10**6])
@pytest.mark.parametrize("marked", [0, 1, 4, 9])
def test_a_split_goes_on_after_its_mark_to_the_same_bytes(tmp_path: Path, shard_tokens: int, marked: int) -> None:
    """What was written after the mark and lost track of leaves no trace; shards finished before it are not written again."""
    rng = np.random.default_rng(3)
    documents = [(rng.integers(0, 900, n).astype(np.uint16), int(rng.integers(0, 3))) for n in (5, 0, 30, 7, 1, 14, 14, 2, 60)]

    def add(writer: SplitWriter, some: list[tuple[np.ndarray, int]]) -> None:
        for ids, domain in some:
            writer.add(ids, np.array([len(ids)]), np.array([domain], dtype=np.uint8))

    with SplitWriter(tmp_path / "once", "uint16", shard_tokens) as writer:
        add(writer, documents)
        once = writer.close(["a", "b", "c"])
    with SplitWriter(tmp_path / "twice", "uint16", shard_tokens) as writer:
        add(writer, documents[:marked])
        mark = json.loads(json.dumps(writer.mark()))
        add(writer, documents[::-1])
    finished = [tmp_path / "twice" / f"tokens_{i:05d}.bin" for i, shard in enumerate(mark["shards"]) if shard["sha256"]]
    for file in finished:
        file.chmod(0o444)
        os.utime(file, ns=(1, 1))
    with SplitWriter(tmp_path / "twice", "uint16", shard_tokens, mark) as writer:
        add(writer, documents[marked:])
        assert writer.close(["a", "b", "c"]) == once
    assert content(tmp_path / "twice") == content(tmp_path / "once")
    assert all(file.stat().st_mtime_ns == 1 for file in finished)


def test_a_split_shorter_than_its_mark_is_damaged(tmp_path: Path) -> None:
    with SplitWriter(tmp_path / "train", "uint16") as writer:
        writer.add(np.arange(9, dtype=np.uint16), np.array([9]), np.array([0], dtype=np.uint8))
        mark = writer.mark()
    os.truncate(tmp_path / "train" / "tokens_00000.bin", 17)
    with pytest.raises(UserError, match="should have at least 18 bytes"):
        SplitWriter(tmp_path / "train", "uint16", mark=mark)


@pytest.mark.parametrize("shard_tokens", [13, 10**8])
def test_the_documents_of_tokens_are_found(corpus: CorpusConfig, shard_tokens: int) -> None:
    """The oracle: the number of every token's document, spelled out."""
    split = token_store(corpus, shard_tokens=shard_tokens).split("train")
    owner = np.repeat(np.arange(split.n_documents), np.diff(split.offsets))
    rng = np.random.default_rng(0)
    for start in [0, *rng.integers(0, split.n_tokens, 200)]:
        stop = min(int(start) + int(rng.integers(0, 300)), split.n_tokens)
        assert split.documents(int(start), stop).tolist() == sorted(set(owner[start:stop].tolist()))
    assert split.documents(0, split.n_tokens).tolist() == list(range(split.n_documents))
    assert np.array_equal(split.document(5), split.read(int(split.offsets[5]), int(split.offsets[6])))
    with pytest.raises(IndexError):
        split.documents(0, split.n_tokens + 1)


def test_the_fingerprint_is_of_content_and_tokenizer(corpus: CorpusConfig, tmp_path: Path) -> None:
    """The same text from elsewhere has the same one; another text, domain name, split or tokenizer another."""
    store = token_store(corpus)
    where, corpus.store = corpus.domains, str(tmp_path / "others")
    moved = {name: str(tmp_path / f"{name}_moved.jsonl") for name in where}
    for name in where:
        (tmp_path / f"{name}_moved.jsonl").write_bytes(Path(where[name]).read_bytes())
    corpus.domains = moved
    assert token_store(corpus).fingerprint == store.fingerprint
    others = [{"vocab_size": 301}, {"validation_share": 0.3}, {"domains": {"apple": moved["fruit"], "stone": moved["stone"]}}]
    found = [token_store(replace(corpus, **other)).fingerprint for other in others]  # type: ignore[arg-type]
    (tmp_path / "stone_moved.jsonl").write_text(Path(where["stone"]).read_text().replace("granite number 7 ", "marble number 7 "))
    assert len({store.fingerprint, token_store(corpus).fingerprint, *found}) == 5


def test_a_domain_without_a_validation_document_is_said(
    corpus: CorpusConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rare.jsonl").write_text('{"text": "one lonely text that is trained on"}')
    corpus.domains["rare"] = str(tmp_path / "rare.jsonl")
    store = token_store(corpus)
    assert not store.manifest["splits"]["validation"]["of_domain"]["rare"]["documents"]
    assert "no validation document fell to rare:" in capsys.readouterr().err


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


def test_of_several_processes_none_makes_a_store_and_none_asks_the_hub(
    corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus that is not prepared is refused; one whose tokenizer has a name is found by it, as the one of a file by what is in it."""
    with pytest.raises(UserError, match=r"not prepared in .*python scripts/prepare_corpus.py corpus=files corpus\.name=small "):
        finished_store(corpus)
    assert not Path(corpus.store).exists()
    made = token_store(corpus)
    assert finished_store(corpus).folder == made.folder
    file = replace(corpus, tokenizer=str(made.tokenizer_file))
    assert finished_store(file).folder == made.folder
    opened: list[str] = []
    text = made.tokenizer_file.read_text()

    def named_tokenizer(where: str) -> Tokenizer:
        opened.append(where)
        return Tokenizer.from_str(text)

    monkeypatch.setattr(prepare, "open_tokenizer", named_tokenizer)
    monkeypatch.setattr(making, "open_tokenizer", lambda _: Tokenizer.from_str(text))
    named = replace(corpus, tokenizer="somebody/theirs", store=f"{corpus.store}-named")
    by_name = token_store(named)
    assert opened == ["somebody/theirs"]
    assert finished_store(named).folder == by_name.folder and opened == ["somebody/theirs"]
    with pytest.raises(UserError, match="is not prepared in"):
        finished_store(replace(named, tokenizer="somebody/another", validation_share=0.3))
    assert opened == ["somebody/theirs"], "no store is of this source"


def test_the_command_that_is_named_asks_for_the_same_corpus(corpus: CorpusConfig, tmp_path: Path) -> None:
    """Spaces, braces and a `~` in the name of a file are read as they are."""
    odd = tmp_path / "~a folder {b}, c" / "stone.jsonl"
    odd.parent.mkdir()
    Path(corpus.domains["stone"]).rename(odd)
    asked = replace(corpus, domains=corpus.domains | {"stone": str(odd)}, tokenizer=None, bytes_per_domain=3000)
    program, *settings = shlex.split(prepare_command(asked))[1:]
    assert program == "scripts/prepare_corpus.py"
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        composed = OmegaConf.to_object(compose("prepare_corpus", settings))
    assert isinstance(composed, PrepareConfig) and composed.corpus == asked
    openwebtext = CorpusConfig(
        "openwebtext", "openwebtext", tokenizer="facebook/opt-125m", distinct=False, validation_share=0.0005
    )
    assert prepare_command(openwebtext) == "python scripts/prepare_corpus.py corpus=openwebtext"
