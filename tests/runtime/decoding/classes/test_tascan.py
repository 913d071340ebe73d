"""TASCAN on hand-made cells with known answers, and its parts against independent libraries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label as components
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

from cellrt.errors import InputError
from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.classes.class_map import BACKGROUND, FOREGROUND, MEMBRANE, class_map_of
from cellrt.runtime.decoding.classes.supervoxels import climb_to_maxima
from cellrt.runtime.decoding.classes.tascan import TascanParameters, decode_supervoxels
from cellrt.runtime.decoding.classes.touching import merge_supervoxels, touching_areas
from cellrt.runtime.decoding.labels.distance import FARTHEST, squared_distance
from cellrt.runtime.decoding.labels.fill_nearest import fill_from_nearest
from cellrt.runtime.decoding.labels.regions import relabel
from cellrt.simulation import MembraneParameters, simulate_membranes

PARAMETERS = TascanParameters()
ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.chain.from_iterable(
        itertools.combinations(range(3), count) for count in range(4)
    )
]
shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)


def turned(array, order, flips):
    return np.ascontiguousarray(np.flip(array.transpose(order), flips))


def turned_back(array, order, flips):
    return np.flip(array, flips).transpose(np.argsort(order))


def cubes_with_necks(*areas, edge=12, length=2):
    """Cubes in a row along x, in membrane, joined by necks of the given cross-sections."""
    width = len(areas) * (edge + length) + edge + 6
    classes = np.full((edge + 6, edge + 6, width), MEMBRANE, np.uint8)
    for number in range(len(areas) + 1):
        x = 3 + number * (edge + length)
        classes[3 : 3 + edge, 3 : 3 + edge, x : x + edge] = FOREGROUND
    for number, area in enumerate(areas):
        # As round as a number of voxels allows: whole rows of six, and the rest.
        neck = np.full((6, 6), MEMBRANE, np.uint8)
        neck.flat[:area] = FOREGROUND
        x = 3 + edge + number * (edge + length)
        classes[6:12, 6:12, x : x + length] = neck[..., None]
    return classes


def blobs(seed, shape=(40, 48, 56), sigma=3.0):
    """Smooth random foreground in membrane, without any symmetry."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    inside = ndimage.gaussian_filter(noise, sigma) > 0
    return np.where(inside, FOREGROUND, MEMBRANE).astype(np.uint8)


def same_partition(first, second):
    """Whether two label images differ in the numbers only."""
    pairs = np.unique((first.astype(np.int64) << 32) | second)
    return len(set(pairs >> 32)) == len(set(pairs & 0xFFFFFFFF)) == len(pairs)


# The rule


@pytest.mark.parametrize(("area", "cells"), [(1, 2), (12, 2), (29, 2), (30, 1), (31, 1), (36, 1)])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_two_cubes_are_one_cell_from_min_area_on(area, cells, length):
    classes = cubes_with_necks(area, length=length)
    assert decode_supervoxels(classes, PARAMETERS).max() == cells


@pytest.mark.parametrize("min_area", [6, 17, 24])
def test_min_area_is_counted_in_faces(min_area):
    parameters = TascanParameters(min_area=min_area)
    assert decode_supervoxels(cubes_with_necks(min_area - 1), parameters).max() == 2
    assert decode_supervoxels(cubes_with_necks(min_area), parameters).max() == 1


@pytest.mark.parametrize(
    ("areas", "cells"),
    [((30, 30), 1), ((29, 30), 2), ((30, 29), 2), ((29, 29), 3), ((36, 36, 36, 5), 2)],
)
def test_chains_are_joined_link_by_link(areas, cells):
    labels = decode_supervoxels(cubes_with_necks(*areas), PARAMETERS)
    assert labels.max() == cells
    middle = labels[9, 9]
    starts = [3 + number * 14 + 6 for number in range(len(areas) + 1)]
    for area, a, b in zip(areas, starts, starts[1:], strict=False):
        assert (middle[a] == middle[b]) == (area >= 30)


