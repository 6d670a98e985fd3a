"""A file of `torch.save` -> its plain values, with tensors as places in the file: nothing in it is executed, no tensor is read."""

import pickle
import tarfile
import zipfile
from collections import OrderedDict
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch

from errors import UserError
from models.tensor_places import Stored, span

ZIP = b"PK\x03\x04"
LEGACY = 0x1950A86A20F9469CFC6C  # what files of torch before 1.6 begin with
QUANTISERS = ("torchao.", "bitsandbytes.", "quanto.", "optimum.")
LOCAL_HEADER = 30  # bytes of a zip entry before its name
STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


class Storage(NamedTuple):
    """A run of elements in the file that tensors are views of."""

    key: str
    dtype: torch.dtype
    first: int  # element, in the storage named `key`


class Rebuilt(NamedTuple):
    """A tensor as the pickle describes it. Without a `__dict__`, so that no pickle can change it afterwards."""

    storage: Storage
    first: int  # element of the storage
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class PlainUnpickler(pickle.Unpickler):
    """Builds plain values and records of tensors; any other global is refused before it is looked up."""

    def __init__(self, stream: BufferedIOBase) -> None:
        super().__init__(stream, encoding="utf-8")
        self.dtypes: dict[str, torch.dtype] = {}  # of the storages met so far

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global that a file of plain tensors needs. Made anew each time: a pickle may set attributes on it."""
        path = f"{module}.{name}"
        if path == "collections.OrderedDict":
            return OrderedDict
        if path in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return lambda storage, first, shape, stride, *_: Rebuilt(storage, first, tuple(shape), tuple(stride))
        if path == "torch._utils._rebuild_parameter":
            return lambda tensor, *_: tensor
        if path == "torch.Size":
            return tuple
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if path in ("torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_qtensor") or path.startswith(QUANTISERS):
            raise pickle.UnpicklingError(f"its weights are quantised ({path}); give the checkpoint that it was made from")
        raise pickle.UnpicklingError(f"it asks for {path}, which is neither a tensor nor a plain value")

    def persistent_load(self, saved: Any) -> Storage:
        """The storage that a tensor is a view of."""
        kind, dtype, key, _, _, *view = saved
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it refers to a {kind!r}, which is no storage of a tensor")
        self.dtypes[key] = dtype
        first = view[0][1] if view and view[0] else 0  # torch before 1.0 knew storages within storages
        return Storage(key, dtype, first)


def plain_values(file: Path) -> Any:
    """What was saved: numbers, strings, lists and dicts as they are, and a `Stored` for every tensor.

    Files of torch 1.6 and later (zip) and the older ones without a zip around them; either way only what describes the tensors is
    read. Still older tar files would need their pickles run.

    Raises:
        UserError: it is damaged, or holds more than plain values and tensors.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(len(ZIP)) == ZIP:
                return _from_zip(file, stream)
            if tarfile.is_tarfile(file):
                raise ValueError("it is a tar file of 2016; load and save it once with torch 0.4")
            stream.seek(0)
            return _from_legacy(file, stream)
    except Exception as broken:  # an unpickler raises whatever a damaged file makes it stumble over
        reason = (str(broken) or type(broken).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be read as a whole file of plain tensors: {reason}.") from None


def _from_zip(file: Path, stream: BufferedIOBase) -> Any:
    try:
        archive = zipfile.ZipFile(stream)
    except zipfile.BadZipFile:
        raise ValueError("its end is missing; copy or download it again") from None
    names = archive.namelist()
    folder = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
    if folder is None:
        raise ValueError("there is no data.pkl in it")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are big-endian")
    values = PlainUnpickler(BytesIO(archive.read(f"{folder}data.pkl"))).load()
    storages = {}
    for entry in archive.infolist():
        if entry.filename.startswith(f"{folder}data/") and entry.compress_type == zipfile.ZIP_STORED:
            begin = _content(stream, entry)
            if begin + entry.file_size > archive.start_dir:
                raise ValueError(f"{entry.filename} in it begins at {begin:,} and reaches beyond the others")
            storages[entry.filename.removeprefix(f"{folder}data/")] = (begin, entry.file_size)
    return _placed(values, file, storages)


def _content(stream: BufferedIOBase, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: after its local header, whose name and extra field have their own lengths."""
    stream.seek(entry.header_offset)
    header = stream.read(LOCAL_HEADER)
    return entry.header_offset + LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _from_legacy(file: Path, stream: BufferedIOBase) -> Any:
    """Pickles of a magic number, a version, the machine, the values and the keys of storages; then each one's length and bytes."""
    if PlainUnpickler(stream).load() != LEGACY:
        raise ValueError("it is none of torch's")
    PlainUnpickler(stream).load()
    if not PlainUnpickler(stream).load()["little_endian"]:
        raise ValueError("its numbers are big-endian")
    unpickler = PlainUnpickler(stream)
    values = unpickler.load()
    storages, size = {}, file.stat().st_size
    for key in PlainUnpickler(stream).load():
        nbytes = int.from_bytes(stream.read(8), "little") * unpickler.dtypes[key].itemsize
        storages[key] = (stream.tell(), nbytes)
        if stream.seek(nbytes, 1) > size:
            raise ValueError(f"it has {size:,} bytes of at least {stream.tell():,}; copy or download it again")
    return _placed(values, file, storages)


def _placed(values: Any, file: Path, storages: dict[str, tuple[int, int]]) -> Any:
    """The same values, every tensor as its place in the file; `storages` says where each one begins and its bytes."""
    if isinstance(values, Rebuilt):
        return _stored(values, file, *storages[values.storage.key])
    if isinstance(values, dict):
        return {key: _placed(value, file, storages) for key, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(_placed(value, file, storages) for value in values)
    return values


def _stored(tensor: Rebuilt, file: Path, start: int, nbytes: int) -> Stored:
    dtype, first = tensor.storage.dtype, tensor.storage.first + tensor.first
    end = (first + span(tensor.shape, tensor.stride)) * dtype.itemsize
    if min(first, *tensor.shape, *tensor.stride, 0) < 0 or end > nbytes:
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its bytes")
    return Stored(file, start + first * dtype.itemsize, dtype, tensor.shape, tensor.stride)
