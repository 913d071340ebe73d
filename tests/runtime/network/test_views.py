"""Views of a stack: planes along all three axes, put together to the fields of a 3D network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.flows.cells import FlowParameters
from cellrt.runtime.decoding.flows.decoder import FlowDecoder
from cellrt.runtime.decoding.flows.packed_field import unpack_flow
from cellrt.runtime.decoding.flows.targets import tanh_flow
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.grid.mended_image import as_it_is
from cellrt.runtime.grid.model_image import ModelImage
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.network.tiles import plan_tiles
from cellrt.runtime.network.views import VOXELS_AT_ONCE, ViewsSession, view_weights

DECODER = FlowDecoder(FlowParameters(radius_range=(2.0, 100.0)), "a test")


class Oracle:
    """A planar network that is told the labels: in each plane it says what their flow is there."""

    device, precision = "a test", "fp32"

    def infer(self, image):
        planes = np.rint(image[0, 0] * 1000).astype(np.int32)
        fields = np.zeros((1, 4, *planes.shape), np.float32)
        for index, plane in enumerate(planes):
            fields[0, :3, index] = tanh_flow(plane[None])[:, 0]
        fields[0, 3] = planes > 0
        return fields


def balls(shape=(48, 64, 80), step=16, radius=7):
    labels = np.zeros(shape, np.int32)
    z, y, x = np.indices(shape)
    centres = np.stack(
        np.meshgrid(*(np.arange(step // 2, n, step) for n in shape), indexing="ij"), -1
    ).reshape(-1, 3)
    for number, (cz, cy, cx) in enumerate(centres, 1):
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


def as_image(labels, enlarged=1):
    """The labels as an image on the model's grid, of which z was enlarged."""
    ready = (labels / 1000).astype(np.float32)
    source = np.zeros((labels.shape[0] // enlarged, *labels.shape[1:]), np.float32)
    return ModelImage(as_it_is(source), IntensityRange(0.0, 1.0), ready)


@pytest.mark.parametrize("tile", [(48, 64, 80), (32, 48, 48), (48, 32, 64)])
def test_views_of_planes_make_the_fields_of_the_stack(tile):
    labels = balls()
    grid = plan_tiles(labels.shape, halo=4, blend=4, multiple=16, tile=tile)
    shapes = []

    def load(shape):
        shapes.append(shape)
        return Oracle()

    kept, _ = network_fields(as_image(labels), grid, ViewsSession(load, tile), DECODER)
    assert len(set(shapes)) == len(shapes) <= 3
    found = DECODER.decode(kept, mode="fast").labels
    assert evaluate(found, labels).at(0.9).average_precision == 1
    if len(grid) == 1:  # flows of cells that tiles cut are other ones within the tile
        truth = tanh_flow(labels)
        error = np.abs(unpack_flow(kept) - truth)[:, labels > 0]
        assert error.max() < 0.02


def test_the_network_is_never_given_many_planes_at_once():
    shapes = []

    def load(shape):
        shapes.append(shape)
        return Oracle()

    ViewsSession(load, (48, 512, 512))
    assert [shape[1:] for shape in shapes] == [(512, 512), (48, 512)]
    assert all(np.prod(shape) <= VOXELS_AT_ONCE for shape in shapes)
    # However large a plane is, there is one of it.
    ViewsSession(load, (16, 1024, 1024))
    assert shapes[2] == (1, 1024, 1024)


def test_views_through_interpolated_slices_count_less():
    assert view_weights((1, 1, 1)) == (1, 1, 1)
    assert view_weights((6, 1, 1)) == pytest.approx((1, 1 / 6, 1 / 6))
    # Where all axes are enlarged alike, no view is worse than another.
    assert view_weights((1.5, 1.5, 1.5)) == pytest.approx((1, 1, 1))
    assert view_weights((3, 1.5, 1.5)) == pytest.approx((1, 0.5, 0.5))
    # What was averaged is as sharp as it can be.
    assert view_weights((0.5, 0.25, 0.25)) == (1, 1, 1)
    assert view_weights((1, 1, 4)) == pytest.approx((0.25, 0.25, 1))


def test_each_field_is_the_weighted_mean_of_the_views_that_show_it():
    said = {(2, 3): 0.2, (1, 3): 0.4, (1, 2): 0.9}  # by the edges of the planes, in 16 voxels

    def load(shape):
        value = said[shape[1] // 16, shape[2] // 16]
        fields = np.full((1, 4, *shape), value, np.float32)
        fields[:, 2] *= -1
        return SimpleNamespace(device="", precision="", infer=lambda image: fields)

    session = ViewsSession(load, (16, 32, 48))
    fields = session.infer(np.zeros((1, 1, 16, 32, 48), np.float32), (1.0, 0.5, 0.25))[0]
    flow_z, flow_y, flow_x, foreground = fields.reshape(4, -1).T[0]
    assert (fields == fields[:, :1, :1, :1]).all()
    assert flow_z == pytest.approx((0.5 * 0.4 + 0.25 * 0.9) / 0.75)
    # Down the planes across z, and along those across x.
    assert flow_y == pytest.approx((1 * 0.2 - 0.25 * 0.9) / 1.25)
    assert flow_x == pytest.approx((-1 * 0.2 - 0.5 * 0.4) / 1.5)
    assert foreground == pytest.approx((0.2 + 0.5 * 0.4 + 0.25 * 0.9) / 1.75)


class Striped(Oracle):
    """Between slices that were recorded it sees nothing in planes through them."""

    def __init__(self, shape, depth, enlarged):
        self.dark = slice(enlarged // 2, None, enlarged) if shape[1] == depth else slice(0)

    def infer(self, image):
        fields = super().infer(image)
        fields[:, 3, :, self.dark] = 0
        return fields


@pytest.mark.parametrize("enlarged", [2, 4, 6])
def test_stripes_in_views_through_interpolated_slices_leave_no_gaps(enlarged, monkeypatch):
    labels = balls()
    image = as_image(labels, enlarged)
    grid = plan_tiles(image.shape, halo=4, blend=4, multiple=16, tile=image.shape)
    session = ViewsSession(lambda shape: Striped(shape, len(labels), enlarged), image.shape)

    def cells():
        kept, _ = network_fields(image, grid, session, DECODER)
        return DECODER.decode(kept, mode="fast").labels

    assert evaluate(cells(), labels).at(0.9).average_precision == 1
    # As if all views were as sharp, cells have gaps.
    monkeypatch.setattr("cellrt.runtime.network.run.view_weights", lambda enlarged: (1, 1, 1))
    assert evaluate(cells(), labels).at(0.9).average_precision < 0.1
