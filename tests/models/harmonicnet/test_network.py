from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.cellpose3d.network import Cellpose3D  # noqa: E402
from cellrt.models.harmonicnet.method import HarmonicNet as Method  # noqa: E402
from cellrt.models.harmonicnet.network import HarmonicNet  # noqa: E402
from cellrt.models.harmonicnet.tables import (  # noqa: E402
    HarmonicNetLoss,
    HarmonicNetModel,
    HarmonicNetTargets,
)

WIDTHS = (4, 6, 8, 10)


def small() -> HarmonicNet:
    return HarmonicNet(WIDTHS, 4, 9, 8.0)


def test_it_predicts_at_three_scales_and_gives_the_finest() -> None:
    net = small().eval()
    image = torch.rand(2, 1, 16, 24, 32)
    with torch.no_grad():
        scales, fields = net.learned(image), net(image)
    assert [tuple(s.shape) for s in scales] == [
        (2, 10, 2, 3, 4),
        (2, 10, 4, 6, 8),
        (2, 10, 8, 12, 16),
    ]
    assert net.output_stride == 2
    torch.testing.assert_close(fields, net.activate(scales[-1]))


def test_it_starts_with_balls_of_the_nominal_size() -> None:
    with torch.no_grad():
        fields = small().eval()(torch.rand(1, 1, 8, 8, 8))
    torch.testing.assert_close(fields[:, 1], torch.full((1, 4, 4, 4), 8 * math.sqrt(4 * math.pi)))
    assert not fields[:, 2:].any()
    assert ((fields[:, 0] > 0) & (fields[:, 0] < 1)).all()


def test_its_trunk_starts_as_the_u_net_whose_weights_it_is_given() -> None:
    """The layers that both have compute the same: PReLU is ReLU and residuals are nothing."""
    torch.manual_seed(0)
    net, other = small().eval(), Cellpose3D(WIDTHS).eval()
    shared = {k: v for k, v in other.state_dict().items() if k in net.state_dict()}
    # Without the finest level of the decoder and the head.
    assert set(other.state_dict()) - set(shared) == {
        k for k in other.state_dict() if k.startswith(("up.2.", "decoder.2.", "head."))
    }
    net.load_state_dict(shared, strict=False)
    seen: list[torch.Tensor] = []
    other.decoder[1].register_forward_hook(lambda *call: seen.append(call[2]))
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        other(image)
        torch.testing.assert_close(net._features(image)[-1], seen[0])


def test_input_reaches_no_farther_than_the_receptive_radius() -> None:
    torch.manual_seed(1)
    net = HarmonicNet((2, 2, 2, 2), 2, 4, 8.0).eval()
    for module in net.modules():  # nothing is cut off on its way
        if isinstance(module, torch.nn.PReLU):
            module.weight.data.fill_(1.0)
        if isinstance(module, torch.nn.BatchNorm3d):
            module.weight.data.fill_(1.0)
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            module.weight.data = module.weight.data.abs() + 0.1
    size = 2 * (net.receptive_radius // 8 + 2) * 8
    image = torch.zeros(1, 1, 8, 8, size, requires_grad=True)
    for middle in range(size // 4, size // 4 + 4):  # every place relative to the strides
        (grad,) = torch.autograd.grad(net.logits(image)[..., middle].sum(), image)
        reached = torch.nonzero(grad[0, 0].abs().sum((0, 1)))[:, 0]
        first, last = int(reached[0]), int(reached[-1])
        assert 2 * middle + 1 - first <= net.receptive_radius
        assert last - 2 * middle <= net.receptive_radius
        assert last - first > net.receptive_radius  # and not much less far


def test_channels_have_the_names_that_decoders_read() -> None:
    model = HarmonicNetModel(order=2)
    method = Method(model, HarmonicNetTargets(), HarmonicNetLoss(), {"threshold": 0.4})
    assert method.outputs == (
        "distance", "c_0_0", "c_1_-1", "c_1_0", "c_1_1",
        "c_2_-2", "c_2_-1", "c_2_0", "c_2_1", "c_2_2",
    )  # fmt: skip
    assert method.decoder == "star"
    assert method.decoder_parameters == {"threshold": 0.4}
