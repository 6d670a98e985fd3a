"""The same texts from every kind of file, compressed or not; what is passed over is said; a sentence for every mistake."""

import codecs
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard

from corpora import hub_files as fetching
from corpora import json_list, notices, rows
from corpora.config import CorpusConfig
from corpora.documents import documents
from corpora.prepare import token_store
from errors import UserError

TEXTS = ["one\ntwo", "drei — vier", "five"]
OBJECTS = [{"text": text, "other": [1]} for text in TEXTS]
LINES = "\n".join(map(json.dumps, OBJECTS)).encode()


def parquet(texts: object = TEXTS, dtype: object = pl.String) -> bytes:
    file = io.BytesIO()
    pl.DataFrame({"text": pl.Series(texts, dtype=dtype), "other": [1, 2, 3]}).write_parquet(file)  # type: ignore[arg-type]
    return file.getvalue()


PLAIN = {
    "x.jsonl": LINES,
    "x.ndjson": codecs.BOM_UTF8 + LINES.replace(b"\n", b"\r\n") + b"\n\n",
    "lines.json": LINES,
    "list.json": codecs.BOM_UTF8 + json.dumps(OBJECTS, indent=1).encode(),
    "strings.JSON": json.dumps(TEXTS).encode(),
    "x.parquet": parquet(),
    "categories.parquet": parquet(dtype=pl.Categorical),
    "enum.parquet": parquet(dtype=pl.Enum(TEXTS)),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}
FILES = {f"{name}{ending}": pack(content) for name, content in PLAIN.items() for ending, pack in PACKED.items()}


@pytest.fixture(autouse=True)
def unsaid() -> None:
    """Every test hears what is said once a process."""
    notices.announce.cache_clear()


def texts(**settings: object) -> list[tuple[str, str]]:
    config = CorpusConfig(**({"name": "mine", "source": "files"} | settings))  # type: ignore[arg-type]
    return [(document.domain, document.text) for document in documents(config)]


def one(path: Path, content: bytes, **settings: object) -> list[str]:
    """The texts of one file with this content."""
    path.write_bytes(content)
    return [text for _, text in texts(path=str(path), **settings)]


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_its_texts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    assert texts(path=str(tmp_path / name)) == texts(path=str(tmp_path)) == [("mine", text) for text in TEXTS]


@pytest.mark.parametrize("ending", PACKED)
def test_a_text_file_is_one_text_without_its_byte_order_mark(tmp_path: Path, ending: str) -> None:
    assert one(tmp_path / f"x.txt{ending}", PACKED[ending](codecs.BOM_UTF8 + "ñ 1\r\n".encode())) == ["ñ 1\r\n"]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_is_read_whole_or_refused(tmp_path: Path, ending: str) -> None:
    """Several streams one after another are one text; cut anywhere, also where one of them ends inside, it is no file."""
    pack = PACKED[ending]
    first, second = pack(LINES + b"\n"), pack(json.dumps({"text": "x" * 999}).encode())
    file = tmp_path / f"x.jsonl{ending}"
    assert one(file, first + second) == [*TEXTS, "x" * 999]
    assert one(file, first) == TEXTS
    for cut in [*range(1, len(first)), *range(len(first) + 1, len(first + second))]:
        with pytest.raises(UserError, match=r"x\.jsonl.* is no whole (gzip|zstandard) file"):
            one(file, (first + second)[:cut])
    with pytest.raises(UserError, match="is empty, not even a compressed file of nothing"):
        one(file, b"")
    with pytest.raises(UserError, match=r"is no whole (gzip|zstandard) file"):
        one(file, first + b"more")


