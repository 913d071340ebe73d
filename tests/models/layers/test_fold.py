from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.cellpose3d.network import Cellpose3D  # noqa: E402
from cellrt.models.cellseg3d.network import CellSeg3D  # noqa: E402
from cellrt.models.harmonicnet.network import HarmonicNet  # noqa: E402
from cellrt.models.layers.fold import convolutions, fold_batch_norm, unfold_batch_norm  # noqa: E402
from cellrt.models.layers.network import Network  # noqa: E402
from cellrt.models.stardist3d.network import StarDist3D  # noqa: E402


def small_cellpose3d() -> Network:
    return Cellpose3D((4, 8, 16))


def small_harmonicnet() -> Network:
    return HarmonicNet((4, 6, 8, 10), 4, 9, 8.0)


def small_stardist3d() -> Network:
    return StarDist3D((4, 8, 16), 8, 36, 8.0)


ALL = pytest.mark.parametrize(
    "make", [small_cellpose3d, CellSeg3D, small_harmonicnet, small_stardist3d]
)


def trained_like(net: Network) -> Network:
    """A network whose norms have seen data."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    net.train()
    for _ in range(3):
        net(torch.rand(2, 1, 16, 16, 16))
    return net.eval()


@ALL
def test_folding_keeps_the_function_and_removes_the_norms(make) -> None:
    torch.manual_seed(3)
    net = trained_like(make())
    folded = fold_batch_norm(net)
    image = torch.rand(2, 1, 16, 24, 8)
    with torch.no_grad():
        torch.testing.assert_close(folded(image), net(image), atol=1e-5, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm3d) for m in net.modules())


def test_a_pair_of_convolutions_becomes_one() -> None:
    net = CellSeg3D().eval()
    names = [name for name, _ in convolutions(net)]
    assert names[0] == "stem.0"
    assert names == [name for name, _ in convolutions(fold_batch_norm(net))]
    folded = dict(convolutions(fold_batch_norm(net)))["stem.0"]
    assert tuple(folded.weight.shape) == (32, 1, 3, 3, 3)


@ALL
def test_unfolding_keeps_the_function_with_running_and_with_batch_statistics(make) -> None:
    torch.manual_seed(3)
    folded = fold_batch_norm(trained_like(make()))
    weights = {
        name: (layer.weight.detach(), layer.bias.detach())
        for name, layer in convolutions(folded)
        if not name.startswith(folded.only_learned)
    }
    net = make()
    batch = torch.rand(2, 1, 16, 16, 16)
    unfold_batch_norm(net, weights, [batch])
    with torch.no_grad():
        other = torch.rand(1, 1, 16, 16, 16)
        torch.testing.assert_close(net.eval()(other), folded(other), atol=1e-5, rtol=1e-4)
        # Training starts where the exported network was: batch statistics of the same images.
        torch.testing.assert_close(net.train()(batch), folded(batch), atol=2e-2, rtol=0.05)
