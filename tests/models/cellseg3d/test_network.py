from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.cellseg3d.network import CellSeg3D  # noqa: E402
from cellrt.models.layers.conv_pair import ConvPair  # noqa: E402


@pytest.fixture(scope="module")
def net() -> CellSeg3D:
    torch.manual_seed(0)
    return CellSeg3D().eval()


def test_the_network_has_the_papers_size(net: CellSeg3D) -> None:
    parameters = sum(p.numel() for p in net.parameters())
    assert parameters == pytest.approx(1.28e6, rel=0.005)
    assert net.size_multiple == 8


@pytest.mark.parametrize("shape", [(8, 8, 8), (17, 23, 9), (5, 16, 30), (1, 1, 1)])
def test_any_cuboid_gives_class_probabilities_of_its_shape(
    net: CellSeg3D, shape: tuple[int, ...]
) -> None:
    with torch.no_grad():
        classes = net(torch.randn(2, 1, *shape))
    assert classes.shape == (2, 3, *shape)
    assert classes.min() >= 0
    torch.testing.assert_close(classes.sum(1), torch.ones(2, *shape))


def test_each_voxel_sees_61_voxels_within_the_stated_radius(net: CellSeg3D) -> None:
    """Along x; ReLUs are left out so that no path is shut by chance."""
    linear = copy.deepcopy(net).double()
    for module in linear.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.Identity())
    size, reach = 128, net.receptive_radius
    farthest = 0
    for position in range(64, 72):  # every place relative to the stride of 8
        image = torch.randn(1, 1, 8, 8, size, dtype=torch.double, requires_grad=True)
        linear.logits(image)[..., position].sum().backward()
        touched = image.grad.abs().amax((0, 1, 2, 3)).nonzero().ravel()
        assert int(touched.max()) - int(touched.min()) + 1 == 61
        farthest = max(farthest, position - int(touched.min()), int(touched.max()) - position)
    assert farthest == reach


def test_a_pair_of_convolutions_is_the_two_layers_one_after_the_other() -> None:
    torch.manual_seed(1)
    pair = ConvPair(16, 32)
    image = torch.randn(2, 1, 7, 6, 5)
    expected = pair.spatial(pair.pointwise(image))
    torch.testing.assert_close(pair(image), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pair.as_one()(image), expected, atol=1e-5, rtol=1e-4)
    pair(image).sum().backward()
    assert pair.pointwise.weight.grad.abs().min() > 0  # both learn
    assert pair.spatial.weight.grad.abs().max() > 0


def test_a_pair_takes_any_kernel_of_one_channel() -> None:
    kernel = torch.randn(32, 1, 3, 3, 3)
    pair = ConvPair(16, 32)
    pair.set_weight(kernel)
    torch.testing.assert_close(pair.weight, kernel)
