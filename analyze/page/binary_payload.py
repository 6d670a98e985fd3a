"""Arrays -> text that a page carries: little-endian numbers and JSON, compressed, in base64. `report_packed.js` reads it.

Numbers by column compress well and a browser opens them without parsing; base64 holds nothing that could end a <script>.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping

import numpy as np
import polars as pl
from jaxtyping import Shaped

Array = Shaped[np.ndarray, " _"]
KINDS = ("u1", "u2", "i4", "f4", "f8")  # all that the page reads


def packed(content: object, arrays: Mapping[str, Array]) -> str:
    """`content` is anything JSON holds; arrays are stored in the smallest of `KINDS` that they already fit."""
    where, parts, at = {}, [], 0
    for name, array in arrays.items():
        kind = array.dtype.str[1:]
        assert kind in KINDS, f"{name} is {array.dtype}"
        raw = array.astype("<" + kind).tobytes()
        where[name] = (kind, at, len(array))
        parts += [raw, bytes(-len(raw) % 8)]  # typed arrays begin at multiples of their size
        at += len(raw) + -len(raw) % 8
    head = json.dumps({"content": content, "arrays": where}, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    head += b" " * (-len(head) % 8)
    together = np.array([len(head), 0], "<u4").tobytes() + head + b"".join(parts)
    return b64encode(gzip.compress(together, compresslevel=6, mtime=0)).decode()


def whole(numbers: pl.Series) -> Array:
    """Whole numbers, not below 0, in the fewest bytes; one that is missing is -1, or NaN if they are past 32 bits."""
    most, missing = int(numbers.max() or 0), numbers.null_count() > 0  # type: ignore[arg-type]
    if most >= 2**31:
        return numbers.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    kind = "i4" if missing or most >= 2**16 else "u2" if most >= 2**8 else "u1"
    return numbers.fill_null(-1).to_numpy().astype(kind)


def rounded(numbers: pl.Series) -> Array:
    """Real numbers to four digits and more, as many as a page shows, so that they compress; NaN where one is missing."""
    bits = numbers.cast(pl.Float32).fill_null(float("nan")).to_numpy().copy().view(np.uint32)
    finite = np.isfinite(bits.view(np.float32))
    bits[finite] = (bits[finite] + 0x80) & 0xFFFFFF00
    return bits.view(np.float32)
