from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.cellpose3d.network import Cellpose3D  # noqa: E402
from cellrt.models.layers.unet import receptive_radius  # noqa: E402


def small_net() -> Cellpose3D:
    torch.manual_seed(0)
    return Cellpose3D((4, 8, 16)).eval()


def test_default_network_has_the_papers_size() -> None:
    net = Cellpose3D()
    parameters = sum(p.numel() for p in net.parameters())
    assert 1.35e6 < parameters < 1.45e6
    assert net.size_multiple == 8


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 24, 8)])
def test_output_has_the_inputs_shape_and_four_bounded_fields(shape: tuple[int, ...]) -> None:
    fields = small_net()(torch.randn(2, 1, *shape))
    assert fields.shape == (2, 4, *shape)
    assert fields[:, :3].abs().max() < 1
    assert fields[:, 3].min() > 0
    assert fields[:, 3].max() < 1


def test_input_reaches_no_farther_than_the_receptive_radius() -> None:
    net = small_net().double()
    for block in (*net.encoder, *net.decoder):
        for layer in block:
            if isinstance(layer, torch.nn.ReLU):
                layer.inplace = False
    reach = receptive_radius(3)
    size = 64
    seen = 0
    for position in range(28, 32):  # every place relative to the stride of 4
        image = torch.randn(1, 1, 8, 8, size, dtype=torch.double, requires_grad=True)
        net(image)[..., position].sum().backward()
        touched = image.grad.abs().amax((0, 1, 2, 3)).nonzero().ravel()
        distance = max(position - int(touched.min()), int(touched.max()) - position)
        assert distance <= reach
        seen = max(seen, distance)
    assert seen >= reach - 3  # the bound is not far from what is really reached


def test_convolutions_before_batch_norm_have_no_bias() -> None:
    net = Cellpose3D()
    for block in (*net.encoder, *net.decoder):
        assert all(layer.bias is None for layer in block if isinstance(layer, torch.nn.Conv3d))
