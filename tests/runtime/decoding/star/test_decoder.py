"""The decoder of shapes on fields that are made of labels, in tiles of any size."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellrt.errors import CellrtError, UsageError
from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.base import Outputs, decode_fields
from cellrt.runtime.decoding.registry import decoder_for, find_family
from cellrt.runtime.decoding.star.candidates import Proposals
from cellrt.runtime.decoding.star.decoder import STAR
from cellrt.runtime.decoding.star.directions import directions
from cellrt.runtime.decoding.star.harmonics import fit_coefficients
from cellrt.runtime.decoding.star.parameters import StarParameters
from cellrt.runtime.decoding.star.shapes import encode
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Output
from cellrt.runtime.network.hand_over import HandOver
from cellrt.runtime.network.merge import merge, predict
from cellrt.runtime.network.tiles import plan_tiles

HARMONICS = ("distance", *(f"c_{d}_{m}" for d in range(6) for m in range(-d, d + 1)))
RADII = ("probability", *(f"radius_{i:03d}" for i in range(96)))
KINDS = {"harmonics": HARMONICS, "rays": RADII}


def cells(shape=(32, 40, 48), count=9, seed=0, spacing=14):
    """Ellipsoids side by side, some of which touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    spots = [
        (z, y, x)
        for z in range(8, shape[0] - 6, spacing)
        for y in range(8, shape[1] - 6, spacing)
        for x in range(8, shape[2] - 6, spacing)
    ]
    for number, spot in enumerate(spots[:count], 1):
        axes = rng.uniform(5, 7.5, 3)
        offset = (np.moveaxis(np.indices(shape), 0, -1) - spot - rng.uniform(-1, 1, 3)) / axes
        labels[((offset**2).sum(axis=-1) <= 1) & (labels == 0)] = number
    return labels


def distance_of(labels):
    """Distance to the border as a share of each cell's largest."""
    distance = np.zeros(labels.shape, np.float32)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        depth = ndimage.distance_transform_edt(np.pad(labels[box] == number, 1))[1:-1, 1:-1, 1:-1]
        distance[box] = np.where(labels[box] == number, depth / depth.max(), distance[box])
    return distance


