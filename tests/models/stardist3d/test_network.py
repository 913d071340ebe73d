from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.stardist3d.method import StarDist3D as Method  # noqa: E402
from cellrt.models.stardist3d.network import StarDist3D  # noqa: E402
from cellrt.models.stardist3d.tables import (  # noqa: E402
    StarDist3DLoss,
    StarDist3DModel,
    StarDist3DTargets,
)


def test_it_starts_with_balls_of_the_nominal_size_at_half_resolution() -> None:
    net = StarDist3D((4, 6, 8), 10, 36, 8.0).eval()
    assert (net.size_multiple, net.output_stride) == (4, 2)
    with torch.no_grad():
        fields = net(torch.rand(2, 1, 8, 12, 16))
    assert tuple(fields.shape) == (2, 37, 4, 6, 8)
    assert (fields[:, 0] == 0.5).all()
    assert (fields[:, 1:] == 8.0).all()


def test_input_reaches_no_farther_than_the_receptive_radius() -> None:
    torch.manual_seed(1)
    net = StarDist3D((2, 2, 2), 2, 36, 8.0).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            module.weight.data = module.weight.data.abs() + 0.1
    size = 2 * (net.receptive_radius // 4 + 2) * 4
    image = torch.rand(1, 1, 4, 4, size, requires_grad=True)
    for middle in range(size // 4, size // 4 + 2):
        (grad,) = torch.autograd.grad(net.logits(image)[..., middle].sum(), image)
        reached = torch.nonzero(grad[0, 0].abs().sum((0, 1)))[:, 0]
        assert 2 * middle + 1 - int(reached[0]) <= net.receptive_radius
        assert int(reached[-1]) - 2 * middle <= net.receptive_radius
        assert int(reached[-1]) - int(reached[0]) > net.receptive_radius


def test_channels_have_the_names_that_decoders_read() -> None:
    method = Method(StarDist3DModel(rays=96), StarDist3DTargets(), StarDist3DLoss(), {})
    assert method.outputs[:2] == ("probability", "radius_000")
    assert method.outputs[-1] == "radius_095"
    assert len(method.outputs) == 97
    assert method.decoder == "star"