@pytest.mark.parametrize("areas", [(29,), (30,), (29, 30), (30, 30)])
def test_necks_are_judged_alike_whichever_way_the_axes_point(areas):
    classes = cubes_with_necks(*areas)
    expected = decode_supervoxels(classes, PARAMETERS)
    for order, flips in ORIENTATIONS:
        labels = decode_supervoxels(turned(classes, order, flips), PARAMETERS)
        assert same_partition(turned_back(labels, order, flips), expected)


def big_and_small(covered):
    """A small part of 2 x 2 x 2 voxels (surface 24), `covered` faces of it behind a big one."""
    labels = np.zeros((12, 12, 12), np.int32)
    labels[1:8, 1:11, 1:11] = 1
    # Sunk into the big one by 0, 1 or 2 voxels: 4, 12 or 20 faces are covered.
    top = 8 - {4: 0, 12: 1, 20: 2}[covered]
    labels[top : top + 2, 5:7, 5:7] = 2
    return labels


@pytest.mark.parametrize(("covered", "cells"), [(4, 2), (12, 2), (20, 1)])
def test_a_small_supervoxel_joins_where_more_than_half_of_it_is_covered(covered, cells):
    touching = touching_areas(big_and_small(covered), 2)
    assert touching.volumes.tolist()[2] == 8
    assert touching.surfaces.tolist()[2] == 24
    assert touching.areas.tolist() == [covered]
    assert merge_supervoxels(touching, 30).max() == cells


def test_the_whole_surface_counts_and_not_only_the_touching_one():
    """Two cubes that touch in one voxel face share all of their touching surface."""
    labels = np.zeros((26, 26, 28), np.int32)
    labels[1:13, 1:13, 1:13] = 1
    labels[12:24, 12:24, 13:25] = 2
    touching = touching_areas(labels, 2)
    assert touching.areas.tolist() == [1]
    assert merge_supervoxels(touching, 30).max() == 2


def test_neighbours_that_are_one_cell_cover_a_small_part_together():
    labels = np.zeros((10, 12, 24), np.int32)
    labels[1:7, 1:11, 1:11] = 1
    labels[1:7, 1:11, 11:21] = 2
    labels[6, 5:7, 9:13] = 3  # half over each, sunk by a voxel into a surface of its own
    touching = touching_areas(labels, 3)
    covered = {(1, 3): 10, (2, 3): 10}
    found = zip(touching.first, touching.second, touching.areas, strict=True)
    assert {(a, b): n for a, b, n in found if b == 3} == covered
    assert touching.surfaces[3] == 28
    assert merge_supervoxels(touching, 30).max() == 1
    # Where the two are two cells, neither covers more than half.
    assert merge_supervoxels(touching, 1000).tolist() == [0, 1, 2, 3]


def test_the_order_of_supervoxels_does_not_matter():
    classes = blobs(3, sigma=2.0)
    supervoxels = squared_distance(classes)
    count = climb_to_maxima(supervoxels)
    assert count > 100
    expected = supervoxels.copy()
    relabel(expected, merge_supervoxels(touching_areas(supervoxels, count), 30))
    assert 2 < expected.max() < count
    rng = np.random.default_rng(0)
    for _ in range(100):
        table = np.append(0, 1 + rng.permutation(count)).astype(np.int32)
        shuffled = table[supervoxels]
        cells = merge_supervoxels(touching_areas(shuffled, count), 30)
        assert same_partition(cells[shuffled], expected)


def test_the_order_of_contacts_does_not_matter():
    supervoxels = squared_distance(blobs(4, sigma=2.0))
    touching = touching_areas(supervoxels, climb_to_maxima(supervoxels))
    expected = merge_supervoxels(touching, 20)
    rng = np.random.default_rng(1)
    for _ in range(100):
        order = rng.permutation(touching.areas.size)
        mixed = touching._replace(
            first=touching.first[order],
            second=touching.second[order],
            areas=touching.areas[order],
        )
        np.testing.assert_array_equal(merge_supervoxels(mixed, 20), expected)


@pytest.mark.parametrize("seed", range(4))
def test_flips_and_permutations_change_ties_only(seed):
    """Blobs have no planes of symmetry, so that hardly a voxel may change its cell."""
    classes = blobs(seed)
    expected = decode_supervoxels(classes, PARAMETERS)
    for order, flips in ORIENTATIONS[1::5]:
        labels = decode_supervoxels(turned(classes, order, flips), PARAMETERS)
        labels = turned_back(labels, order, flips)
        assert labels.max() == expected.max()
        assert evaluate(np.ascontiguousarray(labels), expected).mean_dice > 0.995


