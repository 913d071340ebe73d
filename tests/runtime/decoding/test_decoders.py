"""What holds for decoders of every family: they never change, nor does what was kept."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.errors import InputError
from cellrt.runtime.decoding.base import Block, Outputs, TileFields, decode_fields
from cellrt.runtime.decoding.classes.baselines import (
    DbscanParameters,
    WatershedParameters,
    decode_dbscan,
    decode_watershed,
)
from cellrt.runtime.decoding.classes.class_map import class_map_of
from cellrt.runtime.decoding.classes.decoder import CLASS_OUTPUTS
from cellrt.runtime.decoding.classes.tascan import TascanParameters, decode_supervoxels
from cellrt.runtime.decoding.embedding.decoder import EmbeddingParameters, embedding_outputs
from cellrt.runtime.decoding.flows.cells import (
    UNSURE,
    FlowParameters,
    decode_flows,
    decode_packed,
)
from cellrt.runtime.decoding.flows.decoder import FLOW_OUTPUTS
from cellrt.runtime.decoding.flows.packed_field import threshold_byte, unpack_flow
from cellrt.runtime.decoding.flows.targets import tanh_flow
from cellrt.runtime.decoding.registry import family_names, find_family
from cellrt.runtime.decoding.star.parameters import StarParameters

# Parameters that change cells of the small fields below.
PLAIN = {
    "flows": FlowParameters(radius_range=(1.0, 100.0)),
    "tascan": TascanParameters(),
    "watershed": WatershedParameters(),
    "dbscan": DbscanParameters(min_neighbours=5),
    "star": StarParameters(threshold=0.4),
    "embedding": EmbeddingParameters(),
}
OTHER = {
    "flows": FlowParameters(
        radius_range=(2.0, 9.0), foreground_threshold=0.6, wall_thickness=2.0, min_probability=0.65
    ),
    "tascan": TascanParameters(min_area=3, min_radius=1.0, reach=2),
    "watershed": WatershedParameters(smoothing=0.0, min_radius=1.0, reach=2),
    "dbscan": DbscanParameters(radius=1.0, min_neighbours=2, reach=2),
    "star": StarParameters(threshold=0.5, min_distance=2.0, max_overlap=0.1, fit=True),
    "embedding": EmbeddingParameters(
        bandwidth=0.2, foreground_threshold=0.3, join_distance=1, min_radius=1.0
    ),
}
HARMONICS = ("distance", "c_0_0", "c_1_-1", "c_1_0", "c_1_1")
# More voxels than int32 can count, in a few bytes.
HUGE = (2048, 1024, 1025)


def decoder_of(name, parameters):
    if name == "dbscan":
        pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    outputs = Outputs({"star": HARMONICS, "embedding": embedding_outputs(3)}.get(name, ()))
    return find_family(name).make(parameters, outputs, "as this is a test")


def random_fields(name, shape, seed):
    """Fields of smooth noise: a few cells, walls, and everything between."""
    from scipy import ndimage

    channels = {"flows": 4, "embedding": 4, "star": len(HARMONICS)}.get(name, 3)
    noise = np.random.default_rng(seed).standard_normal((channels, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 1.5), mode="nearest")
    fields = smooth / (np.abs(smooth).max() + 1e-9)
    if name == "flows":
        fields[3] = (fields[3] + 1) / 2
    if name == "star":
        fields[0] = (fields[0] + 1) / 2
        fields[1] = (3 + fields[1]) * np.sqrt(4 * np.pi)
    return fields.astype(np.float32)


def kept_of(decoder, fields):
    _, z, y, _ = fields.shape
    collector = decoder.collector(fields.shape[1:])
    if decoder.merging == "per tile":
        whole = tuple(slice(0, n) for n in fields.shape[1:])
        collector.add_tile(TileFields((0, 0, 0), whole, fields))
    collector.add(Block(slice(0, z), slice(0, y), fields[decoder.merged]))
    return collector.kept()


@pytest.mark.parametrize("name", family_names())
@settings(max_examples=15)
@given(shape=st.tuples(*3 * [st.integers(1, 20)]), seed=st.integers(0, 99))
def test_decoding_changes_neither_the_decoder_nor_what_was_kept(name, shape, seed):
    plain, other = decoder_of(name, PLAIN[name]), decoder_of(name, OTHER[name])
    fields = random_fields(name, shape, seed)
    kept = kept_of(plain, fields)
    before = pickle.dumps(kept)
    finer = tuple(n + 1 for n in shape)
    results = []
    for decoder in (plain, other, plain):
        for mode in decoder.modes:
            decoded = decoder.decode(kept, mode=mode)
            labels = decoded.labels.copy()
            results.append((labels, decoder.to_grid(decoded, kept, finer).labels))
            decoder.agreement(decoded, kept)
            np.testing.assert_array_equal(decoded.labels, labels)
            assert pickle.dumps(kept) == before
    modes = len(plain.modes)
    for first, again in zip(results[:modes], results[2 * modes :], strict=True):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(decode_fields(fields, plain), results[0][0])


@pytest.mark.parametrize("name", family_names())
def test_nothing_can_be_set(name):
    decoder = decoder_of(name, PLAIN[name])
    for attribute in ("parameters", "place", "keep_to_cpu"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(decoder, attribute, None)


@pytest.mark.parametrize("name", family_names())
def test_families_are_what_the_registry_calls_them(name):
    family = find_family(name)
    assert family.name == name == decoder_of(name, family.parameters()).name
    assert family.parameters.__dataclass_params__.frozen
    known = (FLOW_OUTPUTS, CLASS_OUTPUTS, embedding_outputs(2), HARMONICS)
    (fitting,) = (channels for channels in known if family.fits(channels))
    if fitting != HARMONICS:  # which come in any number
        assert family.needs.replace("...", "1").startswith(", ".join(fitting))


@pytest.mark.parametrize(
    "decode",
    [
        lambda: decode_packed(np.broadcast_to(np.uint32(0), HUGE), FlowParameters()),
        lambda: decode_packed(np.broadcast_to(np.uint32(0), HUGE), FlowParameters(), mode="exact"),
        lambda: decode_flows(
            np.broadcast_to(np.float32(0), (3, *HUGE)),
            np.broadcast_to(np.float32(0), HUGE),
            FlowParameters(),
        ),
        lambda: decode_supervoxels(np.broadcast_to(np.uint8(0), HUGE), TascanParameters()),
        lambda: decode_watershed(np.broadcast_to(np.uint8(0), HUGE), WatershedParameters()),
        lambda: decode_dbscan(np.broadcast_to(np.uint8(0), HUGE), DbscanParameters()),
    ],
    ids=["flows", "flows exact", "flow fields", "tascan", "watershed", "dbscan"],
)
def test_more_voxels_than_int32_counts_are_refused(decode):
    if decode.__code__.co_names[0] == "decode_dbscan":
        pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    with pytest.raises(InputError, match=r"2,149,580,800 voxels.*cut the stack into blocks"):
        decode()


@pytest.mark.parametrize("name", family_names())
@settings(max_examples=15)
@given(shape=st.tuples(*3 * [st.integers(3, 20)]), seed=st.integers(0, 99))
def test_every_cell_has_its_evidence_on_every_grid(name, shape, seed):
    for parameters in (PLAIN[name], OTHER[name]):
        decoder = decoder_of(name, parameters)
        kept = kept_of(decoder, random_fields(name, shape, seed))
        decoded = decoder.decode(kept, mode="fast")
        count = int(decoded.labels.max(initial=0))
        assert decoded.evidence.cells.keys()
        for values in decoded.evidence.cells.values():
            assert values.shape == (count + 1,)
            assert np.isfinite(values).all()
            assert ((values[1:] >= 0) & (values[1:] <= 2)).all()
        for value in decoded.evidence.volume.values():
            assert np.isfinite(value)
            assert value >= 0
        finer = tuple(n + 1 for n in shape)
        after = decoder.to_grid(decoded, kept, finer).evidence
        assert after.volume == decoded.evidence.volume
        assert after.areas.keys() == decoded.evidence.areas.keys()
        for column, values in decoded.evidence.cells.items():
            np.testing.assert_array_equal(after.cells[column], values)


@settings(max_examples=25)
@given(shape=st.tuples(*3 * [st.integers(3, 16)]), seed=st.integers(0, 99))
def test_evidence_of_flows_is_what_the_fields_say_voxel_by_voxel(shape, seed):
    decoder = decoder_of("flows", PLAIN["flows"])
    kept = kept_of(decoder, random_fields("flows", shape, seed))
    decoded = decoder.decode(kept, mode="fast")
    labels, evidence = decoded.labels, decoded.evidence
    byte = kept >> 24
    possible, sure = (byte >= threshold_byte(p) for p in UNSURE)
    error = np.abs(tanh_flow(labels) - unpack_flow(kept)).mean(axis=0)
    for label in range(1, labels.max(initial=0) + 1):
        inside = labels == label
        assert evidence.cells["probability"][label] == pytest.approx(byte[inside].mean() / 255)
        assert evidence.cells["flow_error"][label] == pytest.approx(error[inside].mean(), abs=0.01)
    cells = max(np.count_nonzero(labels), 1)
    assert evidence.volume["unsure"] == pytest.approx((possible & ~sure).sum() / cells)
    assert evidence.volume["missed"] == pytest.approx((possible & (labels == 0)).sum() / cells)


def test_evidence_of_class_maps_counts_classes_that_fit():
    cells = np.zeros((6, 6, 12), np.int32)
    cells[1:5, 1:5, 1:11] = 1
    kept = class_map_of(cells)
    decoded = decoder_of("tascan", PLAIN["tascan"]).decode(kept, mode="fast")
    assert decoded.labels.max() == 1
    assert decoded.evidence.cells["class_match"][1] == 1.0
    assert decoded.evidence.cells["interior_share"][1] == pytest.approx(2 * 2 * 8 / (4 * 4 * 10))
    assert decoded.evidence.volume == {"class_mismatch": 0.0, "missed": 0.0}
