"""Memory that a kernel asks for before it needs it, where it knows which will be needed next.

A processor foresees what is read one behind the other, and not what a list of places leads to. This
becomes part of the kernels that use it, which `cellrt.compiled` keeps until a source that names it
changes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Of LLVM: for reading, kept in all caches, data.
_READ, _KEPT, _DATA = 0, 3, 1


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for an element of a flat array, which need not exist; nothing is read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        word = ir.IntType(32)
        place = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(ask, [place, word(_READ), word(_KEPT), word(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate
