"""Tensors by the names that files give them -> by ours; what a census does not need is passed over, the unembedding is found."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch

from errors import UserError
from models.config import OPTConfig
from models.disk_reads import read
from models.opt import PAD, Block, Decoder, has_exported_positions
from models.shards import Tensors, some
from models.tensor_places import Stored, contiguous
from models.unallocated import unallocated

AROUND = re.compile(r"(module\.|pretrained_model\.|base_model\.|model\.)+")  # of names, as wrappers of models put them there
UNEMBEDDINGS = ("lm_head.weight", "decoder.lm_head.weight", "output_projection.weight", "decoder.output_projection.weight")
EMBEDDING, UNEMBEDDING = "decoder.embed_tokens.weight", "decoder.lm_head.weight"
COUNTERS = ("decoder.version", "decoder.embed_positions._float_tensor")  # of old exports
QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|CB|weight_format|weight_packed|weight_scale\w*|weight_zero_point|input_scale"
    r"|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*))$"
)
ADAPTER = re.compile(r"\.(lora_|base_layer\.|modules_to_save\.)")
AT_ONCE = 1 << 26  # bytes of two matrices that are compared


@dataclass
class Named:
    """Tensors under our names."""

    config: OPTConfig  # `tied` as it is, whatever config.json says
    tensors: Tensors
    notes: list[str] = field(default_factory=list)  # what a user should know, a sentence each


def named(config: OPTConfig, stored: Tensors, where: str) -> Named:
    """A whole model's tensors under our names.

    Raises:
        UserError: one is missing, of another shape, there twice, or in a form that we do not read.
    """
    tensors = _plain(stored, where)
    if odd := sorted(name for name in tensors if QUANTISED.search(name)):
        raise UserError(_quantised(where, some(odd)))
    if odd := sorted(name for name in tensors if ADAPTER.search(name)):
        raise UserError(
            f"{where} holds {some(odd)}: an adapter (LoRA) that is not merged. Merge it first, with merge_and_unload() of peft."
        )
    if odd := sorted(name for name in tensors if name.startswith("encoder.")):
        raise UserError(f"{where} holds {some(odd)}: it is an encoder-decoder; only decoders can be read.")
    found = _with_unembedding(config, tensors, where)
    _check_complete(found, where)
    return found


def _plain(stored: Tensors, where: str) -> Tensors:
    """The same under names from `decoder.` on: some exports have `model.` before it, some have not."""
    plain = {AROUND.sub("", name.replace("_orig_mod.", ""), count=1): tensor for name, tensor in stored.items()}
    if len(plain) < len(stored):
        raise UserError(f"{where} has tensors twice, with and without the prefix `model.`; keep one of the two.")
    return plain


def _with_unembedding(config: OPTConfig, tensors: Tensors, where: str) -> Named:
    """`tied` and the unembedding as files have them."""
    there = [tensors.pop(name) for name in UNEMBEDDINGS if name in tensors]
    if len(there) > 1 and not all(_equal(there[0], other) for other in there[1:]):
        raise UserError(f"{where} has several unembeddings, {' and '.join(UNEMBEDDINGS)}, which differ; keep one of them.")
    if not there:
        if not config.tied:
            raise UserError(
                f"{where} has no lm_head.weight, but its config.json says tie_word_embeddings=false. "
                "Set that to true if its unembedding is the token embedding; otherwise copy or download it again."
            )
        return Named(config, tensors)
    if not config.tied:
        return Named(config, tensors | {UNEMBEDDING: there[0]})
    if EMBEDDING not in tensors:
        return Named(config, tensors | {EMBEDDING: there[0]})
    if _equal(there[0], tensors[EMBEDDING]):
        return Named(config, tensors)
    note = (
        f"{where}: lm_head.weight is not the token embedding, although config.json ties them; effects on logits are computed with "
        "lm_head.weight, as transformers 5 does. Without it in the file they would be the embedding's."
    )
    return Named(replace(config, tied=False), tensors | {UNEMBEDDING: there[0]}, [note])


def _equal(a: Stored, b: Stored) -> bool:
    """Whether two tensors hold the same numbers; those that share their bytes are not read."""
    if a == b:
        return True
    if a.shape != b.shape:
        return False
    if a.dtype != b.dtype or contiguous(a.shape) != a.stride or contiguous(b.shape) != b.stride:
        return torch.equal(a.read().double(), b.read().double())
    one, other = (torch.empty(min(AT_ONCE, a.nbytes), dtype=torch.uint8) for _ in range(2))
    for begin in range(0, a.nbytes, AT_ONCE):
        size = min(AT_ONCE, a.nbytes - begin)
        read(a.file, a.offset + begin, one[:size])
        read(b.file, b.offset + begin, other[:size])
        if not torch.equal(one[:size], other[:size]):
            return False
    return True


def _check_complete(found: Named, where: str) -> None:
    if found.config.vocab_size <= PAD:
        raise UserError(f"{where}: vocab_size={found.config.vocab_size} must be above {PAD}, the id of <pad>.")
    layers = {int(match[1]) for name in found.tensors if (match := re.match(r"decoder\.layers\.(\d{1,9})\.", name))}
    if found.config.layers > max(layers, default=-1) + 1:
        has = f"those up to decoder.layers.{max(layers)}" if layers else "none"
        raise UserError(
            f"{where}: config.json asks for {found.config.layers:,} layers, but the files of weights have {has}; "
            "copy or download it again."
        )
    expected = shapes_of(found.config)
    missing = sorted(set(expected) - set(found.tensors))
    unexpected = sorted(set(found.tensors) - set(expected))
    passed_over = [name for name in unexpected if _unneeded(name, found.config)]
    unexpected = [name for name in unexpected if name not in passed_over]
    if missing or unexpected:
        parts = [f"{what} {some(names)}" for what, names in (("lacks", missing), ("has the unexpected", unexpected)) if names]
        raise UserError(f"{where} is not a whole checkpoint of its config.json: it {' and '.join(parts)}.")
    for name, shape in expected.items():
        _check_tensor(found.tensors[name], name, shape, where)
    if said := [name for name in passed_over if name not in (*COUNTERS, "decoder.embed_positions.weight")]:
        found.notes.append(f"{where}: {some(said)} {'is' if len(said) == 1 else 'are'} passed over; a census does not need it.")
    for name in passed_over:
        del found.tensors[name]


def _unneeded(name: str, config: OPTConfig) -> bool:
    """Whether it is no part of the decoder, or one that config.json switches off."""
    if not name.startswith("decoder.") or name in COUNTERS:
        return True
    if name == "decoder.embed_positions.weight":
        return has_exported_positions(config)
    of_norm = "layer_norm." in name
    return (of_norm and not config.gains) or (name.endswith(".bias") and not of_norm and not config.biases)


def _check_tensor(stored: Stored, name: str, shape: tuple[int, ...], where: str) -> None:
    if stored.dtype.itemsize == 1 and name.endswith(".weight"):
        raise UserError(_quantised(where, f"{name} in {str(stored.dtype).removeprefix('torch.')}"))
    if stored.shape != shape:
        raise UserError(f"{where}: {name} is {stored.shape}, but config.json asks for {shape}.")
    if not stored.dtype.is_floating_point or stored.dtype.itemsize == 1:
        raise UserError(f"{where}: {name} is {stored.dtype}; only floating-point weights can be read.")


def _quantised(where: str, sign: str) -> str:
    return (
        f"{where} is quantised (it holds {sign}): its weights stand in another form. Give the checkpoint that it was made from, "
        "in float32, bfloat16 or float16."
    )


def shapes_of(config: OPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a model, by our names."""
    with unallocated():
        around, block = Decoder(config, blocks=0).state_dict(), Block(config).state_dict()
    shapes = {f"decoder.{name}": tuple(tensor.shape) for name, tensor in around.items()}
    return shapes | dict(_of_layers({name: tuple(tensor.shape) for name, tensor in block.items()}, config.layers))


def _of_layers(block: dict[str, tuple[int, ...]], layers: int) -> Iterable[tuple[str, tuple[int, ...]]]:
    return ((f"decoder.layers.{layer}.{name}", shape) for layer in range(layers) for name, shape in block.items())