# Touching areas


def brute_force(labels):
    """Surfaces and contacts, one face at a time."""
    surfaces, areas = {}, {}
    for axis in range(3):
        if labels.shape[axis] == 1:
            continue
        padded = np.pad(labels, [(int(k == axis),) * 2 for k in range(3)])
        near, far = (
            np.moveaxis(padded, axis, 0)[cut].ravel().tolist()
            for cut in (slice(None, -1), slice(1, None))
        )
        for a, b in zip(near, far, strict=True):
            if a == b:
                continue
            for label in (a, b):
                if label:
                    surfaces[label] = surfaces.get(label, 0) + 1
            if a and b:
                pair = min(a, b), max(a, b)
                areas[pair] = areas.get(pair, 0) + 1
    return surfaces, areas


@given(labels=hnp.arrays(np.int32, shapes, elements=st.integers(0, 6)))
def test_touching_areas_equal_a_count_face_by_face(labels):
    touching = touching_areas(labels, 6)
    surfaces, areas = brute_force(labels)
    assert touching.surfaces.tolist() == [surfaces.get(k, 0) for k in range(7)]
    assert touching.volumes.tolist() == [0, *np.bincount(labels.ravel(), minlength=7)[1:].tolist()]
    found = zip(touching.first, touching.second, touching.areas, strict=True)
    assert {(a, b): n for a, b, n in found} == areas


def test_many_pairs_outgrow_the_first_table():
    labels = np.random.default_rng(0).integers(0, 5000, (24, 24, 24)).astype(np.int32)
    touching = touching_areas(labels, 4999)
    _, areas = brute_force(labels)
    found = zip(touching.first, touching.second, touching.areas, strict=True)
    assert {(a, b): n for a, b, n in found} == areas
    assert len(areas) > 20_000


# Distance transform and watershed


@given(classes=hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 2, 2, 2, 2])))
def test_distances_equal_scipys(classes):
    inside = classes == FOREGROUND
    if inside.all():
        assert (squared_distance(classes) == FARTHEST).all()
        return
    expected = np.rint(ndimage.distance_transform_edt(inside) ** 2)
    np.testing.assert_array_equal(squared_distance(classes), expected)


def test_distances_are_exact_over_long_ways():
    classes = np.full((70, 80, 90), FOREGROUND, np.uint8)
    classes[5, 70, 80] = MEMBRANE
    classes[60, 3, 10] = BACKGROUND
    expected = np.rint(ndimage.distance_transform_edt(classes == FOREGROUND) ** 2)
    np.testing.assert_array_equal(squared_distance(classes), expected)


def climbed(classes):
    squares = squared_distance(classes)
    supervoxels = squares.copy()
    return squares, supervoxels, climb_to_maxima(supervoxels)


@given(classes=hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 2, 2, 2, 2])))
def test_every_voxel_is_in_the_supervoxel_of_its_highest_neighbour(classes):
    squares, supervoxels, count = climbed(classes)
    maxima = components(local_maxima(squares, connectivity=3) & (squares > 0), connectivity=3)
    if squares.min() == FARTHEST:
        assert (supervoxels == 1).all()
        return
    assert same_partition(maxima[maxima > 0], supervoxels[maxima > 0])
    assert count == maxima.max()
    heights, labels = np.pad(squares, 1), np.pad(supervoxels, 1)
    for z, y, x in np.argwhere(maxima == 0):
        around = np.s_[z : z + 3, y : y + 3, x : x + 3]
        if squares[z, y, x]:
            best = labels[around][heights[around] == heights[around].max()]
            assert supervoxels[z, y, x] in best


@pytest.mark.parametrize("seed", range(3))
def test_supervoxels_are_scikit_images_watershed_but_for_ties(seed):
    squares, supervoxels, count = climbed(blobs(seed))
    maxima = components(local_maxima(squares, connectivity=3), connectivity=3)
    flooded = watershed(-squares, maxima, connectivity=3, mask=squares > 0)
    assert ((supervoxels > 0) == (flooded > 0)).all()
    number = np.zeros(count + 1, np.int32)
    number[supervoxels[maxima > 0]] = maxima[maxima > 0]
    # Of equally high neighbours scikit-image takes the one that it reached first.
    assert (number[supervoxels] == flooded)[squares > 0].mean() > 0.93


