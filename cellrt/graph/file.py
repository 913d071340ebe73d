"""The ONNX file around a graph: card in, checked and written whole. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from cellrt.files import write_whole
from cellrt.runtime.model.card import METADATA_KEY, ModelCard


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


def write_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Check and save a graph; the file appears whole or not at all."""
    onnx.checker.check_model(graph)
    write_whole(path, graph.SerializeToString())


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
