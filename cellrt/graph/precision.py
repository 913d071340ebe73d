"""Precision written into the graph: fp16, bf16 or int8, for every engine from one file. No torch.

Engines with strong typing (TensorRT 11, TensorRT-RTX) compute in exactly the types a graph states,
so the graph must state them. Input and output stay float32 and all axes stay free.

What a network computes of the place of a tile alone, waves of up to some hundred radians, stays in
float32 in every precision.

fp16 and bf16
    These networks consist of convolutions, ReLU, concatenation and two activations, with the norms
    folded away. Casting the weights and the two ends is therefore the whole conversion. ONNX
    Runtime's ``float16`` and onnxconverter-common make the same graph out of it for fp16 (same
    size, same error) and know no bf16; NVIDIA ModelOpt's ONNX tools require PyTorch and CuPy. For
    bf16 the transposed convolutions stay in fp32, because TensorRT-RTX has none in bf16.

int8
    Q/DQ pairs: int8 weights with one symmetric scale per output channel, int8 activations with one
    symmetric scale per tensor, which is what TensorRT demands. Pairs stand in front of
    convolutions only, so that every engine can fuse what lies between. Transposed convolutions
    stay in fp32: TensorRT takes their weights' scales as those of input channels, and computes
    garbage where they are of output channels (NVIDIA/TensorRT #1694, #2380). The pairs are placed
    here and not by ONNX Runtime's quantiser or NNCF, because OpenVINO 2026.4 computes garbage
    where a quantised tensor is a concatenation, however it was quantised; see
    `_quantise_concatenation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cellrt.errors import InputError, UsageError
from cellrt.graph.file import embed_card, embedded_card, replace_nodes

Precision = Literal["fp16", "bf16", "int8"]
Tile = NDArray[np.float32]

# What int8 computes.
QUANTISED = "Conv"
# Share of an activation's values that its int8 range covers. The largest value is an outlier: with
# it as the limit the mean error of the fields is 1.3 to 1.6 times larger.
COVERED_PERCENT = 99.99
# Weights use 7 of their 8 bits. CPUs without VNNI add two 8-bit products in 16 bits, which 8-bit
# weights overflow; so 7 bits give the same result on every CPU. The mean error grows by a tenth.
LARGEST_WEIGHT = 63
LARGEST_ACTIVATION = 127
# ONNX has bf16 convolutions from this version on. The operators used here mean the same in both.
BF16_OPSET = 22


def convert(
    graph: onnx.ModelProto,
    precision: Precision,
    *,
    calibration: Sequence[Tile] = (),
    exact_last: int = 1,
) -> onnx.ModelProto:
    """Write a precision into a float32 graph.

    Parameters
    ----------
    graph : onnx.ModelProto
        float32, as `cellrt export` writes it; not changed.
    precision : {"fp16", "bf16", "int8"}
    calibration : sequence of (1, channels, z, y, x) float32 arrays
        Normalised tiles on the model's grid, for int8: they set the range of every activation.
    exact_last : int
        So many convolutions at the end stay in float32 for int8. The first one always does, and all
        transposed ones.

    Returns
    -------
    onnx.ModelProto
        float32 in and out, the same free axes; an embedded model card states the precision and
        has no golden output any more, because that was computed in float32.

    Raises
    ------
    UsageError
        Unknown precision, a graph that is not float32, no calibration tiles for int8.
    InputError
        Calibration tiles of a wrong shape, without contrast or not finite.
    """
    if precision not in get_args(Precision):
        raise UsageError(
            f"no precision {precision!r} to convert to; choose {', '.join(get_args(Precision))}"
        )
    card = embedded_card(graph)
    if (card is not None and card.precision != "fp32") or _is_converted(graph):
        raise UsageError("the graph is not float32; convert the fp32 model")
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    if precision == "int8":
        _check_tiles(calibration)
        _quantise(result, _activation_limits(graph, calibration, exact_last))
    else:
        _lower(result, TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16)
    if card is not None:
        embed_card(result, replace(card, precision=precision, golden=None))
    onnx.checker.check_model(result, full_check=True)
    return result


def rounded(graph: onnx.ModelProto, precision: Literal["fp16", "bf16"]) -> onnx.ModelProto:
    """Make a float32 graph that rounds weights and every layer's output to a lower precision.

    A CPU computes an fp16 graph in float32 throughout and would hide overflow and rounding of
    activations. This graph has both; only sums inside a layer keep float32, as tensor cores do.

    Parameters
    ----------
    graph : onnx.ModelProto
        float32; not changed.
    precision : {"fp16", "bf16"}

    Returns
    -------
    onnx.ModelProto
        For checking only: nothing in it is smaller or faster.
    """
    low = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16
    kind = helper.tensor_dtype_to_np_dtype(low)
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    kept = _constants_of_the_place(result.graph)
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            values = numpy_helper.to_array(tensor).astype(kind).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = []
    exact = _of_the_place(result.graph)
    for node in result.graph.node:
        name = node.output[0]
        if name in exact:
            nodes.append(node)
            continue
        node.output[0] = f"{name}.exact"
        nodes += [
            node,
            helper.make_node("Cast", [f"{name}.exact"], [f"{name}.{precision}"], to=low),
            helper.make_node("Cast", [f"{name}.{precision}"], [name], to=TensorProto.FLOAT),
        ]
    replace_nodes(result, nodes)
    return result


def _lower(model: onnx.ModelProto, low: int) -> None:
    """Cast weights to a 16-bit type, and the tensors at both ends of the graph."""
    graph = model.graph
    image, fields = graph.input[0].name, graph.output[0].name
    full = {"ConvTranspose"} if low == TensorProto.BFLOAT16 else set()
    exact = _of_the_place(graph)
    kept = {name for node in graph.node if node.op_type in full for name in node.input[1:]}
    kept |= _constants_of_the_place(graph)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(low))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = [helper.make_node("Cast", [image], [f"{image}.low"], to=low)]
    lowered = {image} | _floats(model) & exact
    for node in graph.node:
        if node.output[0] in exact:
            nodes.append(node)
            continue
        for name in node.input:
            if name in lowered and name in exact and f"{name}.low" not in lowered:
                nodes.append(helper.make_node("Cast", [name], [f"{name}.low"], to=low))
                lowered.add(f"{name}.low")
        node.input[:] = [f"{name}.low" if name in lowered else name for name in node.input]
        node.output[:] = [f"{name}.low" if name == fields else name for name in node.output]
        if node.op_type in full:
            (source, result) = (node.input[0], node.output[0])
            node.input[0], node.output[0] = f"{result}.in", f"{result}.full"
            nodes += [
                helper.make_node("Cast", [source], [f"{result}.in"], to=TensorProto.FLOAT),
                node,
                helper.make_node("Cast", [f"{result}.full"], [result], to=low),
            ]
        else:
            nodes.append(node)
    nodes.append(helper.make_node("Cast", [f"{fields}.low"], [fields], to=TensorProto.FLOAT))
    replace_nodes(model, nodes)
    if low == TensorProto.BFLOAT16:
        for entry in model.opset_import:
            if entry.domain == "":
                entry.version = max(entry.version, BF16_OPSET)


def _of_the_place(graph: onnx.GraphProto) -> set[str]:
    """Results that depend on where a tile lies and how large it is, and not on what it shows."""
    image, *others = (entry.name for entry in graph.input)
    if not others:
        return set()
    shown = {image}
    found: set[str] = set()
    for node in graph.node:
        if node.op_type != "Shape" and shown.intersection(node.input):
            shown.update(node.output)
        else:
            found.update(node.output)
    return found


def _constants_of_the_place(graph: onnx.GraphProto) -> set[str]:
    """What `_of_the_place` is computed with."""
    exact = _of_the_place(graph)
    return {name for node in graph.node if node.output[0] in exact for name in node.input}


def _floats(model: onnx.ModelProto) -> set[str]:
    """Results of nodes that are float32."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name
        for value in inferred.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _quantise(model: onnx.ModelProto, limits: dict[str, float]) -> None:
    """Put Q/DQ pairs in front of the convolutions whose activations have a limit."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = dict(weights)
    added: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    concatenations = {n.output[0] for n in model.graph.node if n.op_type == "Concat"}
    for node in model.graph.node:
        if node.op_type == QUANTISED and node.input[0] in limits:
            source, weight = node.input[0], node.input[1]
            if source not in done:
                done.add(source)
                place = _quantise_concatenation if source in concatenations else _quantise_tensor
                nodes += place(source, limits[source] / LARGEST_ACTIVATION, added)
            nodes.append(_quantise_weight(weights[weight], added))
            kept.pop(weight, None)
            node.input[0], node.input[1] = f"{source}.int8", f"{weight}.int8"
        nodes.append(node)
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept.values(), *added])
    replace_nodes(model, nodes)


def _quantise_tensor(name: str, scale: float, added: list[TensorProto]) -> list[onnx.NodeProto]:
    """Make the Q/DQ pair from tensor ``name`` to ``name.int8``."""
    added.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}.scale"))
    added.append(numpy_helper.from_array(np.array(0, np.int8), f"{name}.zero"))
    return _pair(name, name, f"{name}.int8", "")


def _quantise_concatenation(
    name: str, scale: float, added: list[TensorProto]
) -> list[onnx.NodeProto]:
    """Make two Q/DQ pairs in a row, which mean the same as one.

    OpenVINO moves the first pair in front of the concatenation. With that pair alone it then
    rounds the branches to whole numbers instead of steps of the scale (2026.4, CPU; wrong by a
    fifth of the values). The second pair keeps it correct.
    """
    first = _quantise_tensor(name, scale, added)
    first[-1].output[0] = f"{name}.once"
    return [*first, *_pair(f"{name}.once", name, f"{name}.int8", ".again")]


def _pair(source: str, name: str, result: str, suffix: str) -> list[onnx.NodeProto]:
    parameters = [f"{name}.scale", f"{name}.zero"]
    levels = f"{name}.levels{suffix}"
    return [
        helper.make_node(
            "QuantizeLinear", [source, *parameters], [levels], name=f"{name}.q{suffix}"
        ),
        helper.make_node(
            "DequantizeLinear", [levels, *parameters], [result], name=f"{name}.dq{suffix}"
        ),
    ]


def _quantise_weight(tensor: TensorProto, added: list[TensorProto]) -> onnx.NodeProto:
    """Store a weight as int8 with one scale per output channel, and make its DequantizeLinear."""
    values, name = numpy_helper.to_array(tensor), tensor.name
    others = tuple(range(1, values.ndim))  # output channels come first
    scale = (np.abs(values).max(others) / LARGEST_WEIGHT).astype(np.float32)
    scale[scale == 0] = 1  # a channel of zeros
    levels = np.rint(values / np.expand_dims(scale, others)).astype(np.int8)
    added.append(numpy_helper.from_array(levels, f"{name}.levels"))
    added.append(numpy_helper.from_array(scale, f"{name}.scale"))
    added.append(numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}.zero"))
    return helper.make_node(
        "DequantizeLinear",
        [f"{name}.levels", f"{name}.scale", f"{name}.zero"],
        [f"{name}.int8"],
        name=f"{name}.dq",
        axis=0,
    )


def _activation_limits(
    graph: onnx.ModelProto, tiles: Sequence[Tile], exact_last: int
) -> dict[str, float]:
    """Run the tiles and return, for each activation to quantise, the magnitude int8 must cover.

    The first and the last convolution are left out: the image's grey levels and the flow's
    direction suffer most (with them the error is three to four times larger), and they are cheap.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            f"int8 calibration runs in ONNX Runtime, which does not load ({error}); "
            "run `pip install 'cellrt[onnxruntime]'`"
        ) from None
    convolutions = [node for node in graph.graph.node if node.op_type == QUANTISED]
    inner = convolutions[1 : len(convolutions) - exact_last]
    names = sorted({node.input[0] for node in inner} - {graph.graph.input[0].name})
    if not names:
        raise UsageError("the graph has no inner convolution that int8 could make faster")
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    limits = dict.fromkeys(names, 0.0)
    for tile in tiles:
        for name, values in zip(
            names, session.run(names, {graph.graph.input[0].name: tile}), strict=True
        ):
            covered = float(np.percentile(np.abs(values), COVERED_PERCENT))
            limits[name] = max(limits[name], covered)
    return {name: limit or 1.0 for name, limit in limits.items()}


def _check_tiles(tiles: Sequence[Tile]) -> None:
    if not len(tiles):
        raise UsageError("int8 needs calibration tiles; give --calibrate stack.tif")
    for tile in tiles:
        if tile.ndim != 5 or tile.shape[0] != 1:
            raise InputError(
                f"a calibration tile has the shape {tile.shape}, expected (1, channels, z, y, x); "
                "calibrate with stacks"
            )
        if not np.isfinite(tile).all():
            raise InputError("a calibration tile has NaN or infinite values; use another stack")
        if tile.min() == tile.max():
            raise InputError("a calibration tile is constant; use a stack with cells in it")


def _is_converted(graph: onnx.ModelProto) -> bool:
    """Whether there are quantised or 16-bit tensors already, card or not."""
    low = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8}
    return any(tensor.data_type in low for tensor in graph.graph.initializer)