def test_a_long_plateau_is_cut_in_the_middle():
    """A rod of constant thickness between two balls has one height along its axis."""
    z, y, x = np.indices((21, 21, 81)) - 10
    rod = z**2 + y**2 <= 9
    balls = (z**2 + y**2 + x**2 <= 64) | (z**2 + y**2 + (x - 60) ** 2 <= 64)
    squares = squared_distance(np.where(rod & (x >= 0) & (x <= 60) | balls, 2, 0).astype(np.uint8))
    supervoxels = squares.copy()
    assert climb_to_maxima(supervoxels) == 2
    axis = supervoxels[10, 10]
    assert abs(np.count_nonzero(axis == axis[10]) - np.count_nonzero(axis == axis[70])) <= 1
    assert (np.diff(axis[3:78]) != 0).sum() == 1


# Leftovers


@settings(max_examples=60)
@given(
    labels=hnp.arrays(np.int32, shapes, elements=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3])),
    seed=st.integers(0, 99),
    reach=st.sampled_from([1.0, 1.5, 2.0, 3.3, 32.0]),
)
def test_leftovers_go_to_the_nearest_cell_within_reach(labels, seed, reach):
    classes = np.random.default_rng(seed).integers(0, 3, labels.shape).astype(np.uint8)
    classes[labels > 0] = FOREGROUND
    volumes = np.bincount(labels.ravel(), minlength=4)
    filled = labels.copy()
    fill_from_nearest(filled, classes, volumes, reach)
    squares = np.full((4, *labels.shape), np.inf)
    for cell in range(1, 4):
        if (labels == cell).any():
            squares[cell] = np.rint(ndimage.distance_transform_edt(labels != cell) ** 2)
    nearest = squares.min(axis=0)
    open_to = (classes != BACKGROUND) & (nearest <= reach**2)
    assert ((filled > 0) == open_to).all()
    at = np.nonzero(open_to)
    np.testing.assert_array_equal(squares[(filled[at], *at)], nearest[at])
    # Of equally near cells the largest one.
    as_near = squares[(slice(None), *at)] == nearest[at]
    rival = np.where(as_near, volumes[:, None], -1).max(axis=0)
    np.testing.assert_array_equal(volumes[filled[at]], rival)


def test_background_stays_background_and_membranes_do_not():
    classes = np.zeros((16, 16, 40), np.uint8)
    classes[2:14, 2:14, 2:38] = MEMBRANE
    classes[4:12, 4:12, 4:18] = FOREGROUND
    classes[4:12, 4:12, 22:36] = FOREGROUND
    labels = decode_supervoxels(classes, PARAMETERS)
    np.testing.assert_array_equal(labels > 0, classes != BACKGROUND)
    assert labels.max() == 2
    assert (labels[8, 8, 2:20] == 1).all()
    assert (labels[8, 8, 20:38] == 2).all()


def test_small_cells_become_leftovers_of_the_others():
    classes = np.full((16, 16, 40), MEMBRANE, np.uint8)
    classes[3:13, 3:13, 3:13] = FOREGROUND
    classes[7:9, 7:9, 17:19] = FOREGROUND
    assert decode_supervoxels(classes, PARAMETERS).max() == 2
    labels = decode_supervoxels(classes, TascanParameters(min_radius=2.0))
    assert labels.max() == 1
    assert (labels == 1).mean() > 0.99
    assert decode_supervoxels(classes, TascanParameters(min_radius=2.0, reach=3.0))[8, 8, 17] == 0


# Whole class maps


@pytest.fixture(scope="module")
def tissue():
    return simulate_membranes((64, 96, 96), membranes=MembraneParameters(), seed=5).labels


def test_a_perfect_class_map_gives_the_cells_back(tissue):
    labels = decode_supervoxels(class_map_of(tissue), PARAMETERS)
    scores = evaluate(labels, tissue)
    assert scores.at(0.5).average_precision > 0.9
    assert scores.mean_dice > 0.95


