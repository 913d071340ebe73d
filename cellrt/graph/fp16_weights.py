"""Weights stored as fp16 in a float32 graph: half the file, the same computation. No torch here.

A Cast behind each weight gives it back as float32; engines do that once, when they load the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cellrt.errors import CellrtError
from cellrt.graph.file import replace_nodes
from cellrt.runtime.model.file import open_model

_SUFFIX = ".fp16"


def store_as_fp16(graph: onnx.ModelProto) -> None:
    """Store the kernels of a graph as fp16; what weighs nothing stays exact, as biases and slopes.

    Parameters
    ----------
    graph : onnx.ModelProto
        float32; changed in place.

    Raises
    ------
    CellrtError
        When a weight is beyond the range of fp16.
    """
    casts = []
    kernels = {
        node.input[1] for node in graph.graph.node if node.op_type in ("Conv", "ConvTranspose")
    }
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or tensor.name not in kernels:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise CellrtError(
                f"weight {tensor.name} has values beyond fp16's range; store fp32 weights"
            )
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + _SUFFIX))
        casts.append(helper.make_node("Cast", [name + _SUFFIX], [name], to=TensorProto.FLOAT))
    replace_nodes(graph, [*casts, *graph.graph.node])


def load_exact(path: str | Path) -> onnx.ModelProto:
    """Load an exported file with every weight as float32, however and wherever it stores them."""
    return stored_as_fp32(onnx.load_from_string(open_model(path).content))


def stored_as_fp32(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same graph with every weight as float32; undoes `store_as_fp16` up to rounding."""
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    stored = {t.name: t for t in result.graph.initializer if t.name.endswith(_SUFFIX)}
    nodes = []
    for node in result.graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None:
            nodes.append(node)
        else:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    replace_nodes(result, nodes)
    return result
