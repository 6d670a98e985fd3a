"""A plan is arithmetic: known answers for OPT's sizes, what it changes first where room is short, and what it says where none fits."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from analyze.census.bounds import OF_PEAK, Load, busy, layer_seconds, loads, waiting
from analyze.census.memory_plan import RESIDUALS, Plan, Shape
from analyze.census.plan_search import candidates, first_that_fits
from analyze.census.plan_table import plan_text, time_text
from analyze.forward.layer_by_layer import ResidualStream
from analyze.forward.residual_store import InMemory, slabs_for
from analyze.forward.weight_prefetch import layer_bytes
from analyze.machine import Budgets
from device import CPU, CUDA, peak_flops
from errors import UserError
from models.config import OPTConfig
from models.opt import Block
from models.positions import _kept_alibi

GB = 1_000_000_000
TOKENS = 2441 * 2048  # the most whole sequences of 5M
SIZES = {
    "6.7b": OPTConfig(layers=32, width=4096, heads=32, neurons=16384, vocab_size=50272),
    "30b": OPTConfig(layers=48, width=7168, heads=56, neurons=28672, vocab_size=50272),
    "66b": OPTConfig(layers=64, width=9216, heads=72, neurons=36864, vocab_size=50272),
}
HALF = torch.float16
LARGE = Shape(SIZES["66b"], sequences=2441, positions=2048, micro=8, dtype=HALF, walked=64, counted=64, gpu=True, triton=True)
SMALL = Shape(OPTConfig(vocab_size=50272), 2441, positions=2048, micro=4, dtype=torch.float32, walked=12, counted=12)
PADDED = 306 * 8 * 2048  # tokens of 306 micro-batches


def made(shape: Shape, gpu: float, memory: float, disk: float, **wanted: str) -> Plan:
    return first_that_fits(shape, Budgets(int(gpu * GB), int(memory * GB), int(disk * GB)), **wanted)


def sizes(found: Plan) -> dict[str, tuple[str, int]]:
    return {use.what: (use.where, use.size) for use in found.uses()}


def test_66b_on_141_gb_holds_everything_but_bits_on_the_gpu() -> None:
    found = made(LARGE, 141, 128, 500)
    assert (found.residuals, found.bits, found.slots, found.rooms, found.on_gpu) == ("memory", "memory", 2, 2, False)
    layer = 2 * (12 * 9216**2 + 9 * 9216 + 36864)  # every tensor is a multiple of 256 bytes
    assert sizes(found)["residual streams"] == ("gpu", PADDED * 9216 * 2)  # 92.4 GB
    assert sizes(found)["weights, 2 of 64 layers at once"] == ("gpu", 2 * layer)  # 4.1 GB
    assert sizes(found)["the next layer, pinned"] == ("memory", 1 << 31)
    assert sizes(found)["firing bits of 2 layers"] == ("memory", 2 * PADDED * 36864 // 8)  # 46.2 GB
    assert found.needs.gpu < 104 * GB and found.needs.memory < 58 * GB
    assert LARGE.operations == PADDED * 64 * (24 * 9216**2 + 2 * 9216 * 2048)


@pytest.mark.parametrize(
    ("gpu", "memory", "disk", "expected"),
    [
        (160, 128, 500, ("memory", "memory", 2, True)),  # room for the bits of two layers on the GPU as well
        (141, 40, 500, ("memory", "memory", 1, False)),  # no room to count one layer beside the next
        (141, 20, 500, ("memory", "file", 1, False)),  # nor for bits
        (80, 180, 500, ("pinned", "memory", 2, True)),
        (40, 180, 500, ("pinned", "memory", 2, False)),
        (80, 60, 500, ("file", "memory", 1, False)),
        (80, 20, 500, ("file", "file", 1, False)),
    ],
)
def test_what_a_gpu_has_no_room_for_goes_to_the_next_best_place(
    gpu: float, memory: float, disk: float, expected: tuple[object, ...]
) -> None:
    found = made(LARGE, gpu, memory, disk)
    assert (found.residuals, found.bits, found.rooms, found.on_gpu) == expected


def test_a_gpu_without_triton_keeps_no_bits() -> None:
    assert not any(candidate.on_gpu for candidate in candidates(replace(LARGE, triton=False)))


def test_on_a_cpu_bits_go_to_a_file_before_residual_streams_do() -> None:
    assert made(SMALL, 0, 22, 75).residuals == "memory"
    found = made(SMALL, 0, 18.5, 75)
    assert (found.residuals, found.bits) == ("memory", "file")
    found = made(SMALL, 0, 8, 75)
    assert (found.residuals, found.bits) == ("file", "memory")
    assert sizes(found)["residual streams, before and after a layer"] == ("disk", 2 * 2444 * 2048 * 768 * 4)


def test_what_is_asked_for_is_what_is_planned() -> None:
    for where in RESIDUALS:
        assert made(LARGE, 141, 256, 500, residuals=where).residuals == where
    assert made(SMALL, 0, 22, 75, bits="file").bits == "file"
    with pytest.raises(UserError, match="residuals=pinned is for a GPU"):
        made(SMALL, 0, 22, 75, residuals="pinned")


def test_pinned_memory_is_planned_as_it_is_taken() -> None:
    """In powers of two: a layer of 30b takes 2.15 GB, not 1.23; residual streams whole slabs."""
    found = Plan(replace(LARGE, model=SIZES["30b"]), "pinned", "memory", 2, 2)
    assert (
        layer_bytes((t.shape for t in Block(OPTConfig()).state_dict().values()), HALF) == replace(LARGE, model=OPTConfig()).layer
    )
    assert found.shape.layer < 1.24 * GB and sizes(found)["the next layer, pinned"] == ("memory", 1 << 31)
    assert sizes(found)["2 micro-batches' firing bits on their way, pinned"] == (
        "memory",
        2 * CUDA.pinned_size(16384 * 28672 // 8),
    )
    slabs = sum(size for size, _ in slabs_for(306, 16384 * 7168 * 2))
    assert sizes(found)["residual streams, pinned"] == ("memory", slabs) and slabs > PADDED * 7168 * 2
    pinned = [use for use in found.uses() if "pinned" in use.what]
    assert len(pinned) == 3 and all(use.where == "memory" for use in pinned)


def test_each_of_several_processes_takes_its_part() -> None:
    one, alone = replace(SMALL, processes=4, local=2), Plan(SMALL, "memory", "memory", 2)
    found, of_one = sizes(Plan(one, "memory", "memory", 2)), sizes(alone)
    assert found["residual streams"][1] * 4 == pytest.approx(of_one["residual streams"][1], rel=0.01)
    assert found["firing bits of a layer, of a process' share of neurons"] == ("memory", of_one["firing bits of a layer"][1] // 4)
    assert found["firing bits of a process' micro-batches"][1] * 4 == pytest.approx(of_one["firing bits of a layer"][1], rel=0.01)
    assert found["counts of a process' share of neurons, about"] == ("memory", 2 * SMALL.counts // 4)
    assert found["the corpus in order"] == of_one["the corpus in order"]
    uses = {use.what: use for use in Plan(one, "memory", "memory", 2).uses()}
    assert (
        uses["firing bits of a process' micro-batches"].times == uses["residual streams"].times == 2
        and uses["the corpus in order"].times == 1
    )
    total = sum(use.size * use.times for use in uses.values() if use.where == "memory")
    assert Plan(one, "memory", "memory", 2).needs.memory == total
    on_gpus = Plan(replace(LARGE, processes=8, local=8), "memory", "memory", 2, 2, True)
    assert on_gpus.needs.gpu < Plan(LARGE, "memory", "memory", 2, 2, True).needs.gpu / 4, "each has a GPU of its own"


def test_neurons_that_do_not_divide_are_shared_in_whole_words() -> None:
    shape = replace(SMALL, model=replace(SMALL.model, neurons=129), processes=2)
    assert shape.bits == SMALL.tokens * 16 and replace(shape, processes=1).bits == SMALL.tokens * 24


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that torch holds at once while it works, of those allocated meanwhile."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "relu_squared"])
def test_a_micro_batch_in_work_takes_what_is_planned(activation: str, norm: str, dtype: torch.dtype) -> None:
    """Measured as the walk does it, moved on or, in the last layer, checked only; for few neurons and for many."""
    for positions, (width, neurons) in product(("learned", "rotary", "alibi"), ((256, 1024), (256, 256))):
        model = OPTConfig(1, width, 4, neurons, vocab_size=64, positions=positions, norm=norm, activation=activation)
        _kept_alibi.cache_clear()  # it is made anew, which takes most
        block = Block(model).eval().to(dtype).requires_grad_(False)
        measured = max(allocated(partial(moved_on, block, resting(model, dtype), last)) for last in (False, True))
        planned = Shape(model, 4, 192, 4, dtype, 1, 1).working
        assert measured <= planned <= 1.5 * measured, (positions, neurons, measured, planned)


def resting(model: OPTConfig, dtype: torch.dtype) -> ResidualStream:
    """Residual streams of one micro-batch of 4 sequences of 192 positions, as if embedded."""
    residuals = InMemory(1, (4, 192, model.width), dtype, CPU())
    residuals.room.normal_()
    residuals.finish(-1)
    return ResidualStream(None, torch.zeros(4, 192, dtype=torch.int32), 4, CPU(), residuals=residuals)


def moved_on(block: Block, stream: ResidualStream, last: bool) -> None:
    """Through a block, and what is handed out on the way looked at by nobody."""
    for _ in stream.through(block, 0, last):
        pass


@pytest.mark.parametrize(
    ("shape", "gpu", "memory", "disk"),
    [(SMALL, 0, 5, 5), (SMALL, 0, 1.0, 20), (LARGE, 3, 256, 2000), (LARGE, 8, 20, 100), (SMALL, 0, 0.6, 75)],
)
def test_a_refusal_shows_what_each_layout_needs_and_a_change_that_makes_one_fit(
    shape: Shape, gpu: float, memory: float, disk: float
) -> None:
    allowed = Budgets(int(gpu * GB), int(memory * GB), int(disk * GB))
    with pytest.raises(UserError) as refused:
        first_that_fits(shape, allowed)
    said = str(refused.value).splitlines()
    rows = [line for line in said if line.lstrip().startswith(RESIDUALS)]
    assert 0 < len(rows) <= len(candidates(shape)) and all("*" in row for row in rows)
    fullest = candidates(shape)[0].needs
    assert [float(number) for number in rows[0].replace("*", " ").split()[-3:]] == pytest.approx(
        [size / GB for size in vars(fullest).values()], abs=0.006
    )
    assert [float(number) for number in said[-2].split()[1:]] == pytest.approx([gpu, memory, disk], abs=0.006)
    if said[-1] == "It fits with micro=1.":
        assert any(candidate.fits(allowed) for candidate in candidates(replace(shape, micro=1)))
    elif "tokens=" in said[-1]:
        sequences = int(said[-1].rpartition("=")[2].rstrip(".")) // shape.positions
        for more, fits in ((0, True), (1, False)):
            fewer = replace(shape, sequences=sequences + more)
            assert any(candidate.fits(allowed) for candidate in candidates(fewer)) is fits
    else:
        assert said[-1].startswith("Not even one sequence fits")
        assert not any(candidate.fits(allowed) for candidate in candidates(replace(shape, sequences=1)))


def test_an_option_that_leaves_no_room_is_named() -> None:
    with pytest.raises(UserError, match="With residuals=auto and bits=auto it fits"):
        made(SMALL, 0, 8, 75, residuals="memory")


def test_a_layer_takes_as_long_as_its_busiest_part_and_what_all_wait_for() -> None:
    found = [
        Load("GPU", "arithmetic", 6.0),
        Load("PCIe", "weights", 3.0),
        Load("PCIe", "bits", 5.0),
        Load("2 cores", "counting", 2.0, False),
    ]
    assert busy(found) == {"PCIe": 8.0, "GPU": 6.0, "2 cores": 2.0}
    assert layer_seconds(found) == 10.0 and waiting(found) == pytest.approx(0.4)


def test_what_moves_depends_on_where_it_lies() -> None:
    def seconds(plan: Plan) -> dict[str, float]:
        return {f"{load.of}: {load.what}": load.seconds for load in loads(plan, 16, 1e14)}

    pinned, filed = (seconds(Plan(LARGE, where, "memory", 2)) for where in ("pinned", "file"))
    stream, bits = PADDED * 9216 * 2, PADDED * 36864 // 8
    assert pinned["PCIe: residual streams"] == 2 * stream / 20e9 and filed["disk: residual streams"] == 2 * stream / 2e9
    assert pinned["PCIe: firing bits"] == bits / 20e9 and pinned["GPU: arithmetic"] == LARGE.operations / 64 / 1e14
    assert pinned["disk: weights"] == LARGE.layer / 2e9 and pinned["PCIe: weights"] == LARGE.layer / 20e9
    assert pinned["16 cores: counting"] == pytest.approx(bits * 8 / (131_072 * 3072) * 2 * 0.095 / 16)
    assert "PCIe: residual streams" not in seconds(Plan(LARGE, "memory", "memory", 2))
    assert seconds(Plan(LARGE, "memory", "file", 2))["disk: firing bits"] == 2 * bits / 2e9
    there = seconds(Plan(LARGE, "memory", "memory", 2, 2, True))
    assert there["GPU: counting"] == 4 * bits / 2e12 and there["16 cores: counting the rest"] < pinned["16 cores: counting"]
    eight = seconds(Plan(replace(LARGE, processes=8, local=8), "memory", "memory", 2, 2))
    assert eight["GPU: arithmetic"] == pinned["GPU: arithmetic"] / 8 and eight["network: firing bits"] > 0
    alone = [load.what for load in loads(Plan(LARGE, "memory", "memory", 1, 1), 16, 1e14) if not load.beside]
    assert alone == ["weights", "counting"]


@pytest.mark.parametrize("size", SIZES)
def test_the_page_on_performance_says_what_is_computed(size: str) -> None:
    page = (Path(__file__).parents[1] / "docs/performance.md").read_text()
    assert f"| {size} | {' | '.join(expected(size))} |" in page


def expected(size: str) -> list[str]:
    """Cells of the page's table: seconds of a layer, the share of waiting, minutes of 5M tokens, GB of GPU and of memory."""
    model = SIZES[size]
    plan = Plan(replace(LARGE, model=model, walked=model.layers, counted=model.layers), "pinned", "memory", 2, 2)
    peak = peak_flops("NVIDIA H100 80GB HBM3", half=True)
    assert peak is not None
    found = loads(plan, 16, OF_PEAK * peak)
    sums = busy(found)
    cells = [f"{sums[part]:.1f}" for part in ("GPU", "PCIe", "16 cores", "the thread that copies", "disk")]
    cells += [f"{100 * waiting(found):.0f} %", f"{model.layers * layer_seconds(found) / 60:.0f}"]
    return [*cells, f"{plan.needs.gpu / GB:.0f}", f"{plan.needs.memory / GB:.0f}"]


def test_a_plan_is_told_with_a_line_for_every_use_and_what_bounds_it() -> None:
    plan = Plan(replace(LARGE, processes=8, local=8), "pinned", "memory", 2, 2)
    told = plan_text(plan, Budgets(72 * GB, 900 * GB, 500 * GB), "66b on cuda:0", Path("/scratch"))
    for use in plan.uses():
        (line,) = [
            line for line in told.splitlines() if line.endswith((f"  {use.what}", f"  {use.what}, of each of 8 processes"))
        ]
        assert f"{use.size / GB:10.3f} GB" in line
    assert told.count("of each of 8 processes") == sum(use.times == 8 or use.where == "gpu" for use in plan.uses())
    timed = time_text(Plan(LARGE, "file", "memory", 2), 16, 400e12, measured=False)
    assert "bound by disk: the arithmetic waits about 7" in timed and "400 TFLOP/s, assumed" in timed
    assert len([line for line in timed.splitlines() if line.startswith("  ")]) == 5, "a row for every part of the machine"
