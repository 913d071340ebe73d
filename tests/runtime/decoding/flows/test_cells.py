"""The flow decoder: perfect and network-like fields, both modes, symmetries, degenerate stacks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from cellrt.errors import InputError
from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.flows.cells import FlowParameters, decode_flows
from cellrt.runtime.decoding.flows.targets import centroid_flow, heat_flow, tanh_flow

SMALL = FlowParameters(radius_range=(2.0, 100.0))
MODES = ["fast", "exact"]


def tessellation(shape, count, seed, *, gap=0.0):
    """Relaxed Voronoi cells that fill the volume, or leave walls of `gap` voxels."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).reshape(3, -1).T.astype(float)
    seeds = rng.uniform(0, 1, (count, 3)) * shape
    for _ in range(3):
        owner = cKDTree(seeds).query(grid)[1]
        size = np.bincount(owner, minlength=count)
        for axis in range(3):
            mean = np.bincount(owner, grid[:, axis], minlength=count) / np.maximum(size, 1)
            seeds[:, axis] = np.where(size > 0, mean, seeds[:, axis])
    distance, owner = cKDTree(seeds).query(grid, k=2)
    labels = np.where(distance[:, 1] - distance[:, 0] < gap, 0, owner[:, 0] + 1)
    return labels.reshape(shape).astype(np.int32)


def balls(shape, count, seed, *, radii=(4.0, 9.0), gap=0.0):
    """Balls that may touch, not overlap."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    z, y, x = np.indices(shape)
    placed = []
    for _ in range(40 * count):
        radius = rng.uniform(*radii)
        centre = rng.uniform(radius, np.array(shape) - radius)
        if all(np.linalg.norm(centre - c) > radius + r + gap for c, r in placed):
            placed.append((centre, radius))
            inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
            labels[inside <= radius**2] = len(placed)
        if len(placed) == count:
            break
    return labels


def like_a_network(labels, seed, *, blur=1.0, noise=0.15):
    """Blurred, damped, noisy fields with random flow in the background."""
    rng = np.random.default_rng(seed)

    def grain():
        field = ndimage.gaussian_filter(rng.standard_normal(labels.shape), 1.5)
        return field / field.std()

    flow = np.stack(
        [0.8 * ndimage.gaussian_filter(g, blur) + noise * grain() for g in tanh_flow(labels)]
    )
    foreground = ndimage.gaussian_filter((labels > 0).astype(float), 0.7 * blur) + 0.1 * grain()
    return flow.clip(-1, 1).astype(np.float32), foreground.clip(0, 1).astype(np.float32)


def agreement(labels, truth, iou=0.9):
    return evaluate(labels, truth).at(iou).average_precision


def same_partition(a, b):
    """Whether two label images differ in the numbers of the labels only."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), gap=st.sampled_from([0.0, 2.0]))
def test_perfect_fields_of_tessellations_come_back(mode, seed, gap):
    truth = tessellation((32, 48, 48), 14, seed, gap=gap)
    labels = decode_flows(tanh_flow(truth), truth > 0, SMALL, mode=mode)
    assert agreement(labels, truth) >= 0.99


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_perfect_fields_of_touching_balls_come_back(mode, seed):
    truth = balls((32, 48, 48), 14, seed)
    labels = decode_flows(tanh_flow(truth), truth > 0, SMALL, mode=mode)
    assert agreement(labels, truth) >= 0.99


