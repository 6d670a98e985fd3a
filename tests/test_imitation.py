"""The imitated GPU itself: it computes what the CPU computes, and every kind of mistake in the order of its work is seen."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from imitation import Imitation
from imitation_tensor import DeviceTensor, HostTouch
from torch import Tensor
from torch.nn import functional as F

from device import CPU
from models.opt import OPT, Block, Decoder
from models.positions import _kept_alibi

VARIANTS: dict[str, dict[str, Any]] = {
    "learned": {},
    "rotary": {"positions": "rotary"},
    "alibi": {"positions": "alibi"},
    "none": {"positions": "none"},
    "sinusoidal": {"positions": "sinusoidal"},
    "gelu": {"activation": "gelu"},
    "relu_squared": {"activation": "relu_squared"},
    "post-norm, projected": {"norm": "post", "embed_dim": 16, "final_norm": False},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What is this small is slower on two, and waits for whoever else is at work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_device(device: Imitation, module: Any) -> Any:
    """The same parameters, as views of one slab on the device, copied there from pinned memory by a stream of its own."""
    size = sum(t.nbytes for t in module.state_dict().values())
    slab, pinned, side = device.empty(size, dtype=torch.uint8), device.pinned(size), device.stream()
    views, at = {}, 0
    for name, tensor in module.state_dict().items():
        here, there = (room[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape) for room in (pinned, slab))
        here.copy_(tensor)
        views[name] = there
        at += tensor.nbytes
    side.wait(device.computing.record())
    side.copy(pinned, slab)
    device.computing.wait(side.record())
    with torch.device("meta"):
        made = type(module)(module.config) if isinstance(module, OPT | Decoder) else Block(tiny.random_model().config)
    made.load_state_dict(views, assign=True)
    return made.eval().requires_grad_(False)


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Byte for byte."""
    return ours.dtype == theirs.dtype and ours.contiguous().view(-1).view(torch.uint8).equal(
        theirs.contiguous().view(-1).view(torch.uint8)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, nullcontext])
def test_a_model_computes_what_it_computes_on_the_cpu(mode: Any, variant: str, dtype: torch.dtype) -> None:
    model = tiny.random_model(**VARIANTS[variant]).to(dtype).requires_grad_(False)
    ids = torch.from_numpy(tiny.random_ids())
    device = Imitation(seed=len(variant))
    _kept_alibi.cache_clear()  # that of another imitation
    with mode():
        expected = [*model.decoder.layers[0](model.decoder.embed(ids)), model(ids)]
    placed: Any = on_device(device, model)
    with device.current(), mode():
        there = device.put(ids)
        found = [*placed.decoder.layers[0](placed.decoder.embed(there)), placed(there)]
    assert all(type(tensor) is DeviceTensor for tensor in found)
    assert all(same(device.fetch(ours), theirs) for ours, theirs in zip(found, expected, strict=True))


def read_early(device: Imitation, wait: bool) -> Tensor:
    """The computing stream doubles what a side stream copies in."""
    x, pinned, side = device.empty(64, dtype=torch.uint8), device.pinned(64), device.stream()
    pinned.fill_(3)
    side.wait(device.computing.record())
    side.copy(pinned, x)
    if wait:
        device.computing.wait(side.record())
    return device.fetch(x * 2)


def written_early(device: Imitation, wait: bool) -> Tensor:
    """A side stream copies something else in when the computing stream has doubled what there was."""
    x, pinned, side = device.put(torch.full((64,), 3, dtype=torch.uint8)), device.pinned(64), device.stream()
    device.synchronize()
    doubled = x * 2
    if wait:
        side.wait(device.computing.record())
    side.copy(pinned, x)
    return device.fetch(doubled)


def pinned_written_early(device: Imitation, wait: bool) -> Tensor:
    """The host writes the next bytes into pinned memory when the first are on the device."""
    x, pinned = device.empty(64, dtype=torch.uint8), device.pinned(64)
    pinned.fill_(6)
    device.computing.copy(pinned, x)
    if wait:
        device.computing.record().synchronize()
    pinned.fill_(1)
    return device.fetch(x)


def pinned_read_early(device: Imitation, wait: bool) -> Tensor:
    """The host reads what was copied out."""
    pinned = device.pinned(64)
    device.computing.copy(device.put(torch.full((64,), 6, dtype=torch.uint8)), pinned)
    if wait:
        device.computing.synchronize()
    return pinned.clone()


def freed_early(device: Imitation, wait: bool) -> Tensor:
    """Memory goes to another tensor of its stream when a side stream has copied out what was in it."""
    side, pinned = device.stream(), device.pinned(64)
    x = device.put(torch.full((64,), 6, dtype=torch.uint8))
    side.wait(device.computing.record())
    side.copy(x, pinned)
    if wait:
        device.computing.wait(side.record())
    del x
    y = device.put(torch.full((64,), 9, dtype=torch.uint8))
    side.synchronize()
    return pinned.clone() if y is not None else y


