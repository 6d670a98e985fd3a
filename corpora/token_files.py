"""file of ids -> sequences: ids that somebody else made, in a .npy of sequences or nanoGPT's .bin of one stream."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32

from errors import UserError
from paths import expanded

LLM_C = 20240520  # the first int32 of the .bin files of llm.c, whose ids stand behind a header


def read_array(where: str) -> Int32[np.ndarray, "sequence position"]:
    """The integers [sequences, positions] of a .npy, as they are. `UserError` for any other file."""
    path = _file(where)
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as mistake:  # numpy parses the header as Python, and raises whatever that raises
        raise UserError(f"{path} is not a .npy array: save one with numpy.save, integers [sequences, positions].") from mistake
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not np.issubdtype(array.dtype, np.integer) or not array.size:
        what = f"{array.dtype} of shape {list(array.shape)}" if isinstance(array, np.ndarray) else "several arrays"
        raise UserError(f"{path} holds {what}: token ids are an array of integers [sequences, positions].")
    for extreme, name in ((array.min(), "negative"), (array.max(), "beyond int32")):
        if not 0 <= extreme < 2**31:
            sequence, position = np.argwhere(array == extreme)[0]
            raise UserError(f"{path} holds the id {extreme} at sequence {sequence}, position {position}: no token id is {name}.")
    return array.astype(np.int32)


def read_stream(where: str, eos: int, wanted: int, context: int, bos: bool) -> Int32[np.ndarray, "sequence position"]:
    """The first `wanted` sequences of nanoGPT's .bin, raw uint16 ids; each is `eos` and the next `context` - 1 ids, or `context` ids."""
    path = _file(where)
    size = path.stat().st_size
    if size % 2 or not size:
        raise UserError(f"{path} has {size:,} bytes, but uint16 ids take two each: it is damaged, or no .bin of nanoGPT.")
    ids = np.memmap(path, dtype="<u2", mode="r")
    if size >= 4 and ids[:2].view("<i4")[0] == LLM_C:
        raise UserError(f"{path} is a .bin of llm.c, with a header: cut its first 1,024 bytes off (tail -c +1025 {path}).")
    fresh = context - bos
    count = min(wanted, len(ids) // fresh)
    if not count:
        raise UserError(f"{path} holds {len(ids):,} ids, no whole sequence of {context}: take a larger one or a shorter context.")
    read = ids[: count * fresh].astype(np.int32)
    if eos not in read and eos not in ids:
        raise UserError(
            f"no document of {path} ends: the id corpus.eos={eos} is nowhere in it. GPT-2's is 50256, without a tokenizer none."
        )
    sequences = np.full((count, context), eos, dtype=np.int32)
    sequences[:, int(bos) :] = read.reshape(count, fresh)
    return sequences


def _file(where: str) -> Path:
    path = Path(expanded(where))
    if not path.is_file():
        raise UserError(
            f"corpus.path={path} does not exist. Give a .npy with an integer array [sequences, positions], or a .bin."
        )
    return path
