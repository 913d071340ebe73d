"""A planar network sees single planes, and says of each what it would say of it alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.export.trace import build_graph  # noqa: E402
from cellrt.graph.activations import activation_bytes  # noqa: E402
from cellrt.models.cellpose2d.network import Cellpose2D  # noqa: E402
from cellrt.models.layers.fold import fold_batch_norm  # noqa: E402


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Cellpose2D((4, 8, 8))
    with torch.no_grad():  # statistics that folding must get right
        net.train()
        net(torch.rand(2, 1, 3, 16, 16))
    return net.eval()


def test_planes_know_nothing_of_each_other(net):
    stack = torch.rand(1, 1, 5, 16, 24)
    fields = net(stack)
    assert fields.shape == (1, 4, 5, 16, 24)
    for z in range(5):
        torch.testing.assert_close(net(stack[:, :, z : z + 1]), fields[:, :, z : z + 1])
    assert (fields[:, 0] == 0).all()
    assert fields[:, 3].min() >= 0
    assert net.size_multiples == (1, 4, 4)


def test_nothing_beyond_the_receptive_field_matters(net):
    image = torch.rand(1, 1, 1, 64, 160)
    other = image.clone()
    other[..., : 96 - net.receptive_radius] += 1
    difference = (net(image) - net(other)).abs()[..., 96:]
    assert difference.max() < 1e-6


def test_the_exported_graph_takes_any_number_of_planes(net):
    from cellrt.export.gate.compare import onnxruntime_infer, openvino_infer

    graph = build_graph(fold_batch_norm(net), net.size_multiples)
    assert activation_bytes(graph, net.size_multiple) > 4
    serialised = graph.SerializeToString()
    for shape in ((1, 1, 1, 8, 12), (1, 1, 7, 16, 8)):
        image = torch.rand(*shape)
        expected = net(image).detach()
        for infer in (onnxruntime_infer(serialised), openvino_infer(serialised, "f32")):
            fields = torch.from_numpy(infer(image.numpy()))
            torch.testing.assert_close(fields, expected, atol=1e-4, rtol=1e-3)
