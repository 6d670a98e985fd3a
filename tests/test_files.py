"""The same texts from every kind of file, and a sentence for every mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard

from corpora import fetching
from corpora.config import CorpusConfig
from corpora.documents import documents
from errors import UserError

TEXTS = ["one\ntwo", "drei — vier", "five"]
LINES = "\n".join(json.dumps({"text": text}) for text in TEXTS)
WRITERS: dict[str, Callable[[Path], object]] = {
    "x.jsonl": lambda path: path.write_text(LINES),
    "x.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(LINES.encode())),
    "x.parquet": lambda path: pl.DataFrame({"text": TEXTS, "other": [1, 2, 3]}).write_parquet(path),
}


def texts(**settings: object) -> list[tuple[str, str]]:
    config = CorpusConfig(**({"name": "mine", "source": "files"} | settings))  # type: ignore[arg-type]
    return [(document.domain, document.text) for document in documents(config)]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_its_texts(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert texts(path=str(tmp_path / name)) == texts(path=str(tmp_path)) == [("mine", text) for text in TEXTS]


def test_domains_take_turns_until_each_has_its_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(9):
            (tmp_path / name / f"{i}.txt").write_text(f"{name}{i}" * 5)
    domains = {name: str(tmp_path / name / "*.txt") for name in "ab"}
    assert [domain for domain, _ in texts(domains=domains, bytes_per_domain=25)] == ["a", "b"] * 3


def test_a_lone_surrogate_does_not_stop_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a\\ud800b"}')
    assert texts(path=str(tmp_path / "x.jsonl")) == [("mine", "a?b")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": ', r"x\.jsonl line 2 is not JSON"),
        ("x.jsonl", b'{"txt": "a"}', r'line 1 has no field "text"'),
        ("x.jsonl.zst", b"no zstandard", "no whole zstandard file"),
        ("x.txt", b"caf\xe9", r"not UTF-8 text \(byte 3\)"),
        ("x.csv", b"a,b", "not a file of text that can be read here"),
        ("x.parquet", b"PAR1", "no whole parquet file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        texts(path=str(tmp_path / name))


def test_a_parquet_file_without_text_says_what_it_has(tmp_path: Path) -> None:
    pl.DataFrame({"content": TEXTS}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="only content"):
        texts(path=str(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": "/nowhere/*.txt"}, "matches no file"),
        ({}, "add corpus.path=FILE"),
        ({"source": "pile"}, "is read from local files"),
        ({"source": "fils"}, "none of local, files"),
        ({"path": "x", "domains": {"a": "y"}}, "exclude each other"),
        ({"path": "x", "validation_share": 1.0}, "between 0 and 1"),
        ({"path": "x", "vocab_size": 100}, "at least 260"),
        ({"source": "tokens", "path": "x.npy"}, "holds token ids"),
    ],
)
def test_a_mistake_in_the_settings_is_said(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        texts(**settings)


def test_openwebtext_without_a_network_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "reachable", lambda: False)
    with pytest.raises(UserError, match=r"prepare_corpus\.py corpus=openwebtext.*experiment=demo"):
        texts(source="openwebtext", store=str(tmp_path))


@pytest.mark.parametrize("source", ["openwebtext", "files"])
@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 7, 9, 12])
def test_documents_from_a_place_on_are_those_after_it(tmp_path: Path, source: str, distinct: bool, start: int) -> None:
    """Over files of every kind; a text that comes twice and blank ones count only where they are kept."""
    for number, (name, write) in enumerate(WRITERS.items()):
        write(tmp_path / f"{number}{name}")
    (tmp_path / "9.jsonl").write_text('{"text": " "}\n\n{"text": "six"}')
    config = CorpusConfig("mine", source, path=str(tmp_path), distinct=distinct)
    assert list(documents(config, start)) == list(documents(config))[start:]
