"""Fold batch norm into the convolutions before it, and undo that for fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cellrt.models.layers.conv_pair import ConvPair
from cellrt.models.layers.network import Network


def fold_batch_norm(net: Network) -> Network:
    """Return a copy in evaluation mode whose convolutions contain their batch norm.

    Pairs of convolutions become one.

    Parameters
    ----------
    net : Network

    Returns
    -------
    Network
        The same function of the image as `net` in evaluation mode, up to rounding.
    """
    folded = copy.deepcopy(net).eval()
    for block in folded.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for index, layer in enumerate(block):
            if isinstance(layer, ConvPair):
                block[index] = layer.as_one()
            elif isinstance(layer, nn.BatchNorm3d):
                convolution = block[index - 1]
                assert isinstance(convolution, nn.Conv3d | nn.ConvTranspose3d)
                transposed = isinstance(convolution, nn.ConvTranspose3d)
                block[index - 1] = fuse_conv_bn_eval(convolution, layer, transposed)
                block[index] = nn.Identity()
    return folded


def unfold_batch_norm(
    net: Network, weights: dict[str, tuple[Tensor, Tensor]], images: Iterable[Tensor]
) -> None:
    """Give a network with batch norm the function of a folded one.

    A folded convolution ``w*x + b`` equals one without bias followed by a batch norm with running
    mean m, variance v, gamma ``sqrt(v + eps)`` and beta ``m + b``. The statistics are measured on
    `images`, layer by layer, so that training starts where batch norm would be.

    Parameters
    ----------
    net : Network
        Changed in place; every convolution of a block and its norm.
    weights : dict
        Folded ``(weight, bias)`` by name, as in ``fold_batch_norm(net).state_dict()``: keys are
        module names such as ``encoder.0.0``.
    images : iterable of Tensor
        ``(n, 1, z, y, x)`` batches like those that training will see.
    """
    batches = list(images)
    net.eval()
    modules = dict(net.named_modules())
    norms: list[tuple[nn.BatchNorm3d, Tensor]] = []
    with torch.no_grad():
        for name, (weight, bias) in weights.items():
            layer = modules[name]
            assert isinstance(layer, nn.Conv3d | nn.ConvTranspose3d | ConvPair)
            if isinstance(layer, ConvPair):
                layer.set_weight(weight)
            else:
                layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(bias)
                continue
            parent, _, index = name.rpartition(".")
            norm = modules[f"{parent}.{int(index) + 1}"]
            assert isinstance(norm, nn.BatchNorm3d)
            # Until its statistics are known, the norm adds the bias and nothing else.
            norm.running_mean.zero_()  # type: ignore[union-attr]
            norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
            norm.weight.fill_(1)
            norm.bias.copy_(bias)
            norms.append((norm, bias))
        statistics = _input_statistics(net, [norm for norm, _ in norms], batches)
        for norm, bias in norms:
            mean, variance = statistics[norm]
            norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]
            norm.weight.copy_(torch.sqrt(variance + norm.eps))
            norm.bias.copy_(bias + mean)


def convolutions(net: Network) -> Iterator[tuple[str, nn.Conv3d | nn.ConvTranspose3d | ConvPair]]:
    """Yield what is one convolution in the exported graph, with its name."""
    pairs = tuple(f"{name}." for name, layer in net.named_modules() if isinstance(layer, ConvPair))
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d | ConvPair) and not name.startswith(
            pairs
        ):
            yield name, layer


def _input_statistics(
    net: Network, norms: list[nn.BatchNorm3d], batches: list[Tensor]
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Mean and variance per channel of what reaches each norm."""
    sums: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        sums[module].append(torch.stack([x.mean((0, 2, 3, 4)), x.square().mean((0, 2, 3, 4))]))

    hooks = [norm.register_forward_pre_hook(collect) for norm in norms]
    for batch in batches:
        net(batch)
    for hook in hooks:
        hook.remove()
    result: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    for norm, moments in sums.items():
        mean, square = torch.stack(moments).mean(0)
        result[norm] = (mean.float(), (square - mean.square()).clamp(min=0).float())
    return result
