"""The decoder's filters and the filling of walls, on cells with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cellrt.runtime.decoding.flows.cells import FlowParameters, decode_flows
from cellrt.runtime.decoding.flows.confidence import mean_probability, probability_sums
from cellrt.runtime.decoding.flows.flow_error import flow_errors
from cellrt.runtime.decoding.flows.packed_field import pack_field
from cellrt.runtime.decoding.flows.targets import centroid_flow, heat_flow, tanh_flow
from cellrt.runtime.decoding.flows.walls import fill_walls
from cellrt.runtime.decoding.labels.regions import count_regions, equivalent_radius, smallest_volume

FLOWS = {"tanh": tanh_flow, "centroid": centroid_flow, "heat": heat_flow}


def cubes(*edges, gap=4):
    """Cubes of the given edges in a row."""
    labels = np.zeros((max(edges) + 2, max(edges) + 2, sum(edges) + gap * (len(edges) + 1)), "i4")
    x = gap
    for number, edge in enumerate(edges, 1):
        labels[1 : 1 + edge, 1 : 1 + edge, x : x + edge] = number
        x += edge + gap
    return labels


def decode(labels, **parameters):
    return decode_flows(tanh_flow(labels), labels > 0, FlowParameters(**parameters))


def test_cells_outside_the_range_of_radii_go():
    truth = cubes(6, 12, 20)
    radii = equivalent_radius(np.array([6**3, 12**3, 20**3]), truth.shape)
    inside = (radii[0] + 0.1, radii[2] - 0.1)
    assert decode(truth, radius_range=(1, 100)).max() == 3
    labels = decode(truth, radius_range=inside)
    assert labels.max() == 1
    np.testing.assert_array_equal(labels == 1, truth == 2)
    assert decode(truth, radius_range=(radii[0], radii[2])).max() == 3


@pytest.mark.parametrize("shape", [(9, 9, 9), (1, 9, 9), (1, 1, 9)])
def test_equivalent_radius_and_its_inverse(shape):
    for radius in (0.5, 2.5, 7.0):
        volume = smallest_volume(radius, shape)
        assert equivalent_radius(np.array([volume]), shape)[0] == pytest.approx(radius)
    volumes = np.array([100])
    expected = {3: (300 / 4 / np.pi) ** (1 / 3), 2: (100 / np.pi) ** 0.5, 1: 50.0}
    extended = sum(n > 1 for n in shape)
    assert equivalent_radius(volumes, shape)[0] == pytest.approx(expected[extended])


def test_cells_that_the_network_doubts_go_and_the_sure_ones_stay_as_they_are():
    truth = cubes(10, 10, 10)
    doubt = np.select([truth == 1, truth == 2, truth == 3], [0.95, 0.5, 0.75], 0.0)
    parts = {}
    for least in (0.0, 0.6, 0.8, 1.0):
        parameters = FlowParameters(foreground_threshold=0.3, min_probability=least)
        parts[least] = decode_flows(tanh_flow(truth), doubt.astype(np.float32), parameters)
    np.testing.assert_array_equal(parts[0.0], truth)
    np.testing.assert_array_equal(parts[0.6] > 0, (truth == 1) | (truth == 3))
    np.testing.assert_array_equal(parts[0.8] > 0, truth == 1)
    assert not parts[1.0].any()


def test_the_mean_probability_is_that_of_scipy():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 9, (7, 20, 30)).astype(np.int32)
    labels[labels == 5] = 0
    chance = rng.random(labels.shape, dtype=np.float32)
    packed = pack_field(np.zeros((3, *labels.shape), np.float32), chance)
    mean = mean_probability(probability_sums(labels, packed, 8), count_regions(labels, 8).volumes)
    present = [1, 2, 3, 4, 6, 7, 8]
    np.testing.assert_allclose(mean[present], ndimage.mean(chance, labels, present), atol=1 / 255)
    assert mean[5] == 0


def test_cells_whose_flow_is_not_their_shapes_go():
    truth = cubes(12, 12)
    flow = tanh_flow(truth)
    # The second cell's flow is that of a point source in a corner: it leads to one sink all right.
    second = truth == 2
    places = np.argwhere(second)
    flow[:, second] = 0.98 * np.sign(places.min(axis=0) - places).T
    kept = decode_flows(flow, truth > 0, FlowParameters(radius_range=(2, 50), max_flow_error=0.5))
    np.testing.assert_array_equal(kept == 1, truth == 1)
    assert kept.max() == 1
    both = decode_flows(flow, truth > 0, FlowParameters(radius_range=(2, 50), max_flow_error=2.0))
    assert both.max() == 2


@pytest.mark.parametrize("target", FLOWS)
def test_flow_errors_are_the_mean_over_voxels_and_components(target):
    rng = np.random.default_rng(0)
    labels = cubes(5, 8, 11)
    predicted = rng.uniform(-1, 1, (3, *labels.shape)).astype(np.float32)
    packed = pack_field(predicted, labels > 0)
    errors = flow_errors(labels, packed, count_regions(labels, 3).volumes, target)
    difference = np.abs(FLOWS[target](labels) - predicted).mean(axis=0)
    expected = ndimage.mean(difference, labels, [1, 2, 3])
    np.testing.assert_allclose(errors[1:], expected, atol=0.005)
    perfect = pack_field(FLOWS[target](labels), labels > 0)
    assert flow_errors(labels, perfect, count_regions(labels, 3).volumes, target).max() < 0.005


def test_cells_that_are_mostly_filled_wall_go():
    truth = np.zeros((20, 20, 40), np.int32)
    truth[2:18, 2:18, 2:14] = 1
    truth[2:18, 2:18, 24:38] = 2
    truth[9:11, 9:11, 18:20] = 3  # a speck in the wall between them
    walls = {"radius_range": (1.0, 50.0), "wall_thickness": 6.0}
    everything = decode(truth, **walls, min_overlap=0.0)
    assert everything.max() == 3
    speck = everything[9, 9, 18]
    assert 2**3 / np.count_nonzero(everything == speck) < 0.2
    kept = decode(truth, **walls, min_overlap=0.2)
    assert kept.max() == 2
    assert kept[9, 9, 18] == 0


def test_the_foreground_threshold_decides_which_voxels_take_part():
    truth = cubes(10)
    chance = np.where(truth > 0, 0.6, 0.0).astype(np.float32)
    flow = tanh_flow(truth)
    for threshold, cells in ((0.5, 1), (0.6, 1), (0.7, 0)):
        parameters = FlowParameters(radius_range=(2, 50), foreground_threshold=threshold)
        assert decode_flows(flow, chance, parameters).max() == cells


@pytest.mark.parametrize("thickness", [1.0, 1.5, 2.0, 3.2, 9.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_walls_go_to_the_nearest_cell_and_no_further(thickness, seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((14, 30, 33), np.int32)
    for number in range(1, 7):
        z, y, x = rng.integers(0, [10, 26, 29])
        labels[z : z + 3, y : y + 4, x : x + 3] = number
    filled = labels.copy()
    fill_walls(filled, thickness)
    distance = ndimage.distance_transform_edt(labels == 0)
    expected = labels > 0
    for voxel in np.argwhere((distance > 0) & (distance <= thickness)):
        expected[tuple(voxel)] = is_wall(labels, voxel, thickness)
    np.testing.assert_array_equal(filled > 0, expected)
    np.testing.assert_array_equal(filled[labels > 0], labels[labels > 0])
    for number in range(1, 7):
        own = ndimage.distance_transform_edt(labels != number)
        np.testing.assert_allclose(own[filled == number], distance[filled == number])


def is_wall(labels, voxel, thickness):
    """Definition of a wall, from the list of all cell voxels within reach."""
    offsets = np.argwhere(labels > 0) - voxel
    lengths = np.linalg.norm(offsets, axis=1)
    offsets, lengths = offsets[lengths <= thickness], lengths[lengths <= thickness]
    if lengths.min() <= 1:
        return True
    towards = offsets[np.isclose(lengths, lengths.min())].sum(axis=0)
    return not towards.any() or bool((offsets @ towards < 0).any())


def test_a_single_cell_grows_by_no_more_than_one_voxel():
    labels = np.zeros((20, 20, 20), np.int32)
    labels[6:14, 6:14, 6:14] = 4
    fill_walls(labels, 5.0)
    assert (labels == 4).sum() == 8**3 + 6 * 8**2


def test_a_wall_between_two_cells_closes_and_the_outside_stays():
    truth = np.zeros((12, 12, 40), np.int32)
    truth[:, :, 2:13] = 1
    truth[:, :, 15:26] = 2
    open_wall = decode(truth, radius_range=(2, 50))
    assert not open_wall[:, :, 13:15].any()
    labels = decode(truth, radius_range=(2, 50), wall_thickness=1.0)
    assert np.all(labels[:, :, 13] == 1)
    assert np.all(labels[:, :, 14] == 2)
    assert not labels[:, :, 27:].any()


def test_nothing_to_fill():
    empty = np.zeros((5, 6, 7), np.int32)
    fill_walls(empty, 3.0)
    assert not empty.any()
    full = np.full((5, 6, 7), 3, np.int32)
    fill_walls(full, 3.0)
    assert np.all(full == 3)
    fill_walls(np.zeros((0, 6, 7), np.int32), 3.0)


def test_kept_cells_are_numbered_by_their_first_voxel():
    labels = np.int32([[[0, 4, 4, 1, 0, 2, 3]]])
    table = count_regions(labels, 5).numbered(np.array([True, True, False, True, True, True]))
    np.testing.assert_array_equal(table[labels], [[[0, 1, 1, 2, 0, 0, 3]]])
    assert table[5] == 0  # not there


def test_groups_have_the_voxels_of_their_members_and_the_earliest_first_one():
    labels = np.int32([[[0, 4, 4, 1, 0, 2, 3]]])
    group = np.int32([0, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(
        count_regions(labels, 5).grouped(group).volumes, count_regions(group[labels], 5).volumes
    )
    table = count_regions(labels, 5).grouped(group).numbered(np.ones(6, np.bool_))
    np.testing.assert_array_equal(table[group[labels]], [[[0, 1, 1, 2, 0, 2, 1]]])


@pytest.mark.parametrize("length", [500, 700])
def test_flow_errors_of_runs_longer_than_the_table(length):
    labels = np.ones((1, 1, length), np.int32)
    packed = pack_field(np.zeros((3, 1, 1, length), np.float32), labels)
    error = flow_errors(labels, packed, np.array([0, length]), "tanh")[1]
    assert error == pytest.approx(np.abs(tanh_flow(labels)).mean(), abs=0.002)
