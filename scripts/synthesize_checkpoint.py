"""A random checkpoint of any OPT size, for timing: python scripts/synthesize_checkpoint.py 6.7b OUT [--layout bin-sharded]

In HuggingFace's layout, one chunk of a tensor in memory at a time. Its neurons fire as rarely as trained ones. With --one-layer all
layers are the same bytes on disk, written once: 66b in 3 GB. That is for timing where 132 GB have no room; the machine will then
read from its cache of the disk, not from the disk.
"""

import argparse
import json
import math
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from torch import Tensor

from errors import BEGINS_AGAIN, UserError, plainly
from files import remove_unfinished, whole_folder
from locks import only_writer
from models.config import OPTConfig
from models.huggingface import huggingface
from models.opt import OPT, PAD
from models.pickled import plain_values
from models.tensor_places import DTYPES, Stored, safetensors_index
from models.unallocated import unallocated
from settings import check_new_folder

CONF = Path(__file__).parents[1] / "conf"
SIZES = ("125m", "350m", "1.3b", "2.7b", "6.7b", "13b", "30b", "66b", "8m", "demo")
LAYOUTS = ("safetensors", "safetensors-sharded", "bin", "bin-sharded")
WEIGHT_DTYPES = ("float16", "bfloat16", "float32")
VOCABULARY = 50_272
CHUNK = 1 << 22  # numbers drawn at a time
QUIETEST = -3.7  # standard deviations below zero, at which the rarest neurons' inputs are centred: they fire on 0.01 % of tokens

Shapes = dict[str, tuple[int, ...]]


def opt(size: str, layers: int | None = None) -> OPTConfig:
    """The shape of a published OPT; of its first layers only, if asked. 350m has its LayerNorms after the sub-blocks."""
    variant = CONF / "model" / ("postln.yaml" if size == "350m" else "baseline.yaml")
    values = OmegaConf.merge(OmegaConf.select(OmegaConf.load(CONF / "size" / f"{size}.yaml"), "model"), OmegaConf.load(variant))
    config = OPTConfig(**{str(name): value for name, value in values.items()})
    return replace(config, vocab_size=VOCABULARY, layers=config.layers if layers is None else layers)


def shapes_of(config: OPTConfig) -> Shapes:
    """Every tensor of the model, in its order."""
    with unallocated():
        return {name: tuple(tensor.shape) for name, tensor in OPT(config).state_dict().items()}


def source(name: str, one_layer: bool) -> str:
    """The tensor whose bytes stand for this one: itself, or layer 0's."""
    head, found, tail = name.partition("decoder.layers.")
    return f"{head}{found}0.{tail.partition('.')[2]}" if one_layer and found else name


def nbytes(shapes: Shapes, dtype: torch.dtype, one_layer: bool) -> int:
    """What the tensors take on disk."""
    written = {source(name, one_layer): shape for name, shape in shapes.items()}
    return sum(math.prod(shape) for shape in written.values()) * dtype.itemsize


def shards(shapes: Shapes, dtype: torch.dtype, one_layer: bool, largest: int) -> list[Shapes]:
    """The tensors dealt to files of at most `largest` bytes, whole layers together."""
    groups: dict[str, Shapes] = {}
    for name, shape in shapes.items():
        layer = source(name, one_layer).removeprefix("decoder.layers.").partition(".")[0] if ".layers." in name else "ends"
        groups.setdefault(layer, {})[name] = shape
    files: list[Shapes] = [{}]
    for group in groups.values():
        if files[-1] and nbytes(files[-1] | group, dtype, one_layer) > largest:
            files.append({})
        files[-1] |= group
    return files


def reserve(file: Path, shapes: Shapes, dtype: torch.dtype, one_layer: bool) -> dict[str, Stored]:
    """Write all of a file but the tensors' bytes, and return where those go."""
    if file.suffix == ".safetensors":
        _reserve_safetensors(file, shapes, dtype)
        return safetensors_index(file)
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes seconds, and safetensors do without

    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        made: dict[str, Tensor] = {}
        for name, shape in shapes.items():
            made.setdefault(source(name, one_layer), torch.empty(shape, dtype=dtype))
        try:
            torch.save({name: made[source(name, one_layer)] for name in shapes}, file)
        except RuntimeError as failed:  # what torch's writer says of a full disk
            raise OSError(str(failed).splitlines()[0]) from None
    index: dict[str, Stored] = plain_values(file)
    return index


