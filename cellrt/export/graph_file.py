"""The ONNX file around a graph: card in, checked and written whole. No torch here."""

from __future__ import annotations

from pathlib import Path

import onnx

from cellrt.runtime.card import METADATA_KEY, ModelCard
from cellrt.runtime.outputs import write_whole


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
