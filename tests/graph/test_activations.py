"""Memory of activations, told from the graph."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from cellrt.graph.activations import activation_bytes  # noqa: E402
from cellrt.runtime.model.file import bundled_models, open_model  # noqa: E402


def graph_of(*nodes, kernels):
    """A graph from `image` (1 channel) to `fields`, with 1x1x1 kernels (out, in)."""
    axes = ["n", 1, "z", "y", "x"]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, axes)],
            [helper.make_tensor_value_info("fields", TensorProto.FLOAT, ["n", 2, "z", "y", "x"])],
            [
                numpy_helper.from_array(np.ones((*shape, 1, 1, 1), np.float32), name)
                for name, shape in kernels.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )


def test_a_chain_holds_two_neighbours_at_a_time():
    graph = graph_of(
        helper.make_node("Conv", ["image", "a"], ["wide"]),  # 4 + 32 bytes
        helper.make_node("Relu", ["wide"], ["positive"]),  # in place: 32
        helper.make_node("Conv", ["positive", "b"], ["fields"]),  # 32 + 8
        kernels={"a": (8, 1), "b": (2, 8)},
    )
    assert activation_bytes(graph, 8) == 40


def test_a_skip_connection_is_held_until_it_is_used():
    graph = graph_of(
        helper.make_node("Conv", ["image", "a"], ["skip"]),
        helper.make_node("Relu", ["skip"], ["positive"]),  # the skip is used again: 32 + 32
        helper.make_node("Conv", ["positive", "b"], ["more"]),  # 32 + 32 + 32
        helper.make_node("Add", ["skip", "more"], ["sum"]),
        helper.make_node("Conv", ["sum", "c"], ["fields"]),
        kernels={"a": (8, 1), "b": (8, 8), "c": (2, 8)},
    )
    assert activation_bytes(graph, 8) == 96


def test_what_lies_on_a_coarser_grid_weighs_less():
    graph = graph_of(
        helper.make_node("Conv", ["image", "a"], ["coarse"], strides=[2, 2, 2]),  # 4 + 64 / 8
        helper.make_node("ConvTranspose", ["coarse", "b"], ["fields"], strides=[2, 2, 2]),
        kernels={"a": (16, 1), "b": (16, 2)},
    )
    fields = onnx.helper.make_attribute("kernel_shape", [1, 1, 1])
    graph.graph.node[1].attribute.append(fields)
    graph.graph.node[1].attribute.append(onnx.helper.make_attribute("output_padding", [1, 1, 1]))
    assert activation_bytes(graph, 8) == 16  # 64 / 8 + 8


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_say_what_they_need(name):
    model = open_model(name)
    assert model.card.activation_bytes == activation_bytes(
        onnx.load(str(model.path)), model.card.multiple
    )