def test_a_zst_that_ends_inside_a_large_frame_is_refused(tmp_path: Path) -> None:
    """The library's own reader gives what stands before the cut, and says nothing."""
    lines = b"".join(json.dumps({"text": os.urandom(400).hex()}).encode() + b"\n" for _ in range(2000))
    whole = zstandard.compress(lines)
    assert len(one(tmp_path / "x.jsonl.zst", whole)) == 2000
    with pytest.raises(UserError, match="it ends inside a frame"):
        one(tmp_path / "x.jsonl.zst", whole[: len(whole) // 2])


def test_a_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands at the end of a piece: half a number, a sign of four bytes, an escape."""
    values: list[object] = [{"text": "a😀" * 9, "n": -12.5e3}, {"text": "b\n\\u00e9"}, {"n": [1], "text": "c"}]
    for characters in range(1, 40):
        monkeypatch.setattr(json_list, "CHARACTERS", characters)
        (tmp_path / "x.json").write_text(json.dumps([12345, *values, 678], ensure_ascii=False))
        assert list(json_list.elements(tmp_path / "x.json")) == [12345, *values, 678]


def test_a_folder_says_what_it_passes_over_and_follows_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders that link to each other are no hang, and a file that two links lead to is one file."""
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    (corpus / "a" / ".git").mkdir(parents=True)
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "x.txt").write_text("linked folder")
    (tmp_path / "single.txt").write_text("linked file")
    for name in ("notes.rst", "more.rst", "README", ".hidden.txt", "a/table.csv"):
        (corpus / name).write_text("no text of the corpus")
    (corpus / "a" / "y.txt").write_text("plain")
    (corpus / "b").symlink_to(elsewhere)
    (corpus / "c").symlink_to(elsewhere / "deep")
    (elsewhere / "back").symlink_to(corpus)
    (corpus / "z.txt").symlink_to(tmp_path / "single.txt")
    (corpus / "gone.txt").symlink_to(tmp_path / "nowhere")
    for where in (str(corpus), f"{corpus}/*"):
        capsys.readouterr()
        config = CorpusConfig("mine", "files", path=where, distinct=False)
        assert sorted(d.text for d in documents(config)) == ["linked file", "linked folder", "plain"]
        list(documents(config))
        (said,) = capsys.readouterr().err.splitlines()
        assert said.endswith("3 files of text; passed over 1 .csv, 2 .rst, 1 broken links, 2 hidden, 1 without a suffix")


@pytest.mark.parametrize("name", ["a b", "a,b", "it's", 'a"b', "[x]", "a*b", "(1)", "a=b", "é電😀", "~x", "{a}", "$HOME"])
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for kind in ("x.jsonl", "x.parquet"):
        (tmp_path / name / f"{name}{kind}").write_bytes(PLAIN[kind])
        assert texts(path=str(tmp_path / name / f"{name}{kind}"), distinct=False) == [("mine", text) for text in TEXTS]
    assert len(texts(path=str(tmp_path / name), distinct=False)) == 6


def test_domains_take_turns_until_each_has_its_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(9):
            (tmp_path / name / f"{i}.txt").write_text(f"{name}{i}" * 5)
    domains = {name: str(tmp_path / name / "*.txt") for name in "ab"}
    assert [domain for domain, _ in texts(domains=domains, bytes_per_domain=25)] == ["a", "b"] * 3


def test_a_lone_surrogate_does_not_stop_a_corpus(tmp_path: Path) -> None:
    assert one(tmp_path / "x.jsonl", b'{"text": "a\\ud800b"}') == ["a?b"]


NO_TEXT = [{"text": None}, {"text": 3}, {"text": ["a"]}, {"txt": "a"}, {"text": {}}, 7, {"text": True}]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.parquet"])
def test_rows_without_a_text_are_left_out_and_counted(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether they stand first or last; `corpus.strict=true` refuses the first of them by its place."""
    rows_of = [*NO_TEXT, *OBJECTS, None]
    if name == "x.parquet":
        rows_of = [{"text": None}, *OBJECTS, {"text": None}]
        pl.DataFrame({"text": [None, *TEXTS, None]}).write_parquet(tmp_path / name)
    else:
        content = json.dumps(rows_of) if name == "x.json" else "\n".join(map(json.dumps, rows_of))
        (tmp_path / name).write_text(content)
    assert [text for _, text in texts(path=str(tmp_path / name))] == TEXTS
    said = capsys.readouterr().err
    assert f"{len(rows_of) - 3} rows without a text in 'text' left out, the first one {tmp_path / name} " in said
    with pytest.raises(UserError, match=r'(line|item|row) 1 has no text in its field "text" but null.* corpus\.strict=false'):
        texts(path=str(tmp_path / name), strict=True)
    config = CorpusConfig("mine", "openwebtext", path=str(tmp_path), distinct=False)
    assert [d.text for d in documents(config, 1)] == TEXTS[1:], "what was left out has no place among the documents"


@pytest.mark.parametrize("value", NO_TEXT)
def test_a_file_without_any_text_is_refused(tmp_path: Path, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r'x\.jsonl line 1 has no (text in its )?field "text"'):
        one(tmp_path / "x.jsonl", b"\n".join([json.dumps(value).encode()] * 2))
    monkeypatch.setattr(rows, "PATIENCE", 3)
    with pytest.raises(UserError, match=r"line 1 has no"):
        one(tmp_path / "x.jsonl", b"\n".join([json.dumps(value).encode()] * 3 + [b"unread"]))


def test_the_text_may_have_another_name(tmp_path: Path) -> None:
    assert one(tmp_path / "x.jsonl", LINES.replace(b'"text"', b'"body"'), text="body") == TEXTS
    pl.DataFrame({"content": TEXTS, "text": [1, 2, 3]}).write_parquet(tmp_path / "x.parquet")
    assert [text for _, text in texts(path=str(tmp_path / "x.parquet"), text="content")] == TEXTS
    for column, sentence in (
        ("body", "only content, text: name the one with the text, corpus.text=COLUMN"),
        ("text", "Int64, not"),
    ):
        with pytest.raises(UserError, match=sentence):
            texts(path=str(tmp_path / "x.parquet"), text=column)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([["a"]], r"List\(String\), not text"),
        ([b"a"], "Binary, not text"),
        ([{"a": "b"}], "Struct"),
        ([None], "row 1 has no text"),
    ],
)
def test_a_column_of_another_kind_is_refused(tmp_path: Path, values: list[object], sentence: str) -> None:
    pl.DataFrame({"text": values}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=sentence):
        texts(path=str(tmp_path / "x.parquet"))


def test_another_text_column_is_another_store(tmp_path: Path) -> None:
    """Also where the source is gone: a store of the one column does not pass for one of the other."""
    both = [json.dumps({"text": f"text {i} " * 9, "body": f"body {i} " * 9}) for i in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(both))
    config = {"name": "mine", "source": "files", "path": str(tmp_path / "x.jsonl"), "vocab_size": 260, "store": str(tmp_path)}
    config["validation_share"] = 0.3
    text = token_store(CorpusConfig(**config))  # type: ignore[arg-type]
    body = token_store(CorpusConfig(**config, text="body"))  # type: ignore[arg-type]
    assert text.folder != body.folder and text.fingerprint != body.fingerprint
    (tmp_path / "x.jsonl").unlink()
    assert token_store(CorpusConfig(**config, text="body")).folder == body.folder  # type: ignore[arg-type]
    assert token_store(CorpusConfig(**config)).folder == text.folder  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": ', r"x\.jsonl line 2 is not JSON"),
        ("x.jsonl", b"[" * 10**5, "line 1 is not JSON"),
        ("x.jsonl", b"1" * 10**5, "line 1 is not JSON"),
        ("x.jsonl", b'{"txt": "a"}', r'line 1 has no field "text", only txt: name the one'),
        ("x.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}', r"line 2 is not UTF-8 text \(byte 13\)"),
        ("x.json", b'[{"text": "a"}, {"text": "b"}', r"no whole JSON list \(item 2\)"),
        ("x.json", b'[{"text": "a"} {"text": "b"}]', r"no whole JSON list \(item 2\)"),
        ("x.json", b'[{"text": "a"}] more', "no whole JSON list"),
        ("x.json", b"[" * 10**5, r"no whole JSON list \(item 1\)"),
        ("x.json", b'["caf\xe9"]', "not UTF-8 text"),
        ("x.json", b'{"text":\n "a"', "line 1 is not JSON"),
        ("x.jsonl.zst", b"no zstandard", "no whole zstandard file"),
        ("x.jsonl.gz", b"no gzip", "no whole gzip file"),
        ("x.txt", b"caf\xe9", r"not UTF-8 text \(byte 3\)"),
        ("x.txt", "text".encode("utf-16"), "is UTF-16 or UTF-32 text: convert it with"),
        ("x.txt", "text".encode("utf-32"), "is UTF-16 or UTF-32 text"),
        ("x.jsonl", codecs.BOM_UTF16_BE + LINES.decode().encode("utf-16-be"), "is UTF-16 or UTF-32 text"),
        ("x.csv", b"a,b", "not a file of text that can be read here"),
        ("x.parquet", b"PAR1", "no whole parquet file"),
        ("x.parquet", parquet()[:-9], "no whole parquet file"),
        ("x.parquet", b"PAR1" + parquet()[4:].replace(b"text", b"t\xff\xffx"), "x.parquet"),
        ("x.parquet.gz", gzip.compress(parquet(), mtime=0)[:-9], "no whole gzip file"),
        ("x.parquet.gz", gzip.compress(b"PAR1", mtime=0), "no whole parquet file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        one(tmp_path / name, content)


def test_one_object_over_several_lines_is_one_text(tmp_path: Path) -> None:
    assert one(tmp_path / "x.json", json.dumps(OBJECTS[0], indent=2).encode()) == TEXTS[:1]


def test_a_file_and_a_folder_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.txt").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"x\.txt cannot be read \(Input/output error\)"):
        texts(path=str(tmp_path))
    (tmp_path / "inner").mkdir()

    def refuse(folder: str | Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        texts(path=str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be read \(File name too long\)"):
        texts(path="x" * 300)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": "/nowhere/*.txt"}, "matches no file"),
        ({"path": "a.txt,b.txt"}, r"a\.txt,b\.txt matches no file.*Several paths are a glob, or corpus\.domains="),
        ({"path": "~nobody-of-this-name/x.txt"}, "home folder that cannot be found"),
        ({}, "add corpus.path=FILE"),
        ({"source": "hub"}, "add corpus.path=NAME"),
        ({"source": "pile"}, "is read from local files"),
        ({"source": "fils"}, "none of local, files"),
        ({"path": "x", "domains": {"a": "y"}}, "exclude each other"),
        ({"path": "x", "validation_share": 1.0}, "between 0 and 1"),
        ({"path": "x", "validation_share": float("nan")}, "between 0 and 1"),
        ({"path": "x", "vocab_size": 100}, "at least 260"),
        ({"path": "x", "vocab_size": 999_999_999}, "at most 1,000,000"),
        ({"path": "x", "workers": 0}, "at least 1, or null"),
        ({"path": "x", "subset": "en"}, "are for corpus=hub"),
        ({"path": "x", "eos": 5}, r"corpus\.eos is for corpus=tokens"),
        ({"source": "tokens", "path": "x.bin"}, r"corpus\.eos=50256"),
        ({"source": "tokens", "path": "x.npy", "bos_id": 2**31}, "bos_id=2147483648 must be a token id"),
        ({"source": "tokens", "path": "x.npy"}, "holds token ids"),
        *(
            ({"path": "x", "name": name}, "names a folder")
            for name in ("../../escaped", "/x", ".", "..", ".x", "", "a/b", "a\0b", "a\nb", "x" * 300, "-rf")
        ),
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
    for number, name in enumerate(("x.jsonl", "x.jsonl.zst", "list.json", "x.parquet")):
        (tmp_path / f"{number}{name}").write_bytes(FILES[name])
    (tmp_path / "9.jsonl").write_text('{"text": " "}\n\n{"text": "six"}')
    config = CorpusConfig("mine", source, path=str(tmp_path), distinct=distinct)
    assert list(documents(config, start)) == list(documents(config))[start:]


@pytest.mark.parametrize("at_a_time", [1, 3, 7, 1000])
def test_a_text_decoded_in_parts_is_the_text_or_names_its_first_bad_byte(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "DECODED", at_a_time)
    raw = "a, é, 語, 🙂, end".encode()
    assert rows._decoded(raw, "x is") == raw.decode() and rows._decoded(b"", "x is") == ""
    for cut in range(len(raw)):
        for damaged in (raw[:cut], raw[:cut] + b"\xff" + raw[cut + 1 :]):
            try:
                expected = damaged.decode()
            except UnicodeDecodeError as mistake:
                with pytest.raises(UserError, match=rf"x is not UTF-8 text \(byte {mistake.start}\)"):
                    rows._decoded(damaged, "x is")
            else:
                assert rows._decoded(damaged, "x is") == expected
