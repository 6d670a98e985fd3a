"""Damage to a token store, finished or not, ends in a sentence that names the file; no other tokens come of it."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checksums
from corpora import build as making
from corpora.config import CorpusConfig
from corpora.journal import Journal
from corpora.prepare import token_store
from corpora.store import SPLITS, TokenStore, fingerprint
from errors import UserError

HERE = Path(__file__).parents[1]


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusConfig:
    """Small texts that a preparation marks as done many times."""
    texts = [f"{i} apples are not {i + 1} apples\n" * (1 + i % 5) for i in range(200)]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    settings: dict[str, Any] = {"vocab_size": 300, "validation_share": 0.2, "mark_bytes": 2000, "workers": 1}
    return CorpusConfig("small", "files", path=str(tmp_path / "x.jsonl"), store=str(tmp_path / "stores"), **settings)


def read_all(corpus: CorpusConfig) -> list[bytes]:
    """What a run or a census takes from the store."""
    store = token_store(corpus)
    splits = [store.split(name) for name in SPLITS]
    said = json.dumps([store.bos_id, store.vocab_size, store.domain_names]).encode()
    return [store.tokenizer_file.read_bytes(), said, *(part.read(0, part.n_tokens).tobytes() for part in splits)]


def damages(content: bytes, rng: np.random.Generator, n: int) -> list[bytes]:
    """Flipped bits all over, a cut, more bytes, another value."""
    places = [0, len(content) - 1, *rng.integers(0, len(content), n)]
    flipped = [content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :] for at in places]
    return [*flipped, content[: len(content) // 2], content[:-1], content + b"\0", b""]


def test_damage_to_any_file_of_a_store_is_named(corpus: CorpusConfig) -> None:
    good = read_all(corpus)
    folder = token_store(corpus).folder
    rng = np.random.default_rng(0)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    assert len(files) == 8
    for file in files:
        content = file.read_bytes()
        for damage in damages(content, rng, 12):
            file.write_bytes(damage)
            if file.name == "manifest.json" and damage.strip() == content.strip():
                continue
            with pytest.raises(UserError, match=f"{file}|{folder} is not a token store|of format") as mistake:
                read_all(corpus)
            assert "scripts/prepare_corpus.py" in str(mistake.value) and str(folder) in str(mistake.value)
        file.write_bytes(content)
    assert read_all(corpus) == good


def test_a_manifest_of_other_kinds_of_values_is_damaged(corpus: CorpusConfig) -> None:
    """Keys that are gone, null, a list, a number, a word: whatever a program that rewrites JSON can do."""
    store = token_store(corpus)
    file = store.folder / "manifest.json"

    def paths(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [(*at, key) for key, _ in inner] + [path for key, part in inner for path in paths(part, (*at, key))]

    for path in paths(store.manifest):
        changes: tuple[object, ...] = ("gone", None, [], 7, "word", {})
        for change in changes:
            manifest = json.loads(json.dumps(store.manifest))
            *outer, last = path
            at = manifest
            for key in outer:
                at = at[key]
            if change == "gone":
                del at[last]
            elif at[last] == change:
                continue
            else:
                at[last] = change
            file.write_text(json.dumps(manifest))
            if path == ("checksum",) and change == "gone":
                assert TokenStore.open(store.folder).fingerprint == store.fingerprint, "stores made before there was one are read"
                continue
            with pytest.raises(UserError, match=r"damaged|of format"):
                TokenStore.open(store.folder)
    for text in ("[]", "7", "null", "[" * 10**5, '{"format": 1}', "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"damaged|of format|not a token store"):
            TokenStore.open(store.folder)


def test_a_forged_fingerprint_does_not_help(corpus: CorpusConfig) -> None:
    """A manifest whose content was changed together with its fingerprint is caught by the checksum of all."""
    store = token_store(corpus)
    manifest = store.manifest | {"bos_id": 5}
    (store.folder / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": fingerprint(manifest)}))
    with pytest.raises(UserError, match="its checksum is another"):
        TokenStore.open(store.folder)


class Stopped(Exception):
    """What a test stops a preparation with."""


def stopped(corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch, marks: int) -> Path:
    """The unfinished store of a preparation that ended after so many marks."""
    write, done = Journal.write, []

    def written(journal: Journal, folder: Path) -> None:
        write(journal, folder)
        done.append(folder)
        if len(done) == marks:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", written)
        with pytest.raises(Stopped):
            token_store(corpus, shard_tokens=700)
    return done[0]


def test_damage_to_an_unfinished_store_is_not_sealed(
    corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever byte it is: of a finished shard, of one that grows, of lengths and domains, of the tokenizer, of the journal."""
    partial = stopped(corpus, monkeypatch, 3)
    kept = tmp_path / "kept"
    shutil.copytree(partial, kept)
    rng = np.random.default_rng(1)
    names = [file.relative_to(kept) for file in sorted(kept.rglob("*")) if file.is_file()]
    assert {name.name for name in names} >= {"tokens_00000.bin", "tokens_00001.bin", "lengths.growing", "journal.json"}
    for name in names:
        for damage in damages((kept / name).read_bytes(), rng, 3):
            shutil.rmtree(partial)
            shutil.copytree(kept, partial)
            (partial / name).write_bytes(damage)
            if name.suffix in (".bin", ".growing") and damage.startswith((kept / name).read_bytes()):
                continue  # what stands beyond a mark is written anew
            with pytest.raises(UserError, match=f"{partial / name}|{partial}.*remove|tokenizer") as mistake:
                token_store(corpus, shard_tokens=700)
            assert name.name in str(mistake.value) and str(partial) in str(mistake.value)
    shutil.rmtree(partial)
    shutil.copytree(kept, partial)
    made = token_store(corpus, shard_tokens=700)
    corpus.store = str(tmp_path / "elsewhere")
    whole = token_store(corpus, shard_tokens=700)
    files = [file.relative_to(made.folder) for file in made.folder.rglob("*") if file.is_file()]
    assert all((made.folder / file).read_bytes() == (whole.folder / file).read_bytes() for file in files)


