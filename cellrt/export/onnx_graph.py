"""Write a folded network as an ONNX graph with the model card inside."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from cellrt.runtime.card import METADATA_KEY, ModelCard

OPSET = 20
INPUT, OUTPUT = "image", "fields"


def build_graph(net: nn.Module, size_multiple: int) -> onnx.ModelProto:
    """Trace a network to ONNX with dynamic batch and spatial axes.

    Parameters
    ----------
    net : nn.Module
        In evaluation mode, batch norm folded.
    size_multiple : int
        Spatial sizes are multiples of this.

    Returns
    -------
    onnx.ModelProto
        Input ``image`` (n, 1, z, y, x), output ``fields`` (n, 4, z, y, x), float32.
    """
    example = torch.zeros(2, 1, 2 * size_multiple, 3 * size_multiple, 4 * size_multiple)
    dynamic = {0: torch.export.Dim.DYNAMIC}
    dynamic |= dict.fromkeys((2, 3, 4), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(dynamic,),
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


def embed_card(graph: onnx.ModelProto, card: ModelCard) -> None:
    """Put a model card into ``metadata_props``, replacing one that is there."""
    kept = [entry for entry in graph.metadata_props if entry.key != METADATA_KEY]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    graph.metadata_props.add(key=METADATA_KEY, value=card.to_json())


def write_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Check and save a graph; the file appears whole or not at all."""
    onnx.checker.check_model(graph)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(graph.SerializeToString())
    partial.replace(path)


def _name_axes(graph: onnx.ModelProto) -> None:
    """Give the free axes names that a reader understands."""
    for value in (*graph.graph.input, *graph.graph.output):
        dims = value.type.tensor_type.shape.dim
        for index, name in ((0, "n"), (2, "z"), (3, "y"), (4, "x")):
            dims[index].ClearField("dim_value")
            dims[index].dim_param = name