def fields_of(labels, kind, stride=2):
    """What a perfect network would say."""
    z, y, x = (n // stride for n in labels.shape)
    blocks = distance_of(labels).reshape(z, stride, y, stride, x, stride)
    found = [blocks.mean(axis=(1, 3, 5))]
    own = labels[tuple(slice(stride // 2, None, stride) for _ in range(3))]
    if kind == "harmonics":
        shapes = encode(labels)
        table = np.zeros((labels.max() + 1, 36), np.float32)
        table[shapes.ids] = shapes.coefficients
        return np.concatenate([found[0][None], np.moveaxis(table[own], 3, 0)])
    places = np.argwhere(own > 0)
    start, number = places * float(stride) + (stride - 1) / 2, own[tuple(places.T)]
    radii = np.zeros((96, *own.shape), np.float32)
    for ray, direction in enumerate(directions(96)):
        inside, length = np.ones(len(places), bool), np.zeros(len(places))
        while inside.any():
            at = np.rint(start + (length[:, None] + 0.25) * direction).astype(int)
            within = ((at >= 0) & (at < labels.shape)).all(axis=1)
            at = np.clip(at, 0, np.subtract(labels.shape, 1))
            inside &= within & (labels[tuple(at.T)] == number)
            length[inside] += 0.25
        radii[ray][tuple(places.T)] = np.maximum(length + 0.1, 0.5)
    return np.concatenate([found[0][None], radii])


def decoder(kind, stride=2, **changes):
    values = {"threshold": 0.45, "min_distance": 4.0} | changes
    return STAR.make(StarParameters(**values), Outputs(KINDS[kind], stride), "")


@pytest.fixture(scope="module", params=[(k, s) for k in KINDS for s in (1, 2)])
def sample(request):
    kind, stride = request.param
    labels = cells()
    return kind, stride, labels, fields_of(labels, kind, stride)


@pytest.mark.parametrize("fit", [False, True])
def test_fields_of_cells_become_these_cells(sample, fit):
    kind, stride, labels, fields = sample
    found = decode_fields(fields, decoder(kind, stride, fit=fit), stride)
    scores = evaluate(found, labels)
    assert found.max() == labels.max()
    assert scores.at(0.7).average_precision == 1
    assert scores.mean_dice > (0.97 if fit else 0.93)
    first = [np.flatnonzero(found == number)[0] for number in range(1, found.max() + 1)]
    assert first == sorted(first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_ends_where_it_does_whatever_the_centre_of_its_shape(kind):
    place = np.moveaxis(np.indices((32, 32, 32)), 0, -1) - [15.5, 15.5, 15.5]
    labels = ((place**2).sum(axis=-1) <= 8**2).astype(np.int32)
    rays = directions(96)
    for away in (0, 2, 4, 5):
        fields = fields_of(labels, kind)
        # The only place with a shape, which is the ball as it is seen from there.
        centre = np.array([7, 7, 7 + away // 2])
        offset = 2 * centre + 0.5 - 15.5
        along = rays @ offset
        radii = np.sqrt(along**2 - offset @ offset + 8.2**2) - along
        made = decoder(kind, fit=True)
        shape = radii[None].astype(np.float32)
        values = shape if kind == "rays" else fit_coefficients(shape, 5)
        kept = made.collector(labels.shape).kept()
        found = Proposals(centre[None], 2 * centre[None] + 0.5, np.ones(1, np.float32), values)
        heights = np.rint(255 * fields[0]).astype(np.uint8)
        decoded = made.decode(replace(kept, map=heights, proposals=found), mode="fast").labels
        assert evaluate(decoded, labels).mean_dice > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_no_cell_goes_through_what_is_lower_than_all_cells_end(kind):
    labels = cells((32, 32, 32), 1)
    fields = fields_of(labels, kind)
    made = decoder(kind, fit=True, fit_reach=4.0)
    # What is beside the cell is high enough to be of it, too low to propose one, and within reach.
    fields[0, 11:14, 3:6, 3:6] = 0.4
    for bridge, crossed in ((0.004, False), (0.4, True)):
        fields[0, 7:11, 3:6, 3:6] = np.maximum(fields[0, 7:11, 3:6, 3:6], bridge)
        assert decode_fields(fields, made, 2)[24:26].any() == crossed


def tiled(fields, stride, decoder, shape, tile, halo):
    """Decode fields that come in tiles, as they do from a network."""
    grid = plan_tiles(shape, halo=halo, blend=2, multiple=4, stride=stride, tile=tile)
    padded = [(0, axis.padded - axis.length) for axis in grid.outputs.axes]
    whole = np.pad(fields, [(0, 0), *padded], mode="symmetric")
    out = HandOver(decoder, grid, "fp32")
    starts = iter([t.start for t in grid.outputs])

    def network(batch):
        box = (slice(s, s + n) for s, n in zip(next(starts), grid.outputs.tile, strict=True))
        return np.ascontiguousarray(whole[(slice(None), *box)])[None]

    tiles = predict(grid, lambda tile: np.zeros(grid.tile, np.float32), [network])
    for block in merge(grid.outputs, out.tiles(tiles)):
        out.block(block)
    return out.kept()


@settings(max_examples=4)
@given(
    tile=st.tuples(*[st.sampled_from([20, 24, 32, 48])] * 3),
    halo=st.integers(2, 4),
    fit=st.booleans(),
)
@pytest.mark.parametrize("kind", list(KINDS))
def test_tiles_of_any_size_give_the_same_cells(kind, tile, halo, fit):
    labels, fields = SHARED[kind]
    whole = decode_fields(fields, decoder(kind, fit=fit), 2)
    kept = tiled(fields, 2, decoder(kind, fit=fit), labels.shape, tile, halo)
    found = decoder(kind, fit=fit).decode(kept, mode="fast").labels
    assert np.count_nonzero(found != whole) <= 2  # of a map that is rounded


SHARED = {kind: (cells(), fields_of(cells(), kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", list(KINDS))
def test_cells_move_with_their_fields(kind):
    _, fields = SHARED[kind]
    wider = np.pad(fields, [(0, 0), (2, 0), (1, 0), (3, 0)])
    found = decode_fields(wider, decoder(kind), 2)
    whole = decode_fields(fields, decoder(kind), 2)
    np.testing.assert_array_equal(found[4:, 2:, 6:] > 0, whole > 0)
    assert evaluate(found[4:, 2:, 6:], whole).mean_dice > 0.999


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_order_of_proposals_says_nothing(kind):
    labels, fields = SHARED[kind]
    made = decoder(kind)
    kept = tiled(fields, 2, made, labels.shape, (24, 24, 24), 2)
    order = np.random.default_rng(0).permutation(len(kept.proposals))
    mixed = replace(kept, proposals=kept.proposals[order])
    np.testing.assert_array_equal(
        made.decode(kept, mode="fast").labels, made.decode(mixed, mode="fast").labels
    )


@pytest.mark.parametrize("changes", [{}, {"fit": True}, {"fill": "delaunay"}])
@pytest.mark.parametrize("kind", list(KINDS))
def test_shapes_are_drawn_on_the_images_own_grid(kind, changes):
    labels, fields = SHARED[kind]
    made = decoder(kind, **changes)
    kept = tiled(fields, 2, made, labels.shape, (32, 40, 48), 0)
    before = pickle.dumps(kept)
    decoded = made.decode(kept, mode="fast")
    # The same volume with slices twice as thick, and pixels half as large.
    shape = (labels.shape[0] // 2, labels.shape[1] * 2, labels.shape[2] * 2)
    there = made.to_grid(decoded, kept, shape)
    expected = labels[::2].repeat(2, axis=1).repeat(2, axis=2)
    assert evaluate(there.labels, expected).mean_dice > 0.9
    for number in range(1, decoded.labels.max() + 1):
        middle = ndimage.center_of_mass(decoded.labels == number)
        z, y, x = middle[0] / 2, 2 * middle[1], 2 * middle[2]
        assert there.labels[round(z - 0.25), round(y), round(x)] == number
    assert pickle.dumps(kept) == before
    thin = made.to_grid(decoded, kept, (2, *labels.shape[1:]))
    assert thin.labels.shape == (2, *labels.shape[1:])
    assert thin.labels.max() == decoded.labels.max()


@pytest.mark.parametrize("count", [36, 64, 96])
def test_a_ball_has_its_volume_however_few_rays_say_so(count):
    fields = np.zeros((1 + count, 24, 24, 24), np.float32)
    fields[0, 12, 12, 12] = 1.0
    fields[1:] = 9.0
    names = ("probability", *(f"radius_{i:03d}" for i in range(count)))
    star = STAR.make(StarParameters(), Outputs(names, 2), "")
    volume = np.count_nonzero(decode_fields(fields, star, 2))
    assert volume == pytest.approx(4 / 3 * math.pi * 9.0**3, rel=0.02)


def test_power_has_the_unit_of_the_image():
    labels, fields = SHARED["harmonics"]
    made = decoder("harmonics")
    kept = tiled(fields, 2, made, labels.shape, (32, 40, 48), 0)
    decoded = made.decode(kept, mode="fast")
    expected = encode(labels).power
    found = decoded.evidence.areas
    assert list(found) == [f"power_{degree}" for degree in range(6)]
    order = [labels[decoded.labels == n].max() - 1 for n in range(1, decoded.labels.max() + 1)]
    assert found["power_0"][1:] == pytest.approx(expected[order, 0], rel=1e-3)
    finer = made.to_grid(decoded, kept, tuple(3 * n for n in labels.shape))
    assert finer.evidence.areas["power_0"] == pytest.approx(9 * found["power_0"])
    assert (
        not decoder("rays")
        .decode(
            tiled(SHARED["rays"][1], 2, decoder("rays"), labels.shape, (32, 40, 48), 0), mode="fast"
        )
        .evidence.areas
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_cells_that_explain_the_map_agree_better(kind):
    labels, fields = SHARED[kind]
    made = decoder(kind)
    kept = tiled(fields, 2, made, labels.shape, (32, 40, 48), 0)
    decoded = made.decode(kept, mode="fast")
    good = made.agreement(decoded, kept)
    assert 0.75 < good <= 1
    fewer = replace(decoded, labels=np.where(decoded.labels > 4, 0, decoded.labels))
    merged = replace(decoded, labels=(decoded.labels > 0).astype(np.int32))
    assert made.agreement(fewer, kept) < good - 0.2
    assert made.agreement(merged, kept) < good - 0.05
    evidence = decoded.evidence
    assert (evidence.cells["probability"][1:] > 0.45).all()
    assert (evidence.cells["shape_match"][1:] > 0.8).all()
    assert evidence.volume["missed"] < 0.01


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_volume_without_cells_has_none(kind):
    fields = np.zeros((len(KINDS[kind]), 4, 5, 6), np.float32)
    for fit in (False, True):
        made = decoder(kind, fit=fit)
        collector = made.collector((8, 10, 12))
        kept = collector.kept()
        decoded = made.decode(kept, mode="fast")
        assert not decoded.labels.any()
        assert not made.to_grid(decoded, kept, (3, 20, 20)).labels.any()
        assert made.agreement(decoded, kept) == 0
        assert not decode_fields(fields, made, 2).any()


def test_too_many_proposals_are_thinned_to_the_best(monkeypatch):
    from cellrt.runtime.decoding.star import candidates

    monkeypatch.setattr(candidates, "_LEAST_ROOM", 200 * 96 * 4)
    monkeypatch.setattr(candidates, "_ROOM_PER_VOXEL", 0)
    labels, fields = SHARED["rays"]
    made = decoder("rays", threshold=0.1)
    kept = tiled(fields, 2, made, labels.shape, (24, 24, 24), 2)
    assert kept.thinned
    assert 100 < len(kept.proposals) <= 200
    found = made.decode(kept, mode="fast")
    assert found.labels.max() == labels.max()
    (warning,) = found.warnings
    assert f"a score up to {kept.lowest:.3g} were left out" in warning
    # A threshold above what was left out misses nothing.
    assert not decoder("rays", threshold=kept.lowest).decode(kept, mode="fast").warnings


def test_a_threshold_below_what_was_kept_is_refused():
    labels, fields = SHARED["harmonics"]
    kept = tiled(fields, 2, decoder("harmonics"), labels.shape, (32, 40, 48), 0)
    decoder("harmonics", threshold=0.9).decode(kept, mode="fast")
    with pytest.raises(UsageError, match=r"threshold is 0\.2 and shapes were kept above 0\.45"):
        decoder("harmonics", threshold=0.2).decode(kept, mode="fast")


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 1.5), ("fit_reach", 0.5), ("max_overlap", math.nan), ("min_volume", -1)],
)
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(CellrtError, match=f"{name} is {value}; expected"):
        StarParameters(**{name: value})


@pytest.mark.parametrize(
    ("channels", "fits"),
    [
        (HARMONICS, True),
        (RADII, True),
        (("distance", "c_0_0", "c_1_-1", "c_1_0", "c_1_1"), True),
        (("distance", "c_0_0"), False),
        (HARMONICS[:-1], False),
        (("probability", *HARMONICS[1:]), False),
        (RADII[:-1], False),
        (("flow_z", "flow_y", "flow_x", "foreground"), False),
    ],
)
def test_outputs_that_fit(channels, fits):
    assert find_family("star").fits(channels) == fits


def test_a_stride_is_for_decoders_that_take_one():
    values = {"name": "m", "summary": "", "target": "nuclei", "method": "m", "decoder": "flows"}
    outputs = (Output("fields", ("flow_z", "flow_y", "flow_x", "foreground")),)
    sizes = {"diameter_voxels": 12.0, "voxel_size_um": 0.5, "decoder_parameters": {}}
    card = ModelCard(**values, **sizes, outputs=outputs, output_stride=2)
    with pytest.raises(CellrtError, match=r"one for 2³ voxels; the decoder 'flows' needs"):
        decoder_for(card)
    star = replace(card, decoder="star", outputs=(Output("fields", RADII),))
    assert decoder_for(star).outputs == Outputs(RADII, 2)
    with pytest.raises(CellrtError, match=r"radius_095 \(97 in all\)"):
        decoder_for(star, "tascan")