@pytest.mark.parametrize("target", ["heat", "centroid"])
def test_other_targets_come_back(target):
    compute = {"heat": heat_flow, "centroid": centroid_flow}[target]
    truth = balls((36, 48, 48), 12, 5, radii=(5.0, 8.0))
    labels = decode_flows(
        compute(truth), truth > 0, FlowParameters(radius_range=(3.0, 50.0), target=target)
    )
    assert agreement(labels, truth) >= 0.99


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["tessellation", "walls", "balls"])
def test_imperfect_fields_neither_split_nor_merge_and_modes_agree(kind, seed):
    truth = {
        "tessellation": lambda: tessellation((40, 56, 56), 20, seed),
        "walls": lambda: tessellation((40, 56, 56), 20, seed, gap=2.5),
        "balls": lambda: balls((40, 56, 56), 20, seed),
    }[kind]()
    flow, foreground = like_a_network(truth, seed)
    visible = np.where(foreground >= 0.5, truth, 0)
    fast = decode_flows(flow, foreground, SMALL)
    exact = decode_flows(flow, foreground, SMALL, mode="exact")
    assert agreement(fast, visible, 0.75) >= 0.95
    assert agreement(fast, exact) >= 0.99


def test_a_long_noisy_cell_is_not_split():
    truth = np.zeros((20, 24, 100), np.int32)
    truth[4:16, 6:18, 4:96] = 1
    flow, foreground = like_a_network(truth, 1)
    for mode in MODES:
        labels = decode_flows(flow, foreground, FlowParameters(), mode=mode)
        assert labels.max() == 1


def test_small_cells_across_a_thin_gap_are_not_merged():
    truth = np.zeros((10, 10, 31), np.int32)
    for number in range(4):
        truth[2:8, 2:8, 2 + 7 * number : 8 + 7 * number] = number + 1
    for mode, sharp in itertools.product(MODES, [True, False]):
        field = (tanh_flow(truth), truth > 0) if sharp else like_a_network(truth, 0, blur=0.7)
        labels = decode_flows(*field, FlowParameters(radius_range=(2.0, 50.0)), mode=mode)
        assert labels.max() == 4


@settings(max_examples=10)
@given(
    seed=st.integers(0, 1000),
    flipped=st.sets(st.integers(0, 2)),
    order=st.permutations([0, 1, 2]),
)
def test_flips_and_turns_change_few_voxels(seed, flipped, order):
    # The rule is symmetric but for ties: rounding of flow to bytes is not, and neither is the
    # choice among equal cuts, so that single voxels on borders may differ.
    truth = balls((24, 30, 36), 8, seed, gap=1.0)
    plain = decode_flows(tanh_flow(truth), truth > 0, SMALL)
    turned = np.transpose(np.flip(truth, tuple(flipped)), order)
    labels = decode_flows(tanh_flow(turned), turned > 0, SMALL)
    back = np.flip(np.transpose(labels, np.argsort(order)), tuple(flipped))
    assert agreement(back, plain, 0.95) == 1.0


@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_numbers_of_the_true_cells_do_not_matter_and_labels_are_ordered(seed):
    truth = tessellation((20, 24, 28), 8, 1, gap=1.5)
    names = np.append(0, np.random.default_rng(seed).permutation(8) + 1).astype(np.int32)
    plain = decode_flows(tanh_flow(truth), truth > 0, SMALL)
    renamed = decode_flows(tanh_flow(names[truth]), truth > 0, SMALL)
    np.testing.assert_array_equal(plain, renamed)
    first = [np.flatnonzero(plain == n)[0] for n in range(1, plain.max() + 1)]
    assert first == sorted(first)


def test_every_input_type_gives_the_same_labels():
    truth = balls((24, 30, 30), 6, 2)
    flow = tanh_flow(truth)
    plain = decode_flows(flow, truth > 0, SMALL)
    mask = (truth > 0).astype(np.uint8) * 7
    for kind, cells in itertools.product(
        [np.float16, np.float64], [truth > 0, mask, mask.astype(bool).astype(np.float16)]
    ):
        assert agreement(decode_flows(flow.astype(kind), cells, SMALL), plain, 0.95) == 1.0
    swapped = np.asfortranarray(flow)
    np.testing.assert_array_equal(decode_flows(swapped, truth > 0, SMALL), plain)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (5, 1, 1), (0, 4, 4), (3, 4, 5)])
