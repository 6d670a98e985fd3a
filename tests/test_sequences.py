"""Sequences: BOS and then one domain's documents, evenly shared; arrays of ids as they are; mistakes in sentences."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpora import notices
from corpora.config import CorpusConfig
from corpora.prepare import token_store
from corpora.sequences import Sequences, census_sequences, check_against_model, even_shares
from corpora.tokenizer import train_bpe
from errors import UserError


@pytest.fixture
def pile(tmp_path: Path) -> CorpusConfig:
    """Three domains in one file, their documents mixed, one domain short."""
    lines = [
        {"text": f"{name} {i} " * 9, "meta": {"pile_set_name": name}}
        for i in range(150)
        for name in ("long", "middle", "short")
        if name != "short" or i < 30
    ]
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, lines)))
    train_bpe((str(line["text"]) for line in lines), 300).save(str(tmp_path / "tokenizer.json"))
    return CorpusConfig(
        "mix",
        "pile",
        path=str(tmp_path / "mixed.jsonl"),
        tokenizer=str(tmp_path / "tokenizer.json"),
        validation_share=0.3,
        store=str(tmp_path / "stores"),
    )


@pytest.mark.parametrize("bos", [True, False])
def test_sequences_are_each_domain_read_on(pile: CorpusConfig, bos: bool) -> None:
    """The oracle: a plain loop over documents."""
    sequences = census_sequences(pile, tokens=10**6, context=16, bos=bos)
    store = token_store(pile)
    split = store.split("validation")
    for domain in range(3):
        stream: list[int] = []
        for document in np.flatnonzero(split.domains == domain):
            stream += split.read(int(split.offsets[document]), int(split.offsets[document + 1])).tolist()
        rows = sequences.ids[sequences.domains == domain]
        assert not bos or (rows[:, 0] == store.bos_id).all()
        fresh = 16 - bos
        assert rows[:, int(bos) :].ravel().tolist() == stream[: len(stream) // fresh * fresh]
    assert (np.diff(sequences.domains.astype(int)) >= 0).all()


def test_domains_share_evenly(pile: CorpusConfig) -> None:
    sequences = census_sequences(pile, tokens=160, context=16)
    assert len(sequences.ids) == 10
    assert sorted(np.bincount(sequences.domains, minlength=3).tolist()) == [3, 3, 4]


def test_a_domain_too_short_for_a_sequence_is_said(pile: CorpusConfig, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = census_sequences(pile, tokens=10**6, context=250)
    assert set(sequences.domains.tolist()) == {0, 1} and sequences.domain_names[2] == "short"
    assert "no whole sequence of short:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("available", "wanted", "shares"),
    [([9, 9, 9], 7, [3, 2, 2]), ([9, 1, 9], 7, [3, 1, 3]), ([2, 0, 1], 99, [2, 0, 1]), ([5, 5], 1, [1, 0]), ([], 3, [])],
)
def test_even_shares(available: list[int], wanted: int, shares: list[int]) -> None:
    assert even_shares(available, wanted) == shares


def test_the_fingerprint_sees_ids_domains_and_bos() -> None:
    def fingerprint(ids: list[int], domain: int, names: list[str], bos: int) -> str:
        return Sequences(np.array([ids], dtype=np.int32), np.array([domain], dtype=np.uint8), names, bos, None, None).fingerprint

    variants = [
        ([2, 5], 0, ["a", "b"], 2),
        ([2, 6], 0, ["a", "b"], 2),
        ([2, 5], 1, ["a", "b"], 2),
        ([2, 5], 0, ["a", "c"], 2),
        ([2, 5], 0, ["a", "b"], 3),
    ]
    assert len({fingerprint(*variant) for variant in variants}) == len(variants)
    assert fingerprint(*variants[0]) == fingerprint(*variants[0])


def array(tmp_path: Path, values: object) -> CorpusConfig:
    np.save(tmp_path / "x.npy", np.asarray(values))
    return CorpusConfig("tokens", "tokens", path=str(tmp_path / "x.npy"))


def test_an_array_is_taken_as_it_is(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.uint16).reshape(4, 3)
    sequences = census_sequences(array(tmp_path, ids), tokens=8, context=99)
    assert sequences.ids.dtype == np.int32 and sequences.ids.tolist() == ids[:2].tolist()
    assert (sequences.domain_names, sequences.bos_id, sequences.vocab_size) == (["tokens"], 2, None)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([[0.5, 1.0]], "float64"),
        ([1, 2, 3], r"shape \[3\]"),
        ([[4, 5], [6, -7]], "id -7 at sequence 1, position 1"),
        ([[4, 2**40]], "beyond int32"),
        (np.zeros((0, 4), int), r"shape \[0, 4\]"),
    ],
)
def test_an_array_that_is_no_tokens(tmp_path: Path, values: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        census_sequences(array(tmp_path, values), tokens=100, context=2)


def test_too_few(pile: CorpusConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokens=0 .* one sequence of 256 tokens"):
        census_sequences(pile, tokens=0, context=256)
    with pytest.raises(UserError, match="no whole sequence of 100000 tokens"):
        census_sequences(pile, tokens=10**6, context=100_000)
    with pytest.raises(UserError, match="context=1"):
        census_sequences(pile, tokens=10**6, context=1)
    with pytest.raises(UserError, match="split='test'"):
        census_sequences(pile, tokens=10**6, context=16, split="test")
    with pytest.raises(UserError, match="does not exist"):
        census_sequences(CorpusConfig("tokens", "tokens", path=str(tmp_path / "none.npy")), tokens=10**6, context=16)


def test_sequences_must_suit_the_model(tmp_path: Path) -> None:
    sequences = census_sequences(array(tmp_path, [[2, 3, 4], [2, 9, 8]]), tokens=6, context=3)
    check_against_model(sequences, vocab_size=10, positions=3)
    with pytest.raises(UserError, match="sequence 1 has the id 9 at position 1"):
        check_against_model(sequences, vocab_size=9, positions=3)
    with pytest.raises(UserError, match="3 positions, the model 2: save an array"):
        check_against_model(sequences, vocab_size=10, positions=2)
    with pytest.raises(UserError, match="the tokenizer knows 11 ids, but the model's embedding has 10 rows"):
        check_against_model(replace(sequences, vocab_size=11), vocab_size=10, positions=3)
    check_against_model(replace(sequences, vocab_size=10), vocab_size=10, positions=3)


def stream(tmp_path: Path, ids: object, eos: int = 9) -> CorpusConfig:
    np.asarray(ids, dtype="<u2").tofile(tmp_path / "val.bin")
    return CorpusConfig("tokens", "tokens", path=str(tmp_path / "val.bin"), eos=eos)


@pytest.mark.parametrize("bos", [True, False])
def test_nanogpt_s_stream_is_read_on(tmp_path: Path, bos: bool) -> None:
    """Sequences end to end, each opened by the id that ends documents: as if the store had been made here."""
    ids = [1, 2, 9, 3, 4, 5, 6, 9, 7, 8, 65535]
    sequences = census_sequences(stream(tmp_path, ids), tokens=99, context=4, bos=bos)
    assert sequences.ids.tolist() == ([[9, 1, 2, 9], [9, 3, 4, 5], [9, 6, 9, 7]] if bos else [[1, 2, 9, 3], [4, 5, 6, 9]])
    assert (sequences.domain_names, sequences.bos_id, sequences.vocab_size) == (["tokens"], 9, None)
    assert len(census_sequences(stream(tmp_path, ids), tokens=5, context=4, bos=bos).ids) == 1
    with pytest.raises(UserError, match="has the id 9 at position 0, but the model knows ids below 9"):
        check_against_model(census_sequences(stream(tmp_path, [1, 9, 9]), tokens=4, context=2), vocab_size=9, positions=4)


def test_a_stream_that_is_none_is_named(tmp_path: Path) -> None:
    config = stream(tmp_path, [1, 2, 3, 9])
    for ids, eos, sentence in (
        ([1, 2, 3], 9, r"corpus\.eos=9 is nowhere"),
        ([], 9, "has 0 bytes"),
        ([9], 9, "no whole sequence of 4"),
    ):
        with pytest.raises(UserError, match=sentence):
            census_sequences(stream(tmp_path, ids, eos), tokens=99, context=4)
    (tmp_path / "val.bin").write_bytes(b"123")
    with pytest.raises(UserError, match="has 3 bytes, but uint16 ids take two each"):
        census_sequences(config, tokens=99, context=4)
    np.array([20240520, 1, *range(300)], dtype="<i4").tofile(tmp_path / "val.bin")
    with pytest.raises(UserError, match=r"is a \.bin of llm\.c"):
        census_sequences(config, tokens=99, context=4)


def test_every_damage_to_an_array_s_header_is_a_sentence(tmp_path: Path) -> None:
    """A bit flipped or the file cut: other numbers are a matter of the body, for which nothing vouches."""
    config = array(tmp_path, np.arange(12, dtype=np.int32).reshape(4, 3))
    whole = (tmp_path / "x.npy").read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in [*((place, int(rng.integers(8))) for place in range(100)), *((place, -1) for place in range(len(whole)))]:
        damaged = whole[:place] if bit < 0 else whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        (tmp_path / "x.npy").write_bytes(damaged)
        try:
            assert census_sequences(config, tokens=99, context=3).ids.size
        except UserError as mistake:
            assert "x.npy" in str(mistake)


def test_a_model_without_a_tokenizer_is_not_given_another_s_ids(pile: CorpusConfig) -> None:
    """A BPE trained on the corpus at hand would be as good as random ids to it."""
    nameless = replace(pile, tokenizer=None, vocab_size=300)
    with pytest.raises(UserError, match=r"this checkpoint has no tokenizer.*corpus\.tokenizer=FOLDER"):
        census_sequences(nameless, tokens=160, context=16)
    asked = census_sequences(nameless, tokens=160, context=16, tokenizer=pile.tokenizer)
    assert np.array_equal(asked.ids, census_sequences(pile, tokens=160, context=16).ids)


def test_all_text_is_both_splits(pile: CorpusConfig) -> None:
    everything = census_sequences(pile, tokens=10**6, context=16, bos=False, split="all")
    each = [census_sequences(pile, tokens=10**6, context=16, bos=False, split=name) for name in ("validation", "train")]
    for domain in range(3):
        held_out, trained = (part.ids[part.domains == domain] for part in each)
        rows = everything.ids[everything.domains == domain]
        assert np.array_equal(rows[: len(held_out)], held_out) and len(rows) - len(held_out) - len(trained) in (0, 1)


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_one_file_is_a_corpus_for_a_census(
    pile: CorpusConfig, tmp_path: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever split its one document falls to; training refuses it."""
    notices.announce.cache_clear()
    (tmp_path / "book.txt").write_text("a text of one file " * 50)
    book = replace(pile, source="files", path=str(tmp_path / "book.txt"), validation_share=share)
    sequences = census_sequences(book, tokens=160, context=16)
    assert len(sequences.ids) == 10
    assert ("reading the train split" in capsys.readouterr().err) is (share < 0.5)
    with pytest.raises(UserError, match=r"leaves the (train|validation) split empty"):
        token_store(book)