def _reserve_safetensors(file: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    code, end = next(code for code, of in DTYPES.items() if of == dtype), 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    entries = json.dumps(header).encode()
    entries += b" " * (-len(entries) % 8)
    with file.open("wb") as stream:
        stream.write(len(entries).to_bytes(8, "little") + entries)
        stream.truncate(8 + len(entries) + end)


def drawn(name: str, shape: tuple[int, ...], config: OPTConfig, seed: int) -> Iterator[Tensor]:
    """A tensor's values in pieces: OPT's initial ones, and biases of fc1 that let its neurons fire on 0.01 % to 50 % of tokens."""
    generator = torch.Generator().manual_seed(seed << 32 | zlib.crc32(name.encode()))
    weight, norm, left = name.endswith("weight"), "layer_norm" in name, math.prod(shape)
    writes = name.endswith(("out_proj.weight", "fc2.weight"))
    std = config.init_std / (math.sqrt(2 * config.layers) if writes else 1)
    pad = slice(PAD * shape[-1], (PAD + 1) * shape[-1]) if name.endswith("embed_tokens.weight") else slice(0)
    while left:
        piece = torch.zeros(min(left, CHUNK))
        if norm:
            piece.fill_(float(weight))
        elif weight:
            piece.normal_(0.0, std, generator=generator)[pad] = 0.0
        elif name.endswith("fc1.bias"):  # the LayerNorm before gives inputs of unit variance: weighted, std * sqrt(width) wide
            piece.uniform_(QUIETEST * std * math.sqrt(config.width), 0.0, generator=generator)
        yield piece
        left, pad = left - len(piece), slice(0)


def fill(places: dict[str, Stored], config: OPTConfig, seed: int) -> Iterator[int]:
    """Write the tensors' bytes, each place once; yields how many have been written."""
    written: set[tuple[Path, int]] = set()
    for name, place in sorted(places.items(), key=lambda entry: entry[1].offset):
        if (place.file, place.offset) in written:
            continue
        written.add((place.file, place.offset))
        with place.file.open("r+b") as stream:
            stream.seek(place.offset)
            for piece in drawn(name.removeprefix("model."), place.shape, config, seed):
                yield stream.write(piece.to(place.dtype).view(torch.uint8).numpy().data)
            stream.flush()
            os.fsync(stream.fileno())


def synthesize(config: OPTConfig, out: Path, arguments: argparse.Namespace, console: Console) -> None:
    """Write the checkpoint.

    Raises:
        UserError: there is something in `out`, or no room for it.
    """
    dtype, one_layer = getattr(torch, arguments.dtype), arguments.one_layer
    kind, _, sharded = arguments.layout.partition("-")
    if one_layer and kind != "bin":
        raise UserError(
            "--one-layer needs --layout bin or bin-sharded: safetensors cannot store several tensors as the same bytes."
        )
    if not arguments.shard_gb > 0:
        raise UserError(f"--shard-gb={arguments.shard_gb} must be above 0.")
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed={arguments.seed} must be 0 or more, and below 2^63.")
    check_new_folder(out)
    shapes = shapes_of(config)
    files = shards(shapes, dtype, one_layer, int(arguments.shard_gb * 1e9)) if sharded else [shapes]
    names = _names("model" if kind == "safetensors" else "pytorch_model", kind, len(files) if sharded else 0)
    needed = nbytes(shapes, dtype, one_layer)
    _say_and_check_room(config, out, needed, len(files), arguments, console)
    try:
        with whole_folder(out) as folder:
            _write(folder, files, names, shapes, config, arguments, console)
    except OSError as full:
        raise UserError(f"{out} could not be written ({full.strerror or full}); nothing is left of it.") from None


def _write(
    folder: Path,
    files: list[Shapes],
    names: list[str],
    shapes: Shapes,
    config: OPTConfig,
    arguments: argparse.Namespace,
    console: Console,
) -> None:
    dtype, one_layer, prefix = getattr(torch, arguments.dtype), arguments.one_layer, "" if arguments.no_prefix else "model."
    weight_map: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        writing = bar.add_task(arguments.out.name, total=nbytes(shapes, dtype, one_layer))
        for name, part in zip(names, files, strict=True):
            weight_map |= {prefix + tensor: name for tensor in part}
            places = reserve(folder / name, {prefix + tensor: shape for tensor, shape in part.items()}, dtype, one_layer)
            for written in fill(places, config, arguments.seed):
                bar.advance(writing, written)
    if arguments.layout.endswith("sharded"):
        index = {"metadata": {"total_size": nbytes(shapes, dtype, False)}, "weight_map": weight_map}
        (folder / f"{names[0].split('-')[0]}.{arguments.layout.partition('-')[0]}.index.json").write_text(
            json.dumps(index, indent=2) + "\n"
        )
    (folder / "config.json").write_text(json.dumps(huggingface(config) | {"torch_dtype": arguments.dtype}, indent=2) + "\n")


def _names(stem: str, kind: str, count: int) -> list[str]:
    return [f"{stem}-{number + 1:05d}-of-{count:05d}.{kind}" for number in range(count)] or [f"{stem}.{kind}"]


def _say_and_check_room(
    config: OPTConfig, out: Path, needed: int, files: int, arguments: argparse.Namespace, console: Console
) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    shape = f"{config.layers} layers x {config.width} wide x {config.neurons} neurons"
    same = ", all layers the same bytes" if arguments.one_layer else ""
    disk = f"{needed / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB free"
    line = f"{out}: OPT {arguments.size}, {shape}, {arguments.dtype}, {arguments.layout} in {files} files{same}; {disk}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    if needed > free:
        raise UserError(
            f"{out} needs {needed / 1e9:.1f} GB, but {parent} has {free / 1e9:.1f} GB free. Use another disk, --layers or --one-layer."
        )


def main(words: Iterable[str] | None = None) -> None:
    """Read the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--layout", default="safetensors", choices=LAYOUTS)
    parser.add_argument("--no-prefix", action="store_true", help="names begin with decoder. instead of model.decoder.")
    parser.add_argument("--dtype", default="float16", choices=WEIGHT_DTYPES)
    parser.add_argument("--layers", type=int, help="the first layers only")
    parser.add_argument("--one-layer", action="store_true", help="one layer on disk stands for all of them")
    parser.add_argument("--shard-gb", type=float, default=10.0, help="largest file of a sharded layout")
    parser.add_argument("--seed", type=int, default=0)
    with plainly(after=BEGINS_AGAIN):
        arguments = parser.parse_args(None if words is None else list(words))
        with only_writer(arguments.out, "OUT"):
            remove_unfinished(arguments.out, deep=False)
            synthesize(opt(arguments.size, arguments.layers), arguments.out, arguments, Console(stderr=True))


if __name__ == "__main__":
    main()