def test_the_cells_are_those_of_an_independent_pipeline(tissue):
    """The same rule written with scipy and scikit-image, a loop over labels and all."""
    classes = class_map_of(tissue)
    inside = classes == FOREGROUND
    squares = np.rint(ndimage.distance_transform_edt(inside) ** 2).astype(np.int64)
    seeds = components(local_maxima(squares, connectivity=3) & inside, connectivity=3)
    supervoxels = watershed(-squares, seeds, connectivity=3, mask=inside)
    surfaces, areas = brute_force(supervoxels)
    volumes = np.bincount(supervoxels.ravel())
    parent = list(range(seeds.max() + 1))

    def root(a):
        while parent[a] != a:
            a = parent[a]
        return a

    for (a, b), area in areas.items():
        smaller = a if volumes[a] <= volumes[b] else b
        if area >= 30 or 2 * area > surfaces[smaller]:
            parent[root(a)] = root(b)
    cells = np.array([root(a) for a in range(len(parent))])[supervoxels]
    where = ndimage.distance_transform_edt(cells == 0, return_distances=False, return_indices=True)
    expected = np.where(classes != BACKGROUND, cells[tuple(where)], 0)
    scores = evaluate(decode_supervoxels(classes, PARAMETERS), expected)
    assert scores.at(0.5).average_precision > 0.95
    assert scores.mean_dice > 0.98


@pytest.mark.parametrize("value", [BACKGROUND, MEMBRANE])
@pytest.mark.parametrize("shape", [(10, 12, 14), (1, 1, 1), (1, 30, 1), (0, 4, 4)])
def test_without_foreground_there_are_no_cells(value, shape):
    labels = decode_supervoxels(np.full(shape, value, np.uint8), PARAMETERS)
    assert labels.dtype == np.int32
    assert labels.shape == shape
    assert not labels.any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (9, 1, 1), (1, 8, 9), (7, 8, 9)])
def test_foreground_all_over_is_one_cell(shape):
    labels = decode_supervoxels(np.full(shape, FOREGROUND, np.uint8), PARAMETERS)
    assert (labels == 1).all()


def test_a_single_voxel_is_a_cell():
    classes = np.zeros((5, 6, 7), np.uint8)
    classes[2, 3, 4] = FOREGROUND
    assert decode_supervoxels(classes, PARAMETERS).sum() == 1


@pytest.mark.parametrize("axis", range(3))
def test_in_two_dimensions_areas_are_lengths(axis):
    plane = cubes_with_necks(36)[8]
    classes = np.ascontiguousarray(np.expand_dims(plane, axis))
    assert decode_supervoxels(classes, TascanParameters(min_area=6)).max() == 1
    assert decode_supervoxels(classes, TascanParameters(min_area=7)).max() == 2


@given(classes=hnp.arrays(np.uint8, shapes, elements=st.integers(0, 2)), area=st.integers(1, 9))
def test_any_class_map_gives_numbered_cells_and_free_background(classes, area):
    labels = decode_supervoxels(classes, TascanParameters(min_area=area, reach=63))
    assert not labels[classes == BACKGROUND].any()
    assert set(np.unique(labels)) - {0} == set(range(1, labels.max() + 1))
    first = [np.flatnonzero(labels.ravel() == k)[0] for k in range(1, labels.max() + 1)]
    assert first == sorted(first)
    if (classes == FOREGROUND).any():
        np.testing.assert_array_equal(labels > 0, classes != BACKGROUND)
    else:
        assert not labels.any()


def test_values_that_mean_nothing_are_refused_by_name():
    for name, value in [("min_area", 0), ("min_area", -3), ("min_area", 2.5), ("reach", 64)]:
        with pytest.raises(InputError, match=name):
            TascanParameters(**{name: value})
    with pytest.raises(InputError, match="min_radius"):
        TascanParameters(min_radius=-1)
    with pytest.raises(InputError, match="uint8"):
        decode_supervoxels(np.zeros((4, 4, 4), np.int32), PARAMETERS)
    with pytest.raises(InputError, match="three-dimensional"):
        decode_supervoxels(np.zeros((4, 4), np.uint8), PARAMETERS)
