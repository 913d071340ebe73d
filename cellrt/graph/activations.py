"""How much memory a graph's activations take, told from the graph alone. No torch here."""

from __future__ import annotations

import math

import onnx

from cellrt.graph.fp16_weights import stored_as_fp32

# Input sizes of which the bytes are counted, in steps of the network's stride.
_STEPS = 8


def activation_bytes(graph: onnx.ModelProto, size_multiple: int) -> int:
    """Peak of the activations alive at once, per voxel of the input.

    Parameters
    ----------
    graph : onnx.ModelProto
        Input (n, 1, z, y, x); weights may be stored as fp16.
    size_multiple : int
        Spatial sizes are multiples of this.

    Returns
    -------
    int
        Bytes in float32. An engine that writes over what it no longer needs takes at least so
        much; an activation function counts as if it worked in place, as in every engine.
    """
    edge = _STEPS * size_multiple
    sized = _with_shape(stored_as_fp32(graph), edge)
    # What depends on the tile's place alone is small, and constant where shapes are.
    bytes_of = dict.fromkeys((name for node in sized.graph.node for name in node.output), 0)
    bytes_of |= {
        value.name: 4 * math.prod(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*sized.graph.input, *sized.graph.value_info, *sized.graph.output)
    }
    nodes = sized.graph.node
    last_use = {name: place for place, node in enumerate(nodes) for name in node.input}
    alive = {sized.graph.input[0].name}
    peak = 0
    for place, node in enumerate(nodes):
        alive.update(node.output)
        in_place = (
            node.op_type in ("Relu", "PRelu", "Tanh", "Sigmoid")
            and last_use[node.input[0]] == place
        )
        held = alive - set(node.input) if in_place else alive
        peak = max(peak, sum(bytes_of[name] for name in held))
        alive = {name for name in alive if last_use.get(name, len(nodes)) > place}
    return math.ceil(peak / edge**3)


def _with_shape(graph: onnx.ModelProto, edge: int) -> onnx.ModelProto:
    """Fix the input at (1, 1, edge, edge, edge) and infer the shapes of all else."""
    for dim, size in zip(
        graph.graph.input[0].type.tensor_type.shape.dim, (1, 1, edge, edge, edge), strict=True
    ):
        dim.dim_value = size
    for further in graph.graph.input[1:]:
        further.type.tensor_type.shape.dim[0].dim_value = 1
    for output in graph.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
