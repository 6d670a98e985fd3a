"""One pass, several, residual streams in memory or in files, killed and resumed: the same bytes; and what a plan says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_census import counts, taken

from analyze import counting

WAYS: dict[str, dict[str, Any]] = {
    "three passes": {"passes": 3},
    "three passes on a scratch disk": {"passes": 3, "scratch": True},
    "files": {"residuals": "file"},
    "files on a scratch disk": {"residuals": "file", "scratch": True, "bits": "file"},
    "one slot for weights": {},
}
IDS = tiny.random_ids(sequences=23)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder with a model, and the bytes of its census."""
    folder = tmp_path_factory.mktemp("walk")
    tiny.saved(folder / "model", tiny.random_model())
    return folder, counts(taken(folder, IDS, "whole/out"))


def settings(way: str, folder: Path) -> dict[str, Any]:
    """The settings of a way, its scratch disk in `folder`."""
    return WAYS[way] | ({"scratch": str(folder / "scratch")} if WAYS[way].get("scratch") else {})


@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_walked_the_bytes_are_the_same(way: str, place: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    folder, whole = place
    (tmp_path / "model").symlink_to(folder / "model")
    out = taken(tmp_path, IDS, "out/out", **settings(way, tmp_path))
    assert counts(out) == whole
    assert not (out / "scratch").exists() and not list(tmp_path.glob("scratch/*")), "nothing is left"


class Killed(BaseException):
    """What a kill is to a program that catches everything."""


def killed_at(number: int, what: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but for its call of that number, which is a kill."""
    calls = []

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return what(*arguments, **named)

    return called


MOMENTS = [("record", 1), ("record", 2), ("record", 3), ("store", 2), ("store", 3)]


@pytest.mark.parametrize("way", ["three passes", "files"])
@pytest.mark.parametrize(("what", "number"), MOMENTS)
def test_a_kill_and_the_same_command_again_are_the_same_bytes(
    way: str, what: str, number: int, place: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = place
    (tmp_path / "model").symlink_to(folder / "model")
    with monkeypatch.context() as killer:
        killer.setattr(counting, what, killed_at(number, getattr(counting, what)))
        with pytest.raises(Killed):
            taken(tmp_path, IDS, "out/out", **settings(way, tmp_path))
    walked = []
    through = counting.ResidualStream.through
    monkeypatch.setattr(counting.ResidualStream, "through", lambda *a, **k: walked.append(a[2]) or through(*a, **k))
    assert counts(taken(tmp_path, IDS, "out/out", **settings(way, tmp_path))) == whole
    if way == "files":
        assert walked == list(range(number - 1, 3)), "only the layer in work is lost"