@pytest.mark.parametrize("order", [read_early, written_early, pinned_written_early, pinned_read_early, freed_early])
def test_a_wait_that_is_missing_gives_wrong_bytes(order: Callable[[Imitation, bool], Tensor]) -> None:
    """For many schedules; with the wait for none."""
    assert all((order(Imitation(seed), True) == 6).all() for seed in range(100))
    assert sum(bool((order(Imitation(seed), False) != 6).any()) for seed in range(100)) >= 25


def test_a_wait_can_be_left_out_by_its_place() -> None:
    def read_out(device: Imitation) -> bool:
        pinned = device.pinned(8)
        device.computing.copy(device.put(torch.ones(8, dtype=torch.uint8)), pinned)
        device.computing.synchronize()
        return bool((pinned == 1).all())

    place = f"test_imitation.py:{read_out.__code__.co_firstlineno + 3}"
    assert all(read_out(Imitation(seed)) for seed in range(20))
    assert not all(read_out(Imitation(seed, ignore=place)) for seed in range(20))


def test_a_schedule_is_its_seed_s() -> None:
    def schedule(seed: int) -> list[bool]:
        device = Imitation(seed)
        return [bool((written_early(device, False) == 6).all()) for _ in range(20)]

    assert schedule(3) == schedule(3)
    assert len({tuple(schedule(seed)) for seed in range(20)}) > 10


TOUCHES: list[Callable[[Tensor], Any]] = [
    *(lambda x, name=name: getattr(x, name)() for name in ("numpy", "tolist", "cpu", "data_ptr", "untyped_storage")),
    *(lambda x, kind=kind: kind(x[0]) for kind in (bool, int, float, range)),
    *(np.asarray, copy.deepcopy, lambda x: x[0].item(), lambda x: list(map(float, x)), lambda x: torch.equal(x, x)),
    *(lambda x: x.to("cpu"), lambda x: torch.zeros(3).copy_(x), lambda x: x + torch.zeros(3), lambda x: x[torch.tensor([0])]),
]


@pytest.mark.parametrize("touch", TOUCHES)
def test_the_host_may_not_touch_a_tensor(touch: Callable[[Tensor], Any]) -> None:
    device = Imitation()
    with device.current(), pytest.raises(HostTouch):
        touch(device.put(torch.ones(3)))


def test_what_is_made_on_the_device_is_there_and_what_is_made_in_main_memory_is_there() -> None:
    device = Imitation()
    with device.current():
        assert type(torch.zeros(3)) is type(torch.tensor([1])) is type(torch.arange(3, device="cpu")) is Tensor
        for made in (torch.zeros(3, device=device.name), torch.arange(3, device=device.name), torch.ones(3).to(device.name)):
            assert type(made) is DeviceTensor and type(torch.zeros_like(made)) is DeviceTensor
        assert device.fetch(torch.tensor([1.0, 2.0], device=device.name)).tolist() == [1.0, 2.0]


def test_a_copy_takes_pinned_memory_alone() -> None:
    device = Imitation()
    with pytest.raises(HostTouch, match="not pinned"):
        device.computing.copy(torch.zeros(8, dtype=torch.uint8), device.empty(8, dtype=torch.uint8))
    device.computing.copy(device.pinned(16)[4:12], device.empty(8, dtype=torch.uint8))


def test_memory_allocated_under_inference_mode_is_not_written_to_outside() -> None:
    """As with CUDA: a thread that does not know of the mode."""
    device = Imitation()
    with torch.inference_mode():
        slab = device.empty(8, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
        device.computing.copy(device.pinned(8), slab)
    with torch.inference_mode():
        device.computing.copy(device.pinned(8), slab)


def test_a_mistake_in_a_queue_is_raised_where_the_host_waits() -> None:
    device = Imitation()
    found = torch.nn.functional.embedding(device.put(torch.tensor([7])), device.put(torch.zeros(3, 4)))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="work on the device failed"):
            device.fetch(found)


def test_a_step_of_training_is_that_of_the_cpu() -> None:
    """Gradients go backwards through queues too."""
    ids, losses = torch.from_numpy(tiny.random_ids()), []
    for device in (Imitation(5), CPU()):
        model: Any = tiny.random_model()
        if device.asynchronous:
            assert isinstance(device, Imitation)
            model = on_device(device, model).requires_grad_(True)
        with device.current():
            for _ in range(3):
                loss = F.cross_entropy(model(device.put(ids)[:, :-1]).flatten(0, 1), device.put(ids)[:, 1:].flatten())
                loss.backward()  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.sub_(parameter.grad, alpha=0.1)
                        parameter.grad = None
            losses.append((device.fetch(loss.detach()).item(), device.fetch(model.decoder.layers[0].fc1.weight.detach())))
    assert losses[0][0] == losses[1][0] and torch.equal(losses[0][1], losses[1][1])
