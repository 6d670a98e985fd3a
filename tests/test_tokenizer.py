"""The tokenizer: OPT's special ids, every text back again, the same texts the same tokenizer, and its hash."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors

from corpora import tokenizer as tokenizers_here
from corpora.long_texts import is_cuttable
from corpora.tokenizer import bos_id, id_count, open_tokenizer, tokenizer_hash, train_bpe
from errors import UserError

TEXTS = ["A neuron fires.\n", "Another neuron is dead; the neuron's token is </s>.", "ñandú — 電子 \x00\t"]


def test_special_ids_are_those_of_opt() -> None:
    tokenizer = train_bpe(TEXTS, 300)
    assert [tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    assert (bos_id(tokenizer), id_count(tokenizer)) == (2, 300)


def test_every_text_comes_back_and_no_text_forges_a_special_id() -> None:
    tokenizer = train_bpe(TEXTS, 300)
    for text in [*TEXTS, "never seen: ß 🙂", "<s></s>"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text and min(ids) > 3


def test_training_and_hash_depend_on_the_texts_alone(tmp_path: Path) -> None:
    first, again, other = train_bpe(TEXTS, 300), train_bpe(iter(TEXTS), 300), train_bpe(TEXTS[:2], 300)
    assert tokenizer_hash(first) == tokenizer_hash(again) != tokenizer_hash(other)
    again.enable_truncation(5)
    again.post_processor = processors.ByteLevel()
    again.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_hash(open_tokenizer(str(tmp_path))) == tokenizer_hash(first)
    assert open_tokenizer(str(tmp_path / "tokenizer.json")).encode(TEXTS[1] * 9).ids == first.encode(TEXTS[1] * 9).ids


def test_a_tokenizer_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers_here, "reachable", lambda: False)
    (tmp_path / "tokenizer.json").write_text("{}")
    for where, sentence in (
        (str(tmp_path), "is not a tokenizer"),
        ("/nowhere/at/all", "does not exist"),
        ("nobody/nothing", "no tokenizer at"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_tokenizer(where)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    """Cut, flipped bits, keys of other kinds: a sentence, or a tokenizer that can be used."""
    file = tmp_path / "tokenizer.json"
    train_bpe(TEXTS, 300).save(str(file))
    whole, said = file.read_bytes(), json.loads(file.read_text())
    rng = np.random.default_rng(0)
    damages = [whole[:cut] for cut in (0, 1, len(whole) // 2, len(whole) - 2)]
    damages += [
        whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :] for at in rng.integers(0, len(whole), 60)
    ]
    for key in (*said, "model/vocab", "model/merges"):
        for value in (None, 7, [], {}, "word", [[1]], {"a": -1}, {"a": 2**40}):
            changed = json.loads(whole)
            inner, last = (changed["model"], key.partition("/")[2]) if "/" in key else (changed, key)
            inner[last] = value
            damages.append(json.dumps(changed).encode())
    refused = 0
    for damage in damages:
        file.write_bytes(damage)
        try:
            tokenizer = open_tokenizer(str(tmp_path))
            bos_id(tokenizer), id_count(tokenizer), tokenizer_hash(tokenizer), is_cuttable(tokenizer)
        except UserError as mistake:
            refused += 1
            assert "tokenizer" in str(mistake)
    assert refused > 40
