"""Merging: the stream equals the plain sum bit for bit, tiles equal the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellrt.errors import UsageError
from cellrt.runtime.network.merge import bands, merge, predict
from cellrt.runtime.network.tiles import plan_tiles

shapes = st.tuples(*[st.integers(1, 40)] * 3)
weightings = st.sampled_from(["distance", "gaussian", "constant"])


def merged(grid, predictions, channels=2):
    """Collect the stream into one array and check that it covers every voxel once."""
    result = np.full((channels, *grid.shape), np.nan, np.float32)
    order = []
    for block in merge(grid, predictions):
        assert np.isnan(result[:, block.z, block.y]).all()
        result[:, block.z, block.y] = block.fields
        order.append((block.z.start, block.y.start))
    assert order == sorted(order)
    assert not np.isnan(result).any()
    return result


def padded_reader(volume, grid):
    """Read tiles from a volume that is mirrored up to what the tiles cover."""
    extra = [(0, axis.padded - axis.length) for axis in grid.axes]
    full = np.pad(volume, extra, mode="symmetric")
    return full, lambda tile: full[
        tuple(slice(s, s + n) for s, n in zip(tile.start, grid.tile, strict=True))
    ]


@given(shape=shapes, halo=st.integers(0, 5), blend=st.integers(0, 6), max_edge=st.integers(20, 40))
def test_every_voxel_is_the_own_one_of_one_tile(shape, halo, blend, max_edge):
    grid = plan_tiles(shape, halo=halo, blend=blend, multiple=4, max_voxels=max_edge**3)
    owners = np.zeros(shape, int)
    for tile in grid:
        own = grid.own(tile)
        assert all(0 <= part.start <= n for part, n in zip(own, grid.tile, strict=True))
        assert all(part.stop <= n for part, n in zip(own, grid.tile, strict=True))
        moved = [slice(s + p.start, s + p.stop) for s, p in zip(tile.start, own, strict=True)]
        owners[tuple(moved)] += 1
    assert (owners == 1).all()


@settings(max_examples=60)
@given(
    shape=shapes,
    halo=st.integers(0, 5),
    blend=st.integers(0, 6),
    max_edge=st.integers(20, 40),  # an overlap of 16 voxels needs tiles of 20
    weighting=weightings,
    seed=st.integers(0, 99),
)
def test_stream_equals_in_memory_sum_bit_for_bit(shape, halo, blend, max_edge, weighting, seed):
    grid = plan_tiles(
        shape, halo=halo, blend=blend, multiple=4, max_voxels=max_edge**3, weighting=weighting
    )
    rng = np.random.default_rng(seed)
    outputs = [(t, rng.standard_normal((2, *grid.tile)).astype(np.float32)) for t in grid]
    total = np.zeros((2, *(axis.padded for axis in grid.axes)), np.float32)
    for tile, fields in outputs:
        wz, wy, wx = (axis.weights[i] for axis, i in zip(grid.axes, tile.index, strict=True))
        where = tuple(slice(s, s + n) for s, n in zip(tile.start, grid.tile, strict=True))
        weight = (wz[:, None] * wy[None, :])[:, :, None] * wx
        total[(slice(None), *where)] += fields * weight
    expected = total[:, : shape[0], : shape[1], : shape[2]]
    np.testing.assert_array_equal(merged(grid, iter(outputs)), expected)


@settings(max_examples=40)
@given(
    shape=shapes,
    depth=st.sampled_from([16, 20, 24]),
    halo=st.integers(0, 4),
    devices=st.integers(1, 5),
)
def test_shares_of_several_devices_give_the_same_bits(shape, depth, halo, devices):
    grid = plan_tiles(shape, halo=halo, blend=4, multiple=4, tile=(depth, 40, 40))
    rng = np.random.default_rng(0)
    outputs = [(t, rng.standard_normal((1, *grid.tile)).astype(np.float32)) for t in grid]
    expected = merged(grid, outputs, channels=1)
    layers = len(grid.axes[0].starts)
    shares = bands(grid.axes[0], devices)
    assert len(shares) <= devices
    assert [layer for _, first, last in shares for layer in range(first, last)] == list(
        range(layers)
    )
    result = np.full_like(expected, np.nan)
    for since, first, last in shares:
        given = [(t, fields) for t, fields in outputs if since <= t.index[0] < last]
        for block in merge(grid, given, first=first):
            assert np.isnan(result[:, block.z, block.y]).all()
            result[:, block.z, block.y] = block.fields
    np.testing.assert_array_equal(result, expected)


def test_two_devices_share_many_layers_about_evenly():
    axis = plan_tiles((512, 64, 64), halo=8, tile=(64, 64, 64)).axes[0]
    assert len(axis.starts) == 13
    assert bands(axis, 2) == [(0, 0, 7), (6, 7, 13)]
    assert bands(axis, 1) == [(0, 0, 13)]
    # Two layers, of which the second needs the first, are quicker on one.
    assert bands(plan_tiles((100, 64, 64), halo=8, tile=(64, 64, 64)).axes[0], 2) == [(0, 0, 2)]


@settings(max_examples=40)
@given(shape=shapes, tile=st.tuples(*[st.sampled_from([16, 20, 24])] * 3), weighting=weightings)
def test_tiled_equals_whole_when_the_halo_covers_the_receptive_field(shape, tile, weighting):
    radius = 3
    rng = np.random.default_rng(0)
    volume = rng.random(shape, dtype=np.float32)
    kernel = rng.random((2 * radius + 1,) * 3)

    def network(image):
        # Zero padding, as the convolutions of the networks have it.
        out = ndimage.convolve(image[0, 0], kernel, mode="constant") / kernel.sum()
        return np.stack([out, -out])[None].astype(np.float32)

    grid = plan_tiles(shape, halo=radius, blend=4, multiple=4, tile=tile, weighting=weighting)
    full, read = padded_reader(volume, grid)
    whole = network(full[None, None])[0, :, : shape[0], : shape[1], : shape[2]]
    np.testing.assert_allclose(merged(grid, predict(grid, read, [network])), whole, atol=1e-4)


@given(shape=shapes, halo=st.integers(0, 4), blend=st.integers(0, 4), weighting=weightings)
def test_weights_sum_to_one_everywhere(shape, halo, blend, weighting):
    grid = plan_tiles(
        shape, halo=halo, blend=blend, multiple=4, max_voxels=24**3, weighting=weighting
    )
    for axis in grid.axes:
        total = np.zeros(axis.padded)
        for start, weights in zip(axis.starts, axis.weights, strict=True):
            total[start : start + axis.tile] += weights
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert all(start % 4 == 0 for start in axis.starts)
        steps = np.diff(axis.starts)
        assert (axis.tile - steps >= 2 * halo + blend).all()


def test_inner_faces_have_no_weight_within_the_halo():
    grid = plan_tiles((8, 8, 64), halo=4, blend=4, multiple=4, tile=(8, 8, 24))
    weights = grid.axes[2].weights
    assert (weights[0, -4:] == 0).all()
    assert (weights[1, :4] == 0).all()
    assert (weights[0, :4] == 1).all()


def test_chosen_tiling_computes_no_more_than_any_other_that_fits():
    grid = plan_tiles((128, 256, 256), halo=16, max_voxels=1 << 20)
    assert np.prod(grid.tile) <= 1 << 20
    assert grid.computed_voxels < 2.6 * 128 * 256 * 256


def test_a_tile_without_room_for_its_halo_is_refused():
    with pytest.raises(UsageError, match="no room"):
        plan_tiles((64, 64, 64), halo=16, tile=(32, 32, 32))
    with pytest.raises(UsageError, match="multiples of 8"):
        plan_tiles((64, 64, 64), halo=2, tile=(33, 32, 32))


def test_an_error_in_the_network_reaches_the_caller():
    grid = plan_tiles((8, 8, 40), halo=0, tile=(8, 8, 16))

    def broken(image):
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        list(predict(grid, lambda tile: np.zeros(grid.tile, np.float32), [broken]))


@settings(max_examples=60)
@given(
    shape=shapes,
    tile=st.tuples(*[st.sampled_from([16, 20, 24])] * 3),
    halo=st.integers(0, 4),
    blend=st.integers(0, 2),
    weighting=weightings,
)
def test_outputs_with_a_stride_are_merged_on_their_own_grid(shape, tile, halo, blend, weighting):
    grid = plan_tiles(
        shape, halo=halo, blend=blend, multiple=4, stride=2, tile=tile, weighting=weighting
    )
    assert grid.outputs.shape == tuple(-(-n // 2) for n in shape)
    assert all(axis.halo >= halo / 2 for axis in grid.outputs.axes)
    volume = np.random.default_rng(0).random(shape, dtype=np.float32)
    full, read = padded_reader(volume, grid)

    def halved(image):
        z, y, x = image.shape
        return image.reshape(z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(1, 3, 5))

    tiles = predict(grid, read, [lambda batch: halved(batch[0, 0])[None, None]])
    result = merged(grid.outputs, tiles, channels=1)
    z, y, x = grid.outputs.shape
    np.testing.assert_allclose(result[0], halved(full)[:z, :y, :x], atol=1e-6)


@given(shape=shapes, halo=st.integers(0, 4), tile=st.sampled_from([16, 20, 24]))
def test_every_output_voxel_is_the_own_one_of_one_tile(shape, halo, tile):
    grid = plan_tiles(shape, halo=halo, blend=2, multiple=4, stride=2, tile=(tile,) * 3)
    owners = np.zeros(grid.outputs.shape, int)
    for tile_ in grid.outputs:
        own = grid.outputs.own(tile_)
        owners[
            tuple(slice(s + p.start, s + p.stop) for s, p in zip(tile_.start, own, strict=True))
        ] += 1
    assert (owners == 1).all()
    assert [grid.output(tile_) for tile_ in grid] == list(grid.outputs)
