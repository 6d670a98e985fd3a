"""Files whose checksum is compared: an object of JSON by what it says, any other by its bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from checksums import CHECKSUM, file_checksum, read_object, write_object

SAID: dict[str, Any] = {"b": [1, 2.5, None, True], "a": {"é": float("nan"), "x": "y"}, "n": 10**20}


def test_an_object_comes_back_as_it_was_written_however_it_is_laid_out(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_object(file, SAID)
    whole = read_object(file)
    assert json.dumps({name: value for name, value in whole.items() if name != CHECKSUM}) == json.dumps(SAID)
    write_object(file, whole)  # with its checksum: that of the others is made anew
    assert json.dumps(read_object(file)) == json.dumps(whole)
    file.write_text(json.dumps(dict(reversed(whole.items())), indent=7, ensure_ascii=False))
    assert read_object(file).keys() == whole.keys()


def test_an_object_that_says_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_object(file, SAID)
    whole = json.loads(file.read_text())
    others: list[Any] = [whole | {"n": 10**20 + 1}, whole | {"more": 1}, {**SAID, CHECKSUM: None}, [], 7]
    others += [{name: value for name, value in whole.items() if name != left_out} for left_out in whole]
    for other in others:
        file.write_text(json.dumps(other))
        with pytest.raises(ValueError, match=r"its checksum is another|holds no JSON object"):
            read_object(file)
    for text in ("", "{", "[" * 10**5, "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"."):
            read_object(file)
    file.write_text('{"a": 1}')
    assert read_object(file, without=True) == {"a": 1}


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"")
    empty = file_checksum(file)
    file.write_bytes(b"one")
    one = file_checksum(file)
    (tmp_path / "y").write_bytes(b"two")
    (tmp_path / "y").replace(file)
    assert len({empty, one, file_checksum(file)}) == 3
