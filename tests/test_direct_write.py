"""Files written past the system's cache are safetensors files like any other, whatever the disk allows."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from analyze.storage import direct_write
from analyze.storage.direct_write import save_arrays

RNG = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "bytes": RNG.integers(0, 255, 5000, dtype=np.uint8),
    "wide": RNG.integers(-9, 9, (3, 1001)),
    "floats": RNG.normal(size=(7, 3)).astype(np.float32),
    "flags": RNG.integers(0, 2, 33).astype(bool),
    "none": np.zeros((0, 4), np.int16),
    "number": np.array(7, np.uint16),
}


@pytest.mark.parametrize("piece", [4096, 8192, 1 << 24])
@pytest.mark.parametrize("way", ["past the cache", "through it", "a file system that refuses"])
def test_what_is_written_is_read(way: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_write, "PIECE", piece)
    direct_write._buffer.cache_clear()
    if way == "through it":
        monkeypatch.setattr(direct_write, "DIRECTLY", 0)
    if way == "a file system that refuses":
        plain = direct_write._write

        def refused(file: Path, parts: list[np.ndarray], flags: int) -> None:
            if flags:
                raise OSError(22, "Invalid argument")
            plain(file, parts, flags)

        monkeypatch.setattr(direct_write, "_write", refused)
    save_arrays(ARRAYS, tmp_path / "file", {"made of": "é"})
    found = load_file(tmp_path / "file")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name
    direct_write._buffer.cache_clear()


def test_a_full_disk_is_not_taken_for_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(direct_write, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        save_arrays(ARRAYS, tmp_path / "file")
