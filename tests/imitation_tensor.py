"""Tensors of the imitated device: what torch computes with them is put into a queue, and their values are out of the host's reach."""

import math
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

if TYPE_CHECKING:
    from imitation import Imitation

PLACE = torch.device("cpu", 0)  # what the tensors call their device: main memory is `cpu` without an index
POISON = 0xFF  # of every byte: NaN in every type of floats
TOUCHES = ("numpy", "__array__", "item", "tolist", "data_ptr", "untyped_storage", "storage", "cpu", "__bool__", "__int__",
           "__float__", "__index__", "__dlpack__", "__reduce_ex__", "__deepcopy__", "__complex__")  # fmt: skip
Spec = tuple[torch.Size, tuple[int, ...], torch.dtype]


class HostTouch(RuntimeError):
    """The host reached for values that are on the device."""


class Block:
    """Some memory of the device. When no tensor is in it any more, the next that its stream asks for may get it."""

    def __init__(self, memory: Tensor, pool: list[Tensor]) -> None:
        self.memory = memory
        weakref.finalize(self, pool.append, memory).atexit = False


class DeviceTensor(Tensor):
    """A tensor on the imitated device."""

    inner: Tensor  # type: ignore[assignment]  # the same in main memory, as far as the queues have got
    block: Block
    place: "Imitation"
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor, block: Block, place: "Imitation") -> "DeviceTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=PLACE
        )
        made.inner, made.block, made.place = inner, block, place
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"DeviceTensor({list(self.shape)}, {self.dtype})"

    __format__ = lambda self, spec: format(repr(self), spec)  # noqa: E731

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        place = next(leaf.place for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, DeviceTensor))
        return dispatched(place, func, args, kwargs)


def _out_of_reach(name: str, *_: Any, **__: Any) -> Any:
    raise HostTouch(f"{name} of a tensor on the device; Device.fetch brings it to main memory")


for _name in TOUCHES:
    setattr(DeviceTensor, _name, lambda self, *a, _name=_name, **k: _out_of_reach(_name))


class OnDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tensors that are made with the device as `device=` in this thread are made there."""

    def __init__(self, place: "Imitation") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.place = place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") == PLACE or any(isinstance(leaf, DeviceTensor) for leaf in tree_leaves((args, kwargs))):
            return dispatched(self.place, func, args, kwargs)
        return func(*args, **kwargs)


class FromNumbers(TorchFunctionMode):
    """The same for `torch.tensor`, which forgets what device it was told."""

    def __init__(self, place: "Imitation") -> None:
        super().__init__()
        self.place = place

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == PLACE:
            return self.place.put(func(*args, **kwargs | {"device": "cpu"}))
        return func(*args, **kwargs)


def dispatched(place: "Imitation", func: Any, args: Any, kwargs: Any) -> Any:
    """What torch asks for: views at once, everything else by the queue of the current stream."""
    if func is torch.ops.aten._to_copy.default:
        return _copied(place, args[0], kwargs)
    if func is torch.ops.aten.is_pinned.default:
        return False
    made = func.decompose(*args, **kwargs)  # under inference mode torch leaves that to us
    if made is not NotImplemented:
        return made
    if torch.Tag.data_dependent_output in func.tags:
        return _out_of_reach(str(func))
    mixed = [leaf for leaf in tree_leaves((args, kwargs)) if type(leaf) is not DeviceTensor and isinstance(leaf, Tensor)]
    if any(leaf.ndim for leaf in mixed):
        raise HostTouch(f"{func} of tensors on the device and tensors in main memory")
    args, kwargs = tree_map(_inner, (args, kwargs))
    if func.is_view or func is torch.ops.aten._fused_sdp_choice.default:
        return _viewed(place, func, args, kwargs)
    kwargs |= {"device": "cpu"} if kwargs.get("device") is not None else {}
    if _needs_values(func, args):
        place.current_stream().finish()
        return _at_once(place, func, args, kwargs)
    return _queued(place, func, args, kwargs)


class _Inner:
    """A tensor of the device among the arguments, while they are looked at."""

    def __init__(self, tensor: DeviceTensor) -> None:
        self.tensor, self.inner = tensor, tensor.inner


def _inner(leaf: Any) -> Any:
    if isinstance(leaf, DeviceTensor):
        return _Inner(leaf)
    return leaf.clone() if isinstance(leaf, Tensor) else leaf  # a number of the host, as it is now


def _bare(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, _Inner) else leaf


def _viewed(place: "Imitation", func: Any, args: Any, kwargs: Any) -> Any:
    """The same memory, looked at otherwise. A view of a tensor that inference made is one too, and of another is not."""
    of = next(leaf.tensor for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, _Inner))
    found = func(*tree_map(_bare, args), **tree_map(_bare, kwargs))
    with torch.inference_mode(of.is_inference()):
        return tree_map(lambda leaf: DeviceTensor(leaf, of.block, place) if isinstance(leaf, Tensor) else leaf, found)


def _needs_values(func: Any, args: Any) -> bool:
    """Whether the shape of the result depends on values, so that the host waits for them, as with CUDA."""
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    if func is torch.ops.aten.index.Tensor:
        return any(isinstance(leaf, _Inner) and leaf.inner.dtype in (torch.bool, torch.uint8) for leaf in args[1])
    return True


def _at_once(place: "Imitation", func: Any, args: Any, kwargs: Any) -> Any:
    found = func(*tree_map(_bare, args), **tree_map(_bare, kwargs))

    def placed(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        made = place.made((leaf.shape, leaf.stride(), leaf.dtype))
        place.current_stream().put(partial(made.inner.copy_, leaf))
        return made

    return tree_map(placed, found)


def _queued(place: "Imitation", func: Any, args: Any, kwargs: Any) -> Any:
    """Room for the results at once, the work when its turn comes. It holds memory, but keeps none from being given out again."""
    bare_args, bare_kwargs = tree_map(_bare, args), tree_map(_bare, kwargs)
    if func._schema.is_mutable:
        written = _written(func, args, kwargs)
        place.current_stream().put(lambda: _run(func, bare_args, bare_kwargs, []))
        return written[0] if len(written) == 1 else tuple(written)
    specs = _specs(func, bare_args, bare_kwargs)
    made = tree_map(lambda spec: place.made(spec) if isinstance(spec, _Spec) else spec, specs)
    into = [leaf.inner if isinstance(leaf, DeviceTensor) else leaf for leaf in tree_leaves(made)]
    place.current_stream().put(lambda: _run(func, bare_args, bare_kwargs, into))
    return made


def _run(func: Any, args: Any, kwargs: Any, into: list[Any]) -> None:
    found = tree_leaves(func(*args, **kwargs))
    for room, value in zip(into, found, strict=False):
        if isinstance(value, Tensor):
            room.copy_(value)


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that an operation writes into: what it returns."""
    named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    found = [leaf.tensor for name in written for leaf in tree_leaves(named[name]) if isinstance(leaf, _Inner)]
    assert found, f"{func} writes into main memory"
    return found


class _Spec(tuple[Any, ...]):
    """Shape, strides and type of a result."""


_KNOWN: dict[Any, Any] = {}


def _specs(func: Any, args: Any, kwargs: Any) -> Any:
    """Shape, strides and type of what an operation gives, by torch's rules for tensors without values."""
    key = str((func, tree_map(lambda leaf: _spec(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs))))
    if key not in _KNOWN:

        def bodiless(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")

        without = tree_map(bodiless, (args, kwargs))
        without[1].update({"device": "meta"} if "device" in kwargs else {})
        found = func(*without[0], **without[1])
        _KNOWN[key] = tree_map(lambda leaf: _spec(leaf) if isinstance(leaf, Tensor) else leaf, found)
    return _KNOWN[key]


def _spec(tensor: Tensor) -> _Spec:
    return _Spec((tensor.shape, tensor.stride(), tensor.dtype))


def _copied(place: "Imitation", tensor: Tensor, kwargs: Any) -> Any:
    """`tensor.to(...)`: from main memory to the device, from type to type there, or refused."""
    target = kwargs.get("device")
    if not isinstance(tensor, DeviceTensor):
        return place.put(tensor.to(kwargs.get("dtype") or tensor.dtype))
    if target is not None and target != PLACE:
        return _out_of_reach(f"to({target})")
    args, kwargs = tree_map(_inner, ((tensor,), kwargs))
    return _queued(
        place, torch.ops.aten._to_copy.default, args, {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
    )


def shaped(memory: Tensor, spec: Spec) -> Tensor:
    """The beginning of some bytes as a tensor."""
    shape, stride, dtype = spec
    return memory.view(dtype).as_strided(shape, stride)


def bytes_of(spec: Spec) -> int:
    """Bytes that it takes, rounded up to a power of two so that what is freed is soon used again."""
    shape, stride, dtype = spec
    span = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) if math.prod(shape) else 1
    return 1 << max(6, (span * dtype.itemsize - 1).bit_length())
