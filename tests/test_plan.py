"""A plan is arithmetic: known answers for OPT's sizes, what it changes first where room is short, and what it says where none fits."""

from dataclasses import replace
from pathlib import Path

import pytest

from analyze import budgets
from analyze.budgets import Budgets, free_memory
from analyze.plan import RESIDUALS, Plan, Shape
from analyze.planning import candidates, plan
from errors import UserError
from models.config import OPTConfig

GB = 1_000_000_000
TOKENS = 2441 * 2048  # the most whole sequences of 5M
OPT_66B = OPTConfig(layers=64, width=9216, heads=72, neurons=36864, vocab_size=50272)
OPT_125M = OPTConfig(vocab_size=50272)
LARGE = Shape(OPT_66B, sequences=2441, positions=2048, micro=4, itemsize=2, walked=64, counted=64, gpu=True)
SMALL = Shape(OPT_125M, sequences=2441, positions=2048, micro=4, itemsize=4, walked=12, counted=12, gpu=False)


def made(shape: Shape, gpu: float, memory: float, disk: float, **wanted: object) -> Plan:
    budgets = Budgets(int(gpu * GB), int(memory * GB), int(disk * GB))
    return plan(shape, budgets, budgets, **wanted)  # type: ignore[arg-type]


def sizes(found: Plan) -> dict[str, tuple[str, int]]:
    return {use.what: (use.where, use.size) for use in found.uses()}


def test_66b_on_141_gb_holds_everything_but_bits_on_the_gpu() -> None:
    found = made(LARGE, 141, 128, 500)
    assert (found.residuals, found.passes, found.bits, found.rooms, found.slots) == ("memory", 1, "memory", 2, 2)
    padded = 2444 * 2048  # 611 micro-batches of 4 sequences
    layer = 2 * (12 * 9216**2 + 9 * 9216 + 36864)
    assert sizes(found)["residual streams"] == ("gpu", padded * 9216 * 2)  # 92.3 GB
    assert sizes(found)["weights, 2 of 64 layers at once"] == ("gpu", 2 * layer)  # 4.1 GB
    assert sizes(found)["the next layer, pinned"] == ("memory", layer)
    assert sizes(found)["firing bits of 2 layers"] == ("memory", 2 * padded * 36864 // 8)  # 46.1 GB
    assert found.needs.gpu < 102 * GB and found.needs.memory < 56 * GB
    assert LARGE.operations == padded * 64 * (24 * 9216**2 + 2 * 9216 * 2048)


@pytest.mark.parametrize(
    ("gpu", "memory", "disk", "expected"),
    [
        (141, 40, 500, ("memory", 1, "memory", 1)),  # no room to count one layer beside the next
        (141, 20, 500, ("memory", 1, "file", 1)),  # nor for bits
        (80, 180, 500, ("pinned", 1, "memory", 2)),
        (80, 60, 2000, ("memory", 2, "file", 1)),  # the weights twice, the bits of all layers on disk
        (80, 60, 500, ("file", 1, "memory", 1)),  # no room for those
    ],
)
def test_what_a_gpu_has_no_room_for_goes_to_the_next_best_place(
    gpu: float, memory: float, disk: float, expected: tuple[object, ...]
) -> None:
    found = made(LARGE, gpu, memory, disk)
    assert (found.residuals, found.passes, found.bits, found.rooms) == expected


def test_on_a_cpu_residual_streams_go_to_files_before_there_are_passes() -> None:
    assert made(SMALL, 0, 21, 75).residuals == "memory"
    found = made(SMALL, 0, 8, 75)
    assert (found.residuals, found.passes) == ("file", 1) and found.kept
    assert sizes(found)["residual streams"] == ("disk", 2 * 2444 * 2048 * 768 * 4)
    found = made(SMALL, 0, 9, 30)
    assert (found.residuals, found.bits) == ("memory", "file") and found.passes > 1


def test_passes_are_whole_micro_batches_and_hold_each_once() -> None:
    for passes in (1, 3, 64):
        chunks = replace(made(LARGE, 141, 128, 500), passes=passes).chunks()
        assert [batch for chunk in chunks for batch in chunk] == list(range(611))
        assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


def test_what_is_asked_for_is_what_is_planned() -> None:
    for where in RESIDUALS:
        assert made(LARGE, 141, 256, 500, residuals=where).residuals == where
    assert made(LARGE, 141, 256, 2000, passes=3).passes == 3
    assert made(SMALL, 0, 21, 75, bits="file").bits == "file"
    with pytest.raises(UserError, match="do not go together"):
        made(SMALL, 0, 21, 75, residuals="pinned")


@pytest.mark.parametrize(
    ("shape", "gpu", "memory", "disk"),
    [(SMALL, 0, 5, 5), (SMALL, 0, 1.0, 20), (LARGE, 3, 256, 2000), (LARGE, 8, 20, 100), (SMALL, 0, 0.6, 75)],
)
def test_the_change_that_a_refusal_names_makes_it_fit_and_a_lesser_one_does_not(
    shape: Shape, gpu: float, memory: float, disk: float
) -> None:
    budgets, plenty = Budgets(int(gpu * GB), int(memory * GB), int(disk * GB)), Budgets(80 * GB, 512 * GB, int(disk * GB))
    with pytest.raises(UserError) as refused:
        plan(shape, budgets, plenty)
    said = str(refused.value).rpartition(": ")[2].rstrip(".")
    name, _, value = said.partition("=")
    changed = {"host_memory": "memory", "gpu_memory": "gpu"}
    if name in changed:
        for more, fits in ((0.0, True), (-0.02, False)):
            allowed = replace(budgets, **{changed[name]: int((float(value) + more) * GB)})
            assert any(candidate.fits(allowed) for candidate in candidates(shape)) is fits
    elif name in ("micro", "tokens"):
        less = replace(shape, micro=1) if name == "micro" else replace(shape, sequences=int(value) // shape.positions)
        assert any(candidate.fits(budgets) for candidate in candidates(less))
        one_more = replace(less, sequences=less.sequences + 1)
        assert name == "micro" or not any(candidate.fits(budgets) for candidate in candidates(one_more))
    else:
        assert said.startswith("make ") and "of room in scratch=" in said


def test_a_refusal_does_not_ask_for_more_than_the_machine_has() -> None:
    budgets = Budgets(0, 1 * GB, 1 * GB)
    with pytest.raises(UserError, match=r"0\.94 GB of memory|tokens=|No single setting") as refused:
        plan(replace(SMALL, model=OPT_66B), budgets, budgets)
    assert "host_memory=" not in str(refused.value)


def test_the_page_cache_of_a_container_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "CGROUP", tmp_path)
    for name, text in (
        ("max", "900000"),
        ("current", "800000"),
        ("stat", "anon 90000\nactive_file 300000\ninactive_file 400000\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory() == 800_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 800_000
