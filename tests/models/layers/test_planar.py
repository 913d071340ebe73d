"""Convolutions of planes compute the same in 2D, as they learn, and in 3D, as they are exported."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.layers.planar import PlanarConv, PlanarConvTranspose  # noqa: E402

LAYERS = {
    "plain": lambda: PlanarConv(3, 5, (1, 3, 3), padding=(0, 1, 1)),
    "strided": lambda: PlanarConv(3, 5, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False),
    "large": lambda: PlanarConv(3, 5, (1, 7, 7), padding=(0, 3, 3)),
    "pointwise": lambda: PlanarConv(3, 5, 1),
    "transposed": lambda: PlanarConvTranspose(3, 5, (1, 2, 2), stride=(1, 2, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_learning_computes_what_the_exported_layer_does(name, depth, layout):
    torch.manual_seed(0)
    layer = LAYERS[name]().to(memory_format=layout)
    image = torch.rand(2, 3, depth, 12, 16).contiguous(memory_format=layout)
    found = {}
    for mode in (True, False):
        layer.train(mode).zero_grad()
        output = layer(image)
        output.square().sum().backward()
        found[mode] = [output, *(parameter.grad.clone() for parameter in layer.parameters())]
    for learning, exported in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(learning, exported, rtol=1e-4, atol=1e-4)