def test_a_file_is_compared_once_as_long_as_it_is_the_same(corpus: CorpusConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    store = token_store(corpus)
    read: list[Path] = []
    hashed = checksums.file_sha256

    def noted(file: Path) -> str:
        read.append(file)
        return hashed(file)

    monkeypatch.setattr(checksums, "file_sha256", noted)
    store.split("train")
    n = len(read)
    store.split("train")
    assert n >= 3 and len(read) == n
    os.utime(store.split("train").shard_files[0])
    store.split("train")
    assert len(read) == n + 1


def raises(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_store_that_cannot_be_written_is_said(corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for store, why in (
        (tmp_path / "file", "File exists"),
        (tmp_path / "file" / "below", "Not a directory"),
        (Path("/proc/x"), "No such"),
    ):
        corpus.store = str(store)
        with pytest.raises(UserError, match=f"{store} cannot be written .{why}.*corpus.store=FOLDER"):
            token_store(corpus)
    corpus.store = str(tmp_path / "stores")
    monkeypatch.setattr(making, "write_text", raises(errno.EACCES))
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        token_store(corpus)


def test_a_store_older_than_a_setting_is_found(corpus: CorpusConfig) -> None:
    """Its manifest does not say what text, subset and part were, and has no checksum of all."""
    store = token_store(corpus)
    old = {key: value for key, value in store.manifest.items() if key != "checksum"}
    old["source"] = {key: value for key, value in old["source"].items() if key not in ("text", "subset", "part")}
    folder = store.folder.rename(store.folder.with_name("small-0ld"))
    (folder / "manifest.json").write_text(json.dumps(old))
    assert token_store(corpus).folder == folder
