"""Residual streams in memory or in files, killed and resumed: the same bytes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_census import counts, taken

from analyze import machine as budgets
from analyze.census import layer_loop as counting
from analyze.census import take as census_module
from analyze.firing import mask as firings
from analyze.forward.layer_by_layer import ResidualStream
from analyze.forward.residual_store import SLAB, slabs_for
from analyze.forward.weight_prefetch import Weights
from analyze.machine import disk_taken
from analyze.storage.scratch import Scratch
from device import CPU
from errors import UserError
from models.disk_reads import Room
from models.open_checkpoint import open_checkpoint

WAYS: dict[str, dict[str, Any]] = {
    "files": {"residuals": "file"},
    "files on a scratch disk": {"residuals": "file", "scratch": True, "bits": "file"},
    "counted beside the walk": {"rooms": 2},
}
IDS = tiny.random_ids(sequences=23)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder with a model, and the bytes of its census."""
    folder = tmp_path_factory.mktemp("walk")
    tiny.saved(folder / "model", tiny.random_model())
    return folder, counts(taken(folder, IDS, "whole/out"))


def census(way: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A census taken in this way, its scratch disk in `folder`."""
    settings = dict(WAYS[way])
    if settings.pop("scratch", False):
        settings["scratch"] = str(folder / "scratch")
    if rooms := settings.pop("rooms", None):
        planned = census_module.made_plan
        monkeypatch.setattr(census_module, "made_plan", lambda *arguments: replace(planned(*arguments), rooms=rooms))
    return taken(folder, IDS, "out/out", **settings)


@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_walked_the_bytes_are_the_same(
    way: str, place: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = place
    (tmp_path / "model").symlink_to(folder / "model")
    out = census(way, tmp_path, monkeypatch)
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


KILLS = {  # way, function, which call of it, layers that are walked again
    "files: first layer recorded": ("files on a scratch disk", "record", 1, [0, 1, 2]),
    "files: second layer recorded": ("files on a scratch disk", "record", 2, [1, 2]),
    "files: second layer stored": ("files on a scratch disk", "store", 2, [1, 2]),
    "files: last layer stored": ("files on a scratch disk", "store", 3, [2]),
    "bits in memory, second layer recorded": ("files", "record", 2, [1, 2]),
    "bits in memory, last layer counted": ("files", "count", 3, [2]),
}


@pytest.mark.parametrize(("way", "what", "number", "walked"), KILLS.values(), ids=KILLS)
def test_a_kill_and_the_same_command_again_are_the_same_bytes(
    way: str, what: str, number: int, walked: list[int], place: tuple[Path, dict[str, bytes]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, whole = place
    (tmp_path / "model").symlink_to(folder / "model")
    with monkeypatch.context() as killer:
        killer.setattr(counting, what, killed_at(number, getattr(counting, what)))
        with pytest.raises(Killed):
            census(way, tmp_path, monkeypatch)
    again, through = [], ResidualStream.through
    monkeypatch.setattr(ResidualStream, "through", lambda *a, **k: again.append(a[2]) or through(*a, **k))  # type: ignore[func-returns-value]
    assert counts(census(way, tmp_path, monkeypatch)) == whole
    assert again == walked, "what is finished is not walked again"


def test_what_a_killed_program_left_is_room_for_the_one_that_goes_on(
    place: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = place
    (tmp_path / "model").symlink_to(folder / "model")
    made, plans = census_module.made_plan, []
    monkeypatch.setattr(census_module, "made_plan", lambda *arguments: plans.append(made(*arguments)) or plans[-1])  # type: ignore[func-returns-value]
    with monkeypatch.context() as killer:
        killer.setattr(counting, "record", killed_at(2, firings.record))
        with pytest.raises(Killed):
            census("files", tmp_path, monkeypatch)
    left = tmp_path / "out" / "out" / "scratch"
    assert disk_taken(left) > 0
    monkeypatch.setattr(budgets, "free_disk", lambda _: plans[0].needs.disk - disk_taken(left))
    assert counts(census("files", tmp_path, monkeypatch)) == whole


NOT_GONE_ON_WITH = {  # what a killed program was about to call, which call of it, and the settings of the next one
    "all was counted": (Scratch, "remove", 2, {"residuals": "file"}),
    "another plan, which keeps nothing": (counting, "record", 2, {"residuals": "memory"}),
}


@pytest.mark.parametrize(("of", "what", "number", "again"), NOT_GONE_ON_WITH.values(), ids=NOT_GONE_ON_WITH)
def test_what_nobody_goes_on_with_is_deleted(
    of: Any, what: str, number: int, again: dict[str, Any], place: tuple[Path, dict[str, bytes]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, whole = place
    (tmp_path / "model").symlink_to(folder / "model")
    with monkeypatch.context() as killer:
        killer.setattr(of, what, killed_at(number, getattr(of, what)))
        with pytest.raises(Killed):
            taken(tmp_path, IDS, "out/out", residuals="file")
    assert (tmp_path / "out" / "out" / "scratch").exists()
    assert counts(taken(tmp_path, IDS, "out/out", **again)) == whole
    assert not (tmp_path / "out" / "out" / "scratch").exists()


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_read_ahead_is_the_layer(slots: int, dtype: torch.dtype, place: tuple[Path, dict[str, bytes]]) -> None:
    checkpoint = open_checkpoint(str(place[0] / "model"))
    weights = Weights(checkpoint, dtype, CPU(), slots)
    weights.room = Room(100)  # cast in many pieces
    found = list(range(3))
    for layer, block in zip(found, weights.blocks(range(3)), strict=True):
        expected = checkpoint.layer_tensors(layer)
        assert all(torch.equal(tensor, expected[name].read().to(dtype)) for name, tensor in block.state_dict().items())
        assert block.fc1.weight.dtype == dtype


def test_a_file_that_ends_while_it_is_read_ahead_stops_the_walk(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "model", tiny.random_model())
    checkpoint = open_checkpoint(str(tmp_path / "model"))
    file = checkpoint.files[0]
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match="has become shorter"):
        list(Weights(checkpoint, torch.float32, CPU()).blocks(range(3)))


@pytest.mark.parametrize(("batches", "size"), [(1, 100), (7, 151_000_000), (10, 151_000_000), (611, 301_989_888), (5, 5 << 30)])
def test_slabs_are_powers_of_two_that_hold_every_micro_batch_and_little_more(batches: int, size: int) -> None:
    slabs = slabs_for(batches, size)
    assert sum(held for _, held in slabs) == batches
    assert all(slab & (slab - 1) == 0 and 0 < held * size <= slab for slab, held in slabs)
    assert len(slabs) < 3 or sum(slab for slab, _ in slabs[:-2]) < 1.2 * sum(held for _, held in slabs[:-2]) * size or size > SLAB


def test_a_full_disk_is_a_sentence_and_nothing_half_written(
    place: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "model").symlink_to(place[0] / "model")
    for way in ("files", "files on a scratch disk"):
        with monkeypatch.context() as disk:
            disk.setattr("os.posix_fallocate", full)
            with pytest.raises(UserError, match=r"No space left on device.*the same command goes on"):
                census(way, tmp_path, monkeypatch)
        assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.bin"))
    assert counts(taken(tmp_path, IDS, "out/out")) == place[1]
