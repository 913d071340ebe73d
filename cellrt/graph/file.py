"""The ONNX file around a graph: card in, checked and written whole. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from cellrt.files import write_whole
from cellrt.runtime.model.card import METADATA_KEY, ModelCard

# Bytes; what says where they are takes a tenth of that.
_WORTH_SHARING = 1024


def embed_card(graph: onnx.ModelProto, card: ModelCard) -> None:
    """Put a model card into ``metadata_props``, replacing one that is there."""
    kept = [entry for entry in graph.metadata_props if entry.key != METADATA_KEY]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    graph.metadata_props.add(key=METADATA_KEY, value=card.to_json())


def embedded_card(graph: onnx.ModelProto) -> ModelCard | None:
    """Return the card in ``metadata_props``, or None where there is none."""
    for entry in graph.metadata_props:
        if entry.key == METADATA_KEY:
            return ModelCard.from_json(entry.value)
    return None


def write_graph(graph: onnx.ModelProto, path: Path, base: Path | None = None) -> None:
    """Check and save a graph; the file appears whole or not at all.

    Parameters
    ----------
    graph : onnx.ModelProto
        With all its weights.
    path : Path
    base : Path, optional
        A model file beside it. Large weights whose bytes are in there as well are not written once
        more: the file says where they are.
    """
    onnx.checker.check_model(graph)
    written = graph if base is None else _sharing(graph, base)
    write_whole(path, written.SerializeToString())


def _sharing(graph: onnx.ModelProto, base: Path) -> onnx.ModelProto:
    """Return the same graph with large weights taken out of another file where they are in it."""
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    content = base.read_bytes()
    for tensor in result.graph.initializer:
        length = len(tensor.raw_data)
        begin = content.find(tensor.raw_data) if length >= _WORTH_SHARING else -1
        if begin < 0:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", base.name), ("offset", begin), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    return result


def replace_nodes(graph: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Let a graph consist of these nodes, which may be its own."""
    # Copies, because clearing the list ends the life of its members.
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.graph.node[:]
    graph.graph.node.extend(copies)
