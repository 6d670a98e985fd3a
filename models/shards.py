"""A checkpoint folder -> its files of weights, and where every tensor of them is."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from errors import UserError
from models.foreign import impostor, what_is_there
from models.hub import LAYOUTS
from models.json_files import read_object
from models.pickled import plain_values
from models.tensor_places import Stored, safetensors_index

Tensors = dict[str, Stored]


def folder_tensors(folder: Path) -> tuple[list[Path], Tensors]:
    """The files that hold a folder's weights and the tensors in them, by the names they have there.

    Raises:
        UserError: there are none that can be read, or they are damaged.
    """
    there = [folder / name for name in LAYOUTS if (folder / name).is_file()]
    if not there:
        raise UserError(f"{folder} has a config.json but none of {', '.join(LAYOUTS)}: {what_is_there(folder)}")
    weights = there[0]
    return _sharded(weights) if weights.suffix == ".json" else ([weights], tensors_of(weights))


def _sharded(index: Path) -> tuple[list[Path], Tensors]:
    """The files that an index names, and the tensors that it expects in each."""
    shard_of = read_object(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or not all(isinstance(name, str) for name in shard_of.values()):
        raise UserError(f"{index} has no weight_map, which says in what file each tensor is; copy or download it again.")
    shards = sorted(set(shard_of.values()))
    for shard in shards:
        _check_inside(shard, index)
    if absent := [shard for shard in shards if not (index.parent / shard).is_file()]:
        raise UserError(f"{index.parent} lacks {some(absent)}, which {index.name} names; copy or download it again.")
    found = {shard: tensors_of(index.parent / shard) for shard in shards}
    for name, shard in shard_of.items():
        elsewhere = [other for other in shards if name in found[other]]
        if name not in found[shard] and elsewhere:
            raise UserError(
                f"{index} says that {name} is in {shard}, but it is in {some(elsewhere)}: index and files are of two checkpoints. "
                "Copy or download all of them again."
            )
    tensors = {name: found[shard][name] for name, shard in shard_of.items() if name in found[shard]}
    return [index.parent / shard for shard in shards], tensors


def _check_inside(shard: str, index: Path) -> None:
    """`UserError` for a shard outside the folder: a checkpoint from elsewhere has no say over which files are opened."""
    path = PurePosixPath(shard)
    if path.is_absolute() or ".." in path.parts or "\0" in shard or "\\" in shard or PureWindowsPath(shard).drive:
        raise UserError(
            f"{index} names the file {shard[:100]!r}, which lies outside its folder; only files within {index.parent} are opened."
        )


def tensors_of(file: Path) -> Tensors:
    """The tensors in one file, by the names they have there.

    Raises:
        UserError: it is damaged, or something else than weights.
    """
    if reason := impostor(file):
        raise UserError(f"{file} {reason}")
    if file.suffix == ".safetensors":
        return safetensors_index(file)
    values = plain_values(file)
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UserError(f"{file} holds a {type(values).__name__}; a checkpoint is tensors by their names.")
    nested = values.get("state_dict", values.get("model"))
    if isinstance(nested, dict) and nested and all(isinstance(name, str) for name in nested):
        values = nested
    return {name: value for name, value in values.items() if isinstance(value, Stored)}


def some(names: list[str]) -> str:
    """The first few of them, for a sentence."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
