"""64 numbers -> one word: which of them are above zero. What a processor's vector compare gives in a few instructions."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


@intrinsic
def signs_of_64(typing: Any, numbers: Any, first: Any) -> Any:
    """Bit i of the word is whether the integer at `first + i` of a contiguous array is above zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type = signature.args
        array = context.make_array(array_type)(context, builder, arguments[0])
        index = context.cast(builder, arguments[1], index_type, types.intp)
        lanes = ir.VectorType(context.get_data_type(array_type.dtype), 64)
        begin = builder.bitcast(builder.gep(array.data, [index]), lanes.as_pointer())
        values = builder.load(begin, align=array_type.dtype.bitwidth // 8)
        above = builder.icmp_signed(">", values, ir.Constant(lanes, None))
        return builder.bitcast(above, ir.IntType(64))

    return types.uint64(numbers, first), generate