def test_degenerate_stacks(mode, shape):
    flow = np.zeros((3, *shape), np.float32)
    empty = decode_flows(flow, np.zeros(shape, bool), SMALL, mode=mode)
    assert empty.shape == shape
    assert empty.dtype == np.int32
    assert not empty.any()
    everything = FlowParameters(radius_range=(0.0, 1e9))
    full = decode_flows(flow, np.ones(shape, bool), everything, mode=mode)
    assert full.shape == shape
    assert np.all(full == 1)


@pytest.mark.parametrize("mode", MODES)
def test_one_slice_is_decoded_as_an_image(mode):
    truth = tessellation((1, 64, 64), 12, 4, gap=2.0)
    labels = decode_flows(tanh_flow(truth), truth > 0, FlowParameters(), mode=mode)
    assert agreement(labels, truth) == 1.0


@pytest.mark.parametrize("mode", MODES)
def test_voxels_that_are_no_numbers_are_background(mode):
    truth = np.ones((12, 12, 12), np.int32)
    for kind in (np.float16, np.float32):
        flow, foreground = tanh_flow(truth).astype(kind), np.ones(truth.shape, kind)
        flow[1, 2, 3, 4] = np.nan
        foreground[9, 9, 9] = np.nan
        labels = decode_flows(flow, foreground, SMALL, mode=mode)
        assert labels[2, 3, 4] == labels[9, 9, 9] == 0
        assert np.count_nonzero(labels == 1) == truth.size - 2


def test_values_beyond_their_range_are_clipped():
    truth = balls((20, 24, 24), 3, 1)
    flow = tanh_flow(truth)
    flow[np.abs(flow) > 0.9] *= np.inf
    labels = decode_flows(flow, (truth > 0) * np.float32(9), SMALL)
    assert agreement(labels, truth) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_pure_noise_ends(seed):
    rng = np.random.default_rng(seed)
    flow = rng.uniform(-1, 1, (3, 12, 13, 14)).astype(np.float32)
    for mode in MODES:
        labels = decode_flows(flow, rng.uniform(0, 1, flow.shape[1:]), SMALL, mode=mode)
        assert labels.shape == flow.shape[1:]


def test_a_bent_cell_stays_whole_with_the_heat_target():
    truth = np.zeros((12, 40, 40), np.int32)
    truth[2:10, 4:36, 4:12] = 1
    truth[2:10, 28:36, 4:36] = 1
    labels = decode_flows(heat_flow(truth), truth > 0, FlowParameters(target="heat"))
    assert labels.max() == 1
    # With the tanh target each leg has a centre of its own: documented, not mended.
    assert decode_flows(tanh_flow(truth), truth > 0, FlowParameters()).max() in (1, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", 0.0),
        ("step", float("nan")),
        ("iterations", 0),
        ("closing_radius", -1.0),
        ("radius_range", (5.0, 4.0)),
        ("radius_range", (1.0,)),
        ("min_overlap", 1.1),
        ("max_flow_error", -0.1),
        ("foreground_threshold", 2.0),
        ("wall_thickness", -1.0),
        ("target", "flux"),
    ],
)
def test_parameters_without_meaning_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=name):
        FlowParameters(**{name: value})


def test_inputs_that_do_not_fit_are_refused():
    flow, cells = np.zeros((3, 4, 5, 6), np.float32), np.zeros((4, 5, 6), bool)
    with pytest.raises(InputError, match="expected \\(3, z, y, x\\)"):
        decode_flows(flow[:2], cells, SMALL)
    with pytest.raises(InputError, match="expected \\(3, z, y, x\\)"):
        decode_flows(flow, cells[:3], SMALL)
    with pytest.raises(InputError, match="floating"):
        decode_flows(flow.astype(int), cells, SMALL)
    with pytest.raises(InputError, match="mode"):
        decode_flows(flow, cells, SMALL, mode="quick")
