"""The harmonic embedding network: planes, tiles, and what tells it where they lie."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.models.harmonic_embedding.network import HarmonicEmbedding  # noqa: E402
from cellrt.models.layers.fold import fold_batch_norm  # noqa: E402
from cellrt.runtime.model.guides import turns  # noqa: E402

FREQUENCIES = [[0.013, -0.02], [0.0, 0.017], [0.019, 0.004]]
PHASES = [0.3, 2.0, 5.5]


def network(**options):
    torch.manual_seed(0)
    net = HarmonicEmbedding((4, 6, 8), FREQUENCIES, PHASES, **options)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return net.eval()


def test_every_plane_is_an_image_of_its_own():
    net = network()
    stack = torch.rand(2, 1, 3, 16, 24)
    with torch.inference_mode():
        fields = net(stack)
        assert fields.shape == (2, 4, 3, 16, 24)
        torch.testing.assert_close(net(stack[:, :, 1:2]), fields[:, :, 1:2], atol=1e-5, rtol=0)
    assert 0 <= fields[:, -1].min() <= fields[:, -1].max() <= 1


def test_a_tile_that_is_told_where_it_lies_says_what_the_image_says():
    net = network()
    image = torch.rand(1, 1, 1, 16, 256)
    radius = net.receptive_radius
    start = 64
    turned = torch.from_numpy(turns((0, start), FREQUENCIES))[None]
    with torch.inference_mode():
        whole = net(image)[..., start + radius : 256 - radius]
        tile = image[..., start:]
        inner = net(tile, turned)[..., radius : 192 - radius]
        astray = net(tile)[..., radius : 192 - radius]
    assert inner.shape[-1] > 20
    torch.testing.assert_close(inner, whole, atol=2e-5, rtol=0)
    assert (astray - whole).abs().max() > 1e-3


def test_nothing_beyond_the_receptive_field_counts():
    net = network()
    image = torch.rand(1, 1, 1, 16, 256)
    other = image.clone()
    other[..., 200] += 1
    with torch.inference_mode():
        changed = (net(image) - net(other)).abs().amax((0, 1, 2, 3)) > 0
    columns = np.flatnonzero(changed.numpy())
    assert 200 - columns.min() <= net.receptive_radius
    assert columns.max() - 200 <= net.receptive_radius


def test_without_sinconv_a_place_means_nothing():
    net = network(sinconv=False)
    assert not net.takes_turns
    assert net.receptive_radius < network().receptive_radius
    image = torch.rand(1, 1, 1, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(net(image, torch.rand(1, 3)), net(image))


def test_folding_changes_nothing():
    net = network()
    image, turned = torch.rand(1, 1, 1, 16, 24), torch.rand(1, 3)
    with torch.inference_mode():
        torch.testing.assert_close(
            fold_batch_norm(net)(image, turned), net(image, turned), atol=1e-5, rtol=1e-4
        )
