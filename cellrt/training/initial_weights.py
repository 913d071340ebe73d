"""Where a network's weights come from before training: a checkpoint or an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import GraphProto, numpy_helper
from torch import Tensor, nn

from cellrt.errors import InputError
from cellrt.graph.fp16_weights import load_exact
from cellrt.models.layers.fold import convolutions, fold_batch_norm, unfold_batch_norm
from cellrt.models.layers.network import Network
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.training.checkpoint import load_checkpoint
from cellrt.training.data.patches import PatchDataset
from cellrt.training.data.stacks import Stack
from cellrt.training.recipe import Recipe

_BATCHES = 8

Array = npt.NDArray[Any]


def initial_network(recipe: Recipe, stacks: Sequence[Stack]) -> Network:
    """Return a network with the weights that the recipe's ``init`` names.

    Parameters
    ----------
    recipe : Recipe
        ``init`` is a checkpoint (``.ckpt``) or ONNX file relative to the recipe, or the name of a
        bundled model.
    stacks : sequence of Stack
        Training stacks; the batch statistics that an exported model has lost are measured on them.

    Raises
    ------
    InputError
        When the file is missing or its network has another shape than the recipe's.

    Notes
    -----
    From an exported model of another method come the layers that both networks have: of the same
    name and shape. From a narrower one of the same method comes what it computes: new channels see
    all features, and nothing sees them until it has learned to (as Net2Net, Chen et al. 2016,
    without its copies).
    """
    assert recipe.init is not None
    file = recipe.folder / recipe.init
    if file.suffix == ".ckpt":
        net, other = load_checkpoint(file)
        for key in recipe.model.network_keys:  # the method first: others have no such key
            here, there = getattr(recipe.model, key), getattr(other.model, key)
            if here != there:
                raise InputError(
                    f"key 'init': {recipe.init} has {key} {there}, the recipe asks for {here}; "
                    f"make 'model.{key}' equal"
                )
        return net
    model = initial_model(recipe)
    net = recipe.method().network()
    same = model.card.method == recipe.model.method
    graph = load_exact(model.path).graph
    weights = _folded_weights(graph, net, model.path.name, partly=not same)
    data = PatchDataset(stacks, recipe)
    batches = [
        torch.stack([data[2 * batch][0], data[2 * batch + 1][0]]) for batch in range(_BATCHES)
    ]
    _set_slopes(net, graph)
    unfold_batch_norm(net, weights, batches)
    return net


def initial_model(recipe: Recipe) -> ModelFile:
    """Open the exported model that the recipe's ``init`` names: a file, or a bundled one."""
    assert recipe.init is not None
    file = recipe.folder / recipe.init
    return open_model(file if file.suffix == ".onnx" else recipe.init)


def folded_network(path: Path, net: Network) -> Network:
    """Return the network of an exported model, as the file has it: batch norm is folded.

    Parameters
    ----------
    path : Path
    net : Network
        One of the same layers, with any weights.

    Raises
    ------
    InputError
        When the file's convolutions are not those of `net`.
    """
    graph = load_exact(path).graph
    folded = fold_batch_norm(net)
    layers = dict(convolutions(folded))
    for name, (weight, bias) in _folded_weights(graph, net, path.name).items():
        layers[name].weight.data, layers[name].bias.data = weight, bias  # type: ignore[union-attr]
    _set_slopes(folded, graph)
    return folded


def _folded_weights(
    graph: GraphProto, net: Network, file: str, *, partly: bool = False
) -> dict[str, tuple[Tensor, Tensor]]:
    """Read weights and biases; partly, what the graph does not have may be missing."""
    stored = _initializers(graph)
    weights = {}
    for name, layer in convolutions(net):
        weight, bias = stored.get(f"{name}.weight"), stored.get(f"{name}.bias")
        if weight is not None and bias is not None and not partly:
            weight, bias = _widened(weight, bias, layer, net.features_joined(name))
        if weight is None or bias is None or tuple(weight.shape) != tuple(layer.weight.shape):
            if partly or name.startswith(net.only_learned):
                continue
            raise InputError(
                f"key 'init': {file} has no layer '{name}' of shape "
                f"{tuple(layer.weight.shape)}; it holds another network than the recipe's"
            )
        weights[name] = (_tensor(weight), _tensor(bias))
    if not weights:
        raise InputError(
            f"key 'init': {file} has no layer of the recipe's network; remove it, or choose "
            "widths that it has"
        )
    return weights


def _widened(weight: Array, bias: Array, layer: nn.Module, joined: int) -> tuple[Array, Array]:
    """Give a kernel the channels of a layer that has more, of which its own see none."""
    assert isinstance(layer.weight, Tensor)
    axes = (1, 0) if isinstance(layer, nn.ConvTranspose3d) else (0, 1)
    narrow, shape = np.moveaxis(weight, axes, (0, 1)), layer.weight.movedim(axes, (0, 1)).shape
    fits = all(a <= b for a, b in zip(narrow.shape[:2], shape[:2], strict=True))
    fits = fits and narrow.shape[2:] == tuple(shape[2:]) and shape[1] % joined == 0
    if not fits or narrow.shape == tuple(shape):  # another network, or one that is as wide
        return weight, bias
    wide = nn.init.kaiming_normal_(torch.empty(shape), nonlinearity="relu").numpy()
    outputs, inputs = narrow.shape[:2]
    seen = [
        part * (shape[1] // joined) + channel
        for part in range(joined)
        for channel in range(inputs // joined)
    ]
    wide[:outputs] = 0
    wide[:outputs, seen] = narrow
    return np.moveaxis(wide, (0, 1), axes), np.pad(bias, (0, shape[0] - outputs))


def _set_slopes(net: Network, graph: GraphProto) -> None:
    """Give each PReLU of a network the slopes that follow its convolution in an exported model."""
    stored = _initializers(graph)
    made_by = {node.output[0]: node for node in graph.node}
    modules = dict(net.named_modules())
    for node in graph.node:
        if node.op_type != "PRelu":
            continue
        convolution = made_by[node.input[0]].input[1].removesuffix(".weight")
        parent, _, index = convolution.rpartition(".")
        activation = modules.get(f"{parent}.{int(index) + 2}")  # after the norm
        if isinstance(activation, nn.PReLU):
            with torch.no_grad():
                activation.weight.copy_(_tensor(stored[node.input[1]]).flatten())


def _initializers(graph: GraphProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))
