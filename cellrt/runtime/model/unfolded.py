"""What engines take that unfold a network's transposed convolutions, told from its file alone.

They compute what each voxel adds to all that its kernel reaches, and only then add it up. Where a
kernel is twice as wide as its step that is eight times what comes out.
"""

from __future__ import annotations

import math

from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.protobuf import integers, messages

# Field numbers in the public onnx.proto3: of ModelProto; of GraphProto; of NodeProto; of
# AttributeProto; of TensorProto.
_GRAPH = 7
_NODE, _INITIALIZER = 1, 5
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _INTEGERS = 1, 8
_DIMS, _TENSOR_NAME = 1, 8


def unfolded_bytes(model: ModelFile) -> float:
    """Bytes per voxel of a tile that the last transposed convolution unfolds to, in float32.

    The ones before it have many times fewer voxels. What comes out of the last one is as fine as
    what comes out of the network, as in every U-Net of ours.

    Returns
    -------
    float
        0 for networks without any, and where other writers keep weights elsewhere than ours do.
    """
    shapes: dict[str, list[int]] = {}
    made_of: dict[str, str] = {}
    last: memoryview | None = None
    for graph in messages(memoryview(model.content), _GRAPH):
        for tensor in messages(graph, _INITIALIZER):
            name = b"".join(messages(tensor, _TENSOR_NAME)).decode()
            shapes[name] = integers(tensor, _DIMS)
        for node in messages(graph, _NODE):
            inputs = [bytes(name).decode() for name in messages(node, _INPUT)]
            if bytes(next(messages(node, _OP_TYPE))) == b"ConvTranspose":
                last = node
            elif inputs:  # weights may be stored in another precision
                made_of |= {bytes(name).decode(): inputs[0] for name in messages(node, _OUTPUT)}
    if last is None:
        return 0.0
    _, weights, *_ = (bytes(name).decode() for name in messages(last, _INPUT))
    while weights in made_of and weights not in shapes:
        weights = made_of[weights]
    if weights not in shapes:
        return 0.0
    _, channels, *kernel = shapes[weights]
    steps = 1
    for attribute in messages(last, _ATTRIBUTE):
        if bytes(next(messages(attribute, _ATTRIBUTE_NAME))) == b"strides":
            steps = math.prod(integers(attribute, _INTEGERS))
    coarser = steps * model.card.output_stride ** (2 if model.card.planar else 3)
    return 4 * channels * math.prod(kernel) / coarser
