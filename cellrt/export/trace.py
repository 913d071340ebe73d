"""Trace a folded network to an ONNX graph."""

from __future__ import annotations

import warnings

import onnx
import torch

from cellrt.geometry import Shape
from cellrt.models.layers.network import Network
from cellrt.runtime.model.card import INPUT, OUTPUT, TURNS

OPSET = 20


def build_graph(net: Network, size_multiples: Shape) -> onnx.ModelProto:
    """Trace a network to ONNX with dynamic batch and spatial axes.

    Parameters
    ----------
    net : Network
        In evaluation mode, batch norm folded.
    size_multiples : (int, int, int)
        Spatial sizes (z, y, x) are multiples of these.

    Returns
    -------
    onnx.ModelProto
        Input ``image`` (n, 1, z, y, x), for a network that takes turns also ``turns`` (n, guides),
        output ``fields`` (n, channels, z, y, x), float32.
    """
    z, y, x = size_multiples
    free = torch.export.Dim.DYNAMIC
    examples = [torch.zeros(2, 1, 2 * z, 3 * y, 4 * x)]
    dynamic = [{0: free, 2: free, 3: free, 4: free}]
    if net.takes_turns:
        examples.append(torch.zeros(2, net.takes_turns))
        dynamic.append({0: free})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            tuple(examples),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT, TURNS][: len(examples)],
            output_names=[OUTPUT],
            dynamic_shapes=tuple(dynamic),
            verbose=False,
            optimize=True,
        )
    assert program is not None
    graph = program.model_proto
    _name_axes(graph)
    for node in graph.graph.node:  # source locations of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    return graph


def _name_axes(graph: onnx.ModelProto) -> None:
    """Give the free axes names that a reader understands."""
    for value in (*graph.graph.input, *graph.graph.output):
        dims = value.type.tensor_type.shape.dim
        for index, name in ((0, "n"), (2, "z"), (3, "y"), (4, "x"))[: 1 if len(dims) == 2 else 4]:
            dims[index].ClearField("dim_value")
            dims[index].dim_param = name
