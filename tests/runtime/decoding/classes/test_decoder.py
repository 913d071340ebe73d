"""What decoders of class maps share, the baselines, and the factory that chooses among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cellrt.errors import InputError, UsageError
from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.base import Block, Decoded, Outputs
from cellrt.runtime.decoding.classes.baselines import (
    DbscanParameters,
    WatershedParameters,
    decode_dbscan,
    decode_watershed,
)
from cellrt.runtime.decoding.classes.class_map import BACKGROUND, FOREGROUND, MEMBRANE, class_map_of
from cellrt.runtime.decoding.classes.decoder import CLASS_OUTPUTS, HERE, TASCAN
from cellrt.runtime.decoding.classes.tascan import TascanParameters
from cellrt.runtime.decoding.labels.upsample import upsample_masks
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Output
from cellrt.runtime.model.file import open_model
from cellrt.runtime.plan import make_plan
from cellrt.simulation import MembraneParameters, simulate_membranes

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=8)
CARD = replace(
    open_model("membranes").card,
    method="cellseg3d",
    decoder="tascan",
    decoder_parameters={"min_area": 40, "min_radius": 2.0},
    outputs=(Output("classes", CLASS_OUTPUTS),),
)


@pytest.fixture(scope="module")
def tissue():
    return simulate_membranes((48, 80, 80), membranes=MembraneParameters(), seed=6).labels


@given(labels=hnp.arrays(np.int32, shapes, elements=st.integers(0, 3)))
def test_membrane_is_within_one_and_a_half_voxels_of_the_cells_border(labels):
    expected = np.where(labels > 0, FOREGROUND, BACKGROUND)
    for cell in range(1, 4):
        if (labels == cell).any() and (labels != cell).any():
            near = ndimage.distance_transform_edt(labels == cell) <= 1.5
            expected[(labels == cell) & near] = MEMBRANE
    np.testing.assert_array_equal(class_map_of(labels), expected)


@given(
    fields=hnp.arrays(
        np.float32,
        shapes.map(lambda shape: (3, *shape)),
        elements=st.sampled_from(np.float32([0, 0.25, 0.5, 1]).tolist()),
    )
)
def test_blocks_are_stored_as_their_most_probable_class(fields):
    decoder = TASCAN.make(TascanParameters(), Outputs(CLASS_OUTPUTS), "")
    _, nz, ny, nx = fields.shape
    collector = decoder.collector((nz + 3, ny + 2, nx))
    kept = collector.kept()
    kept[:] = 77
    collector.add(Block(slice(2, 2 + nz), slice(1, 1 + ny), fields))
    assert kept.dtype == np.uint8
    stored = kept[2 : 2 + nz, 1 : 1 + ny]
    np.testing.assert_array_equal(stored, fields.argmax(axis=0))
    assert np.count_nonzero(kept == 77) == kept.size - stored.size


def test_classes_agree_with_the_cells_that_they_make(tissue):
    decoder = TASCAN.make(TascanParameters(), Outputs(CLASS_OUTPUTS), "")
    classes = class_map_of(tissue)
    right = decoder.agreement(Decoded(tissue, HERE), classes)
    assert right == 1.0
    thick = np.where(ndimage.maximum_filter(classes == MEMBRANE, 3), MEMBRANE, classes)
    cells = np.arange(tissue.max() + 1)
    half = np.array(ndimage.center_of_mass(tissue > 0, tissue, cells[1:]))[:, 2] > 40
    merged = np.append(0, 1 + half).astype(np.int32)[tissue]
    assert 0.2 < decoder.agreement(Decoded(tissue, HERE), thick.astype(np.uint8)) < 0.8
    assert 0 < decoder.agreement(Decoded(merged, HERE), classes) < 0.6
    # Membrane almost everywhere, and a speck in the middle of each cell.
    specks = np.full_like(classes, MEMBRANE)
    middles = np.round(ndimage.center_of_mass(tissue > 0, tissue, cells[1:])).astype(int)
    specks[tuple(middles.T)] = FOREGROUND
    assert 0 < decoder.agreement(Decoded(tissue, HERE), specks) < 0.3
    assert decoder.agreement(Decoded(tissue, HERE), np.zeros_like(classes)) == 0.0
    nothing = Decoded(np.zeros_like(tissue), HERE)
    assert decoder.agreement(nothing, np.zeros_like(classes)) == 0.0


# Another grid


@given(
    labels=hnp.arrays(np.int32, shapes, elements=st.integers(0, 3)),
    shape=st.tuples(*3 * [st.integers(1, 12)]),
)
def test_enlarged_masks_are_interpolated_linearly(labels, shape):
    result = upsample_masks(labels, shape)
    assert result.shape == shape
    places = np.meshgrid(
        *((np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(labels.shape, shape, strict=True)),
        indexing="ij",
    )
    masks = [
        ndimage.map_coordinates((labels == k).astype(float), places, order=1, mode="nearest")
        for k in range(4)
    ]
    chosen = np.take_along_axis(np.stack(masks), result[None].astype(np.int64), axis=0)[0]
    np.testing.assert_allclose(chosen, np.max(masks, axis=0), atol=1e-9)


def test_the_same_grid_changes_nothing(tissue):
    np.testing.assert_array_equal(upsample_masks(tissue, tissue.shape), tissue)


# Baselines


@pytest.mark.parametrize("name", ["tascan", "watershed", "dbscan"])
def test_every_decoder_finds_most_cells_of_a_perfect_class_map(tissue, name):
    if name == "dbscan":
        pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    decoder = decoder_for(CARD, name)
    classes = class_map_of(tissue)
    labels = decoder.decode(classes, mode="fast").labels
    assert labels.dtype == np.int32
    scores = evaluate(labels, tissue)
    assert scores.at(0.5).average_precision > 0.7
    assert set(np.unique(labels)) - {0} == set(range(1, labels.max() + 1))


def test_the_watershed_cuts_at_the_neck_and_dbscan_erodes_it():
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    classes = np.full((18, 18, 36), MEMBRANE, np.uint8)
    classes[3:15, 3:15, 3:15] = FOREGROUND
    classes[3:15, 3:15, 19:31] = FOREGROUND
    classes[7:10, 7:10, 15:19] = FOREGROUND
    flooded = decode_watershed(classes, WatershedParameters())
    clustered = decode_dbscan(classes, DbscanParameters())
    for labels in (flooded, clustered):
        assert labels.max() == 2
        assert len(np.unique(labels[classes == FOREGROUND])) == 2
    # With a small radius every connected voxel is in one cluster, as the paper says.
    assert decode_dbscan(classes, DbscanParameters(radius=1.0, min_neighbours=1)).max() == 1


def test_dbscan_is_scikit_learns_with_noise_given_to_the_nearest_cell():
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is an extra")
    noise = np.random.default_rng(0).standard_normal((20, 24, 28))
    inside = ndimage.gaussian_filter(noise, 2) > 0
    classes = np.where(inside, FOREGROUND, BACKGROUND).astype(np.uint8)
    expected = cluster.DBSCAN(eps=2.0, min_samples=30).fit(np.argwhere(inside)).labels_
    labels = decode_dbscan(classes, DbscanParameters())[inside]
    clusters = expected >= 0
    assert (~clusters).any()
    assert expected.max() >= 1
    pairs = np.unique(np.stack([labels[clusters], expected[clusters]]), axis=1)
    assert pairs.shape[1] == expected.max() + 1 == labels.max()
    assert (labels[~clusters] > 0).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 12), (0, 3, 3)])
@pytest.mark.parametrize("value", [BACKGROUND, MEMBRANE, FOREGROUND])
def test_baselines_take_thin_and_uniform_maps(shape, value):
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    classes = np.full(shape, value, np.uint8)
    flooded = decode_watershed(classes, WatershedParameters())
    clustered = decode_dbscan(classes, DbscanParameters(min_neighbours=1))
    for labels in (flooded, clustered):
        assert labels.shape == shape
        np.testing.assert_array_equal(labels, np.where(classes == FOREGROUND, 1, 0))


# The factory


def test_the_cards_parameters_are_for_the_cards_decoder():
    assert decoder_for(CARD).parameters == TascanParameters(min_area=40, min_radius=2.0)
    assert decoder_for(CARD, "tascan").parameters.min_area == 40
    changed = decoder_for(CARD, parameters={"min_area": 7}).parameters
    assert (changed.min_area, changed.min_radius) == (7, 2.0)
    assert decoder_for(CARD, "watershed").parameters == WatershedParameters()
    other = replace(CARD, decoder="watershed", decoder_parameters={"smoothing": 2.0})
    assert decoder_for(other).parameters.smoothing == 2.0
    assert decoder_for(other, "tascan").parameters == TascanParameters()
    assert ModelCard.from_json(CARD.to_json()) == CARD


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="choose one of flows, tascan, watershed, dbscan"):
        decoder_for(CARD, "Tascan")
    with pytest.raises(InputError, match="asks for the decoder 'x'; known: flows, tascan"):
        decoder_for(replace(CARD, decoder="x"))
    with pytest.raises(InputError, match="min_area is 0"):
        decoder_for(replace(CARD, decoder_parameters={"min_area": 0}))
    with pytest.raises(InputError, match="min_aera"):
        decoder_for(replace(CARD, decoder_parameters={"min_aera": 30}))
    swapped = (Output("classes", ("background", "foreground", "membrane")),)
    with pytest.raises(InputError, match=r"'tascan' needs background, membrane.*fit: none"):
        decoder_for(replace(CARD, outputs=swapped))
    for name, value in (("smoothing", -1), ("seed_distance", 0), ("reach", -1)):
        with pytest.raises(InputError, match=name):
            WatershedParameters(**{name: value})
    for name, value in (("radius", 0.5), ("min_neighbours", 0), ("min_radius", -1)):
        with pytest.raises(InputError, match=name):
            DbscanParameters(**{name: value})


@given(shape=st.tuples(*3 * [st.integers(16, 600)]))
def test_planned_memory_keeps_the_promise_for_16_bit_stacks(shape):
    voxels = int(np.prod(shape))
    card = open_model("membranes-3dcellseg").card
    plan = make_plan(shape, shape, card, decoder_for(card), image_bytes=2 * voxels)
    assert plan.memory_bytes <= 8 * voxels + 1e9
