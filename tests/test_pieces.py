"""A text in pieces has the ids of the whole text, wherever it is cut; a tokenizer for which that does not hold is given whole texts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from corpora import long_texts as pieces_of
from corpora import tokenizer as tokenizer_module
from corpora.document import Document
from corpora.long_texts import is_cuttable, pieces
from corpora.tokenize_parallel import JOB, jobs, joined, tokens
from corpora.tokenizer import train_bpe

TRAINED_ON = [
    "It's the neurons' 12,345th text!  They'll fire (we've seen)...\n\n\tdef f(x): return x_1 + 2.5e-3  # 100%\r\n",
    "日本語の文、そして「電子」。한국어 문장입니다 12 ñandú — naïve Größe 😀😀 e\u0301 \u00a0\u3000\u2028x",
] * 3
ALPHABET = st.one_of(
    st.sampled_from(
        ["'", "'s", "'ll", " ", "  ", "\n", "\r\n", "\t", "12", "7", "the", "A", "!", "...", "_", "(", "-", "、", "。"]
    ),
    st.sampled_from(
        ["電", "が", "カ", "한", "é", "e\u0301", "か\u3099", "\u1100\u1161\u11a8", "😀", "½", "²", "١", "ª", "ß", "\u200d"]
    ),
    st.sampled_from(
        ["\u00a0", "\u3000", "\u2028", "\u0085", "\x1c", "\x00", "！", "ｶﾞ", "٫", "ۖ", "\u0301", "\u3099", "</s>", "  \n"]
    ),
    st.characters(codec="utf-8"),
)
TEXTS = st.lists(ALPHABET, max_size=40).map("".join)


def trained(**changes: object) -> Tokenizer:
    """A BPE of this machine, with other parts."""
    tokenizer = train_bpe(TRAINED_ON, 420)
    for name, part in changes.items():
        setattr(tokenizer, name, part)
    return tokenizer


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
CUTTABLE = {
    "trained here": trained(),
    "as Pythia": trained(normalizer=normalizers.NFC()),
    "digits one by one": trained(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])),
    "signs alone": trained(pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), BYTES])),
}
for blanks in ("  ", "\t\t"):  # as Pythia's
    CUTTABLE["as Pythia"].add_tokens([AddedToken(blanks, normalized=True)])


@pytest.mark.parametrize("name", CUTTABLE)
@given(text=TEXTS, long=st.integers(1, 12))
def test_pieces_have_the_ids_of_the_whole(name: str, text: str, long: int) -> None:
    tokenizer = CUTTABLE[name]
    assert is_cuttable(tokenizer)
    parts = list(pieces(text, True, long))
    assert "".join(parts) == text and all(parts) == bool(text)
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert [id for part in parts for id in tokenizer.encode(part, add_special_tokens=False).ids] == whole


def test_a_text_is_cut_almost_everywhere() -> None:
    """Else the law would hold for nothing."""
    for text in (
        "words and more words " * 50,
        "12,345 " * 50,
        "日本語の文、そして「電子」。" * 50,
        "x=f(y);" * 50,
        "dGVzdA1" * 50,
    ):
        assert max(map(len, pieces(text, True, 20))) < 40
    assert list(pieces("a" * 99, True, 20)) == ["a" * 99] and list(pieces("a b" * 99, False, 20)) == ["a b" * 99]


NOT_CUTTABLE = {
    "a blank before": trained(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "a blank for every beginning": trained(pre_tokenizer=pre_tokenizers.Metaspace(), decoder=decoders.Metaspace()),
    "another expression": trained(
        pre_tokenizer=pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\S+\s*"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    ),
    "an expression before": trained(
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("a b"), "isolated"), BYTES])
    ),
    "no expression": trained(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "no split": trained(pre_tokenizer=None),
    "stripped": trained(normalizer=normalizers.Strip()),
    "prepended": trained(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Prepend("_")])),
}


@pytest.mark.parametrize("name", NOT_CUTTABLE)
def test_other_tokenizers_get_whole_texts(name: str) -> None:
    assert not is_cuttable(NOT_CUTTABLE[name])


@pytest.mark.parametrize(
    "added", [AddedToken("a b", normalized=False), AddedToken("x", rstrip=True), AddedToken("x", lstrip=True)]
)
def test_an_added_token_over_a_cut_is_kept_whole(added: AddedToken) -> None:
    tokenizer = trained()
    tokenizer.add_tokens([added])
    assert not is_cuttable(tokenizer)


def test_a_bpe_learns_the_same_from_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(TRAINED_ON * 300)
    assert len(list(pieces(text, True))) > 1
    in_pieces = train_bpe([text], 400).to_str()
    monkeypatch.setattr(tokenizer_module, "pieces", lambda text, cuttable: [text])
    assert train_bpe([text], 400).to_str() == in_pieces


def test_jobs_are_bounded_and_joined_again() -> None:
    """Documents short, empty and long; every job but for one piece within its size."""
    texts = ["short", "", "long words " * 250_000, "", "another 12 ", "x " * 700_000]
    found = list(jobs([Document("any", str(i), text) for i, text in enumerate(texts)], True))
    assert len(found) >= 4 and all(sum(len(piece) for piece, _ in job) < JOB + 2 * pieces_of.LONG for job in found)
    tokenizer = trained()
    done = joined([tokens(job, tokenizer, 2) for job in found], [last for job in found for _, last in job])
    expected = [[*tokenizer.encode(text, add_special_tokens=False).ids, 2] for text in texts]
    assert done.lengths.tolist() == [len(ids) for ids in expected]
    assert done.ids.tolist() == [id for ids in expected for id in ids]


def test_the_law_sees_a_wrong_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a word, and between ' and the letters that belong to it, other ids come out."""
    tokenizer = trained()
    for text, cut in (("the neurons", r"(?<=neu)(?=rons)"), ("it's", r"(?<=')(?=s)")):
        monkeypatch.setattr(pieces_of, "CUT", re.compile(cut))
        parts = [id for part in pieces(text, True, 1) for id in tokenizer.encode(part, add_special_tokens=False).ids]
        assert parts != tokenizer.encode(text, add_special_tokens=False).ids
