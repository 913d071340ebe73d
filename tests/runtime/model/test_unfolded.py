"""What engines that unfold transposed convolutions take, against the ONNX library's own reader."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cellrt.runtime.model.file import bundled_names, open_model
from cellrt.runtime.model.protobuf import integers
from cellrt.runtime.model.unfolded import unfolded_bytes


@dataclass
class Model:
    content: bytes
    card: SimpleNamespace


def model_of(nodes, weights, *, stride=1, planar=False):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, None)
    fields = helper.make_tensor_value_info("fields", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "network", [image], [fields], tensors)
    card = SimpleNamespace(output_stride=stride, planar=planar)
    return Model(helper.make_model(graph).SerializeToString(), card)


def up(image, weights, fields, step, axes=3):
    return helper.make_node("ConvTranspose", [image, weights], [fields], strides=[step] * axes)


def test_a_kernel_twice_as_wide_as_its_step_unfolds_to_eight_times_what_comes_out():
    wide = np.zeros((5, 7, 4, 4, 4), np.float32)
    model = model_of([up("image", "w", "fields", 2)], {"w": wide})
    assert unfolded_bytes(model) == 4 * 7 * 8
    narrow = model_of([up("image", "w", "fields", 2)], {"w": wide[..., :2, :2, :2]})
    assert unfolded_bytes(narrow) == 4 * 7


def test_the_last_one_counts_at_the_resolution_of_the_output():
    first, last = (np.zeros((n, n, 2, 2, 2), np.float32) for n in (64, 3))
    nodes = [up("image", "a", "x", 2), up("x", "b", "fields", 2)]
    assert unfolded_bytes(model_of(nodes, {"a": first, "b": last})) == 4 * 3
    assert unfolded_bytes(model_of(nodes, {"a": first, "b": last}, stride=2)) == 4 * 3 / 8
    flat = np.zeros((3, 3, 2, 2), np.float32)
    planar = model_of([up("image", "w", "fields", 2, 2)], {"w": flat}, stride=2, planar=True)
    assert unfolded_bytes(planar) == 4 * 3 / 4


def test_weights_may_be_stored_in_half_precision_and_there_may_be_none():
    nodes = [
        helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT),
        up("image", "w", "fields", 2),
    ]
    model = model_of(nodes, {"half": np.zeros((5, 7, 2, 2, 2), np.float16)})
    assert unfolded_bytes(model) == 4 * 7
    scaled = helper.make_node("DequantizeLinear", ["half", "scale", "zero"], ["w"])
    stored = {"half": np.zeros((5, 7, 2, 2, 2), np.int8), "scale": np.ones(7, np.float32)}
    stored["zero"] = np.zeros(7, np.int8)
    assert unfolded_bytes(model_of([scaled, nodes[1]], stored)) == 4 * 7
    elsewhere = helper.make_node("Constant", [], ["w"], value_float=0.0)
    assert unfolded_bytes(model_of([elsewhere, nodes[1]], {})) == 0
    assert unfolded_bytes(model_of([helper.make_node("Relu", ["image"], ["fields"])], {})) == 0


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_files_are_read_as_the_library_reads_them(name):
    model = open_model(name)
    graph = onnx.load_from_string(model.content).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes |= {
        node.output[0]: shapes[node.input[0]] for node in graph.node if node.input[0] in shapes
    }
    node = [node for node in graph.node if node.op_type == "ConvTranspose"][-1]
    steps = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "strides")
    stride = model.card.output_stride ** (2 if model.card.planar else 3)
    _, channels, *kernel = shapes[node.input[1]]
    expected = 4 * channels * np.prod(kernel) / np.prod(steps) / stride
    assert unfolded_bytes(model) == expected > 0


def test_whole_numbers_are_read_packed_and_one_by_one():
    apart = bytes([8, 3, 8, 0x96, 1, 16, 9])  # field 1: 3 and 150; field 2: 9
    packed = bytes([10, 3, 3, 0x96, 1, 16, 9])
    for message in (apart, packed):
        assert integers(memoryview(message), 1) == [3, 150]
        assert integers(memoryview(message), 2) == [9]
        assert integers(memoryview(message), 3) == []
