"""Compile the GPU's kernels to machine code for a GPU of these times, which needs none: python tests/compile_kernels.py"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from analyze.firing import bit_sliced_triton as triton_kernel
from analyze.firing import device_sums, packing


def machine_code(kernel: Any, types: dict[str, str], constants: dict[str, Any], odd: set[str], warps: int = 4) -> str:
    """PTX for an H100, which ptxas has taken. Pointers and sizes but the `odd` ones are multiples of 16, as they are at OPT's shapes."""
    names = list(kernel.arg_names)
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in odd | constants.keys()}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert made.asm["cubin"]
    return str(made.asm["ptx"])


def kernels() -> Iterator[tuple[str, str]]:
    """Name and PTX of each kernel, as it is launched."""
    sizes = {"STRETCH": packing.STRETCH, "ROWS": packing.ROWS, "BYTES": packing.BYTES}
    pointers = {"counted": "*u8", "bits": "*u8", "max_pre": "*i32", "first": "*i64"}
    for dtype, bits, half in (("float16", 16, True), ("bfloat16", 16, False), ("float32", 32, False)):
        constants = {"HALF": half, "SIZE": bits, "LOWEST": -31745, **sizes}
        yield (
            f"pack_rows {dtype}",
            machine_code(triton_kernel.pack_rows, pointers | {"pre": f"*i{bits}"}, constants, {"rows", "offset"}),
        )
    pointers = dict.fromkeys(("bits", "order", "begins", "ends", "owner", "found"), "*i32") | {"alone": "*u8"}
    odd = {"first_piece", "first_segment", "blocks"}
    constants = {"ROWS": device_sums.ROWS, "WORDS": device_sums.WORDS}
    yield "add_rows", machine_code(triton_kernel.add_rows, pointers, constants, odd, warps=1)


if __name__ == "__main__":
    for name, ptx in kernels():
        assert re.search(r"ld\.global[.\w:]*v4\.b32", ptx), f"{name} does not load 16 bytes a thread"
        assert ".local" not in ptx, f"{name} has not registers enough"
        print(name, "compiles")
