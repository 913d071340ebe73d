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
        assert fields.shape == (2, 7, 3, 16, 24)
        torch.testing.assert_close(net(stack[:, :, 1:2]), fields[:, :, 1:2], atol=1e-5, rtol=0)
    assert 0 <= fields[:, -1].min() <= fields[:, -1].max() <= 1


def test_a_tile_that_is_told_where_it_lies_says_what_the_image_says():
    net = network(position="sinconv", sinconv_size=5)
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


def test_what_is_learned_is_the_mean_wave_of_the_object_wherever_it_lies():
    # The head says what each pixel of one object sees: the mean wave over it, from there.
    net = network(position="turn")
    assert not net.takes_turns
    y, x = np.mgrid[3:8, 10:17].reshape(2, -1)
    rows, columns = np.mgrid[:16, :24]
    waves, seen = [], []
    for (fy, fx), phase in zip(FREQUENCIES, PHASES, strict=True):
        waves.append(np.exp(1j * (2 * np.pi * (fy * y + fx * x) + phase)).mean())
        away = fy * (y - rows[..., None]) + fx * (x - columns[..., None])
        seen.append(np.exp(2j * np.pi * away).mean(axis=-1))
    parts = np.concatenate([np.real(seen), np.imag(seen), np.zeros((1, 16, 24))])
    raw = torch.from_numpy(parts.astype(np.float32))[None, :, None]
    net.head.forward = lambda features: raw
    with torch.inference_mode():
        image = torch.rand(1, 1, 1, 16, 24)
        found, turned = net.learned(image)
        torch.testing.assert_close(net(image)[:, :-1], raw[:, :-1])
    expected = np.imag(np.array(waves) * np.exp(2j * np.pi * turned[0].numpy()))
    np.testing.assert_allclose(
        found[0, :-1, 0].numpy(),
        np.broadcast_to(expected, (16, 24, 3)).T.swapaxes(1, 2),
        atol=1e-5,
    )


@pytest.mark.parametrize("position", ["turn", "sinconv"])
def test_nothing_beyond_the_receptive_field_counts(position):
    net = network(position=position)
    image = torch.rand(1, 1, 1, 16, 256)
    other = image.clone()
    other[..., 200] += 1
    with torch.inference_mode():
        changed = (net(image) - net(other)).abs().amax((0, 1, 2, 3)) > 0
    columns = np.flatnonzero(changed.numpy())
    assert 200 - columns.min() <= net.receptive_radius
    assert columns.max() - 200 <= net.receptive_radius


def test_without_a_position_a_place_means_nothing():
    net = network(position="none")
    assert not net.takes_turns
    assert net.receptive_radius < network(position="sinconv").receptive_radius
    image = torch.rand(1, 1, 1, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(net(image, torch.rand(1, 3)), net(image))


@pytest.mark.parametrize("position", ["turn", "sinconv", "none"])
def test_folding_changes_nothing(position):
    net = network(position=position)
    image, turned = torch.rand(1, 1, 1, 16, 24), torch.rand(1, 3)
    with torch.inference_mode():
        torch.testing.assert_close(
            fold_batch_norm(net)(image, turned), net(image, turned), atol=1e-5, rtol=1e-4
        )
