"""Cells of single slices: the flow decoder on planes, and joining them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding import slices
from cellrt.runtime.decoding.base import Evidence
from cellrt.runtime.decoding.flows.cells import FlowParameters, decode_flows
from cellrt.runtime.decoding.flows.decoder import FlowDecoder
from cellrt.runtime.decoding.flows.packed_field import pack_field
from cellrt.runtime.decoding.flows.targets import tanh_flow
from cellrt.runtime.decoding.slices import decode_slices

DECODER = FlowDecoder(FlowParameters(radius_range=(2.0, 100.0)), "a test")


def crowded(shape=(60, 80), edge=10):
    """Cells side by side, some of them cut off."""
    y, x = np.indices(shape) // edge
    labels = (1 + x + (y % 3) * 100 + 7 * y).astype(np.int32)
    labels[(y + x) % 4 == 0] = 0
    return labels[None]


def fields(planes):
    """Flow and foreground of every plane by itself; nothing along z."""
    flow = np.concatenate([tanh_flow(plane[None]) for plane in planes], axis=1)
    return pack_field(flow, (planes > 0).astype(np.float32))


def test_one_plane_without_flow_along_z_gives_its_cells():
    labels = crowded()
    flow = tanh_flow(labels)
    assert (flow[0] == 0).all()
    for mode in ("fast", "exact"):
        found = decode_flows(flow, labels > 0, DECODER.parameters, mode=mode)
        assert evaluate(found, labels).at(0.9).average_precision == 1


def test_slices_do_not_see_each_other_and_share_no_label():
    first = crowded()[0]
    planes = np.stack([first, first.T[:60, :60].repeat(2, 1)[:, :80], np.zeros_like(first), first])
    found = decode_slices(DECODER, fields(planes), planes.shape, mode="fast")
    before = 0
    for plane, labels in zip(planes, found.labels, strict=True):
        alone = DECODER.decode(fields(plane[None]), mode="fast").labels[0]
        assert (labels == np.where(alone > 0, alone + before, 0)).all()
        before += alone.max()
    assert len(found.evidence.cells["probability"]) == before + 1


def test_slices_on_another_grid_are_upsampled_one_by_one():
    planes = np.repeat(crowded(), 2, 0)
    found = decode_slices(DECODER, fields(planes), (2, 120, 160), mode="fast").labels
    truth = planes.repeat(2, 1).repeat(2, 2)
    for z in range(2):
        assert evaluate(found[z], truth[z]).at(0.8).average_precision == 1
    assert not set(np.unique(found[0])) & set(np.unique(found[1])) - {0}


def disc(centre, radius=6, shape=(40, 60)):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def stack_of(*planes):
    labels = np.zeros((len(planes), 40, 60), np.int32)
    for z, cells in enumerate(planes):
        for number, (centre, radius) in enumerate(cells, 1):
            labels[z][disc(centre, radius)] = number
    return labels


@pytest.mark.parametrize("least", [0.25, 0.5])
def test_cells_that_overlap_are_one_and_others_are_not(least):
    a, b = (15, 15), (15, 45)
    planes = stack_of([(a, 6), (b, 6)], [((15, 17), 6)], [((15, 19), 6), (b, 6)])
    found = decode_slices(DECODER, fields(planes), planes.shape, mode="fast", stitch=least).labels
    assert found[0, 15, 15] == found[1, 15, 17] == found[2, 15, 19] == 1
    # What was missing in one slice is a new cell in the next.
    assert [found[0, 15, 45], found[1, 15, 45], found[2, 15, 45]] == [2, 0, 3]
    assert found.max() == 3


def test_of_two_parts_only_the_better_one_is_joined_and_a_small_overlap_joins_nothing():
    planes = stack_of([((20, 30), 9)], [((20, 27), 7), ((20, 38), 3)], [((5, 52), 4)])
    found = decode_slices(DECODER, fields(planes), planes.shape, mode="fast", stitch=0.25)
    assert found.labels[0, 20, 30] == found.labels[1, 20, 26] == 1
    assert found.labels[1, 20, 38] == 2
    assert found.labels[2, 5, 52] == 3
    # Of a joined cell the evidence is the mean of its parts.
    assert found.evidence.cells["probability"].shape == (4,)
    assert found.evidence.cells["probability"][1:] == pytest.approx(1, abs=0.01)


def test_many_cells_take_no_time_that_grows_with_their_square():
    edge = 6
    side = 100
    plane = (1 + np.arange(side * side, dtype=np.int32)).reshape(side, side)
    plane = plane.repeat(edge, 0).repeat(edge, 1)
    plane[::edge] = 0
    plane[:, ::edge] = 0
    planes = np.stack([plane, plane])
    found = decode_slices(DECODER, fields(planes), planes.shape, mode="fast", stitch=0.3).labels
    assert found.max() == side * side
    assert (found[0] == found[1]).all()


def test_what_is_to_be_known_of_several_slices_is_said_once():
    class Doubtful(FlowDecoder):
        def decode(self, kept, *, mode):
            decoded = super().decode(kept, mode=mode)
            return replace(decoded, warnings=("of all", f"of {decoded.labels.max()} cells"))

    planes = np.repeat(crowded(), 3, 0)
    planes[2] = 0
    decoder = Doubtful(DECODER.parameters, "a test")
    found = decode_slices(decoder, fields(planes), planes.shape, mode="fast")
    count = len(np.unique(planes[0])) - 1
    assert found.warnings == ("of all", f"of {count} cells", "of 0 cells")


def test_what_is_known_of_slices_counts_by_what_their_cells_hold():
    """A slice with hardly a cell, in which twice as much was missed, is not half of the stack."""
    parts = [Evidence({}, {"missed": value}) for value in (0.1, 2.0, 5.0)]
    sizes, lasts = np.array([7, 500, 400, 99]), [0, 2, 3, 3]
    joined = slices._joined(parts, np.arange(4, dtype=np.int32), sizes, lasts)
    assert joined.volume["missed"] == pytest.approx((0.1 * 900 + 2.0 * 99 + 5.0) / 1000)
