"""A census folder that has lost something: what is said of it, and what its command makes anew without counting again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console
from safetensors.numpy import load_file, save_file
from test_census import counts, taken

from analyze.compare_runs import censuses_under
from analyze.forward.residual_store import StreamFiles
from analyze.recompute import redraw
from analyze.storage.formats import read_meta, write_meta
from analyze.tables.census import open_census
from checksums import Damaged
from errors import UserError

QUIET = Console(quiet=True)
IDS = tiny.random_ids()
WITHOUT_WEIGHTS = ("analyze.forward.weight_prefetch.Weights.blocks", "models.checkpoint.Checkpoint.ends")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and its census in `out`."""
    room = tmp_path_factory.mktemp("made")
    tiny.saved(room / "model", tiny.random_model())
    taken(room, IDS)
    return room


@pytest.fixture
def room(made: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(made, tmp_path / "room"))


def lost(folder: Path) -> None:
    (folder / "meta.json").unlink()


def emptied(folder: Path) -> None:
    (folder / "meta.json").write_text("")


def other(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    meta["identity"]["dtype"] = "float64"
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize("damage", [lost, emptied, other])
def test_layers_are_gone_on_with_whatever_became_of_meta_json(
    damage: Callable[[Path], None], room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, meta = counts(room / "out"), read_meta(room / "out")
    damage(room / "out")
    with pytest.raises(
        UserError, match=rf"{room / 'out'}.* meta\.json is missing|meta\.json is damaged .* writes it anew and keeps"
    ):
        open_census(room / "out")
    with pytest.raises(
        UserError, match=r"layer_000\.safetensors is of a census with another micro-batch \(there \[4, 24\], here"
    ):
        taken(room, IDS, micro=3)
    for weights in WITHOUT_WEIGHTS:
        monkeypatch.setattr(weights, None)  # nothing is counted again
    taken(room, IDS)
    assert counts(room / "out") == before
    assert {key: meta[key] for key in ("files", "identity", "counted")}.items() <= read_meta(room / "out").items()


def test_layers_that_do_not_say_whose_they_are_are_not_taken_over(room: Path) -> None:
    layer = room / "out" / "layers" / "layer_001.safetensors"
    save_file(load_file(layer), layer)
    open_census(room / "out")
    lost(room / "out")
    with pytest.raises(
        UserError, match=r"layer_001\.safetensors does not say of which census it is.*meta\.json is missing or damaged"
    ):
        taken(room, IDS)
    shutil.rmtree(room / "out" / "layers")
    shutil.rmtree(room / "out" / "writes")
    with pytest.raises(UserError, match="is not empty and is no census"):
        taken(room, IDS)


def test_a_layer_in_the_place_of_another_is_named(room: Path) -> None:
    first, second = (room / "out" / "layers" / f"layer_00{layer}.safetensors" for layer in (0, 1))
    shutil.copyfile(second, first)
    with pytest.raises(Damaged, match=rf"{first} is damaged \(it holds layer 1\): delete it"):
        redraw(room / "out", {}, None, QUIET)
    with pytest.raises(Damaged, match=r"it holds layer 1"):
        taken(room, IDS)
    first.unlink()
    taken(room, IDS)
    tiny.saved(room / "model", tiny.random_model(seed=5))
    theirs = taken(room, IDS, "other")
    shutil.copyfile(theirs / "layers" / first.name, first)
    with pytest.raises(UserError, match=rf"{first} is of a census with another checkpoint"):
        redraw(room / "out", {}, None, QUIET)


@pytest.mark.parametrize("name", ["neurons", "layers"])
@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_draw_makes_a_table_anew(content: bytes | None, name: str, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = room / "out" / f"{name}.parquet"
    before = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        UserError, match=rf"{file} is (missing|damaged, or was changed.*): python analyze/draw\.py out={room}/out makes"
    ):
        open_census(room / "out")
    monkeypatch.setattr("analyze.recompute.draw", lambda out, _: (open_census(out), []))
    redraw(room / "out", {}, None, QUIET)
    assert file.read_bytes() == before


def test_tables_without_checksums_of_older_formats_end_in_a_sentence_too(room: Path) -> None:
    meta = {name: value for name, value in read_meta(room / "out").items() if name not in ("files", "counted")}
    write_meta(room / "out", meta | {"format": 2})
    assert open_census(room / "out").neurons.height == 3 * 44
    file = room / "out" / "neurons.parquet"
    content = file.read_bytes()
    for damage in (b"", content[:100], content[:-20] + bytes(20), content[: len(content) // 2]):
        file.write_bytes(damage)
        with pytest.raises(Damaged, match=rf"{file} is damaged: python analyze/draw\.py"):
            open_census(room / "out")


def test_a_milestone_that_lost_its_meta_json_is_not_left_out(room: Path, made: Path) -> None:
    for step in (1, 2):
        shutil.copytree(made / "out", room / "census" / f"step_{step}")
    assert len(censuses_under(room / "census")) == 2
    lost(room / "census" / "step_1")
    with pytest.raises(UserError, match=r"step_1 .*meta\.json is missing"):
        censuses_under(room / "census")


def test_a_damaged_stream_of_a_killed_program_is_named(tmp_path: Path) -> None:
    shape = (3, (2, 4, 8), torch.bfloat16, tmp_path)
    files = StreamFiles(*shape)
    streams = [torch.randn(2, 4, 8).bfloat16() for _ in range(3)]
    for batch, stream in enumerate(streams):
        files.write(batch, stream)
    files.finish(4)
    assert files.reading == 1 and files.found == []
    again = StreamFiles(*shape)
    assert again.finished == 4 and all(torch.equal(again.read(batch), stream) for batch, stream in enumerate(streams))
    content = bytearray((tmp_path / "residuals_b.bin").read_bytes())
    content[200] ^= 1
    (tmp_path / "residuals_b.bin").write_bytes(content)
    again = StreamFiles(*shape)
    assert torch.equal(again.read(0), streams[0])
    with pytest.raises(Damaged, match=rf"residuals_b\.bin is damaged: remove {tmp_path}, and the same command goes on"):
        again.read(1)
    said = json.loads((tmp_path / "residuals.json").read_text())
    (tmp_path / "residuals.json").write_text(json.dumps(said | {"layer": 3}))
    assert StreamFiles(*shape).finished is None  # embedded anew


def test_a_table_of_a_live_census_is_made_anew_by_draw_and_its_counts_by_nothing(room: Path, made: Path) -> None:
    live = room / "live" / "step_000000001"
    shutil.copytree(made / "out", live)
    emptied(live)
    with pytest.raises(Damaged, match=rf"meta\.json is damaged .*: remove {live}; the run's other censuses stand without it"):
        open_census(live)
