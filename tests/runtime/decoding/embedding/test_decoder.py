"""Embeddings to cells: what is one cell, and what becomes of the rest."""

from __future__ import annotations

import numpy as np
import pytest

from cellrt.errors import InputError, UsageError
from cellrt.runtime.decoding.base import Block, Outputs, decode_fields
from cellrt.runtime.decoding.embedding.decoder import (
    EMBEDDING,
    EmbeddingParameters,
    embedding_outputs,
    wave_outputs,
)
from cellrt.runtime.decoding.embedding.objects import objects_of
from cellrt.runtime.decoding.parameters import with_values
from cellrt.runtime.model.card_parts import Guides


def fields_of(labels, seed=0, dimensions=4, noise=0.02):
    """What a good network says of labels (z, y, x): a random place for each, and the foreground."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-1, 1, (int(labels.max()) + 1, dimensions))
    fields = np.moveaxis(places[labels], -1, 0) + noise * rng.standard_normal(
        (dimensions, *labels.shape)
    )
    return np.concatenate([fields, (labels > 0)[None]]).astype(np.float32)


def decoder(**parameters):
    return EMBEDDING.make(EmbeddingParameters(**parameters), Outputs(embedding_outputs(4)), "")


def rods():
    labels = np.zeros((1, 40, 60), np.int32)
    for index, y in enumerate(range(2, 36, 4)):
        labels[0, y : y + 4, 3:57] = index + 1  # they touch along their whole length
    return labels


def test_touching_rods_come_out_as_they_are():
    np.testing.assert_array_equal(decode_fields(fields_of(rods()), decoder()), rods())


def test_background_is_what_the_foreground_says():
    labels = rods()
    fields = fields_of(labels)
    fields[:-1] = 0.3  # one place for all, in the background, too
    assert set(np.unique(decode_fields(fields, decoder()))) == {0, 1}
    np.testing.assert_array_equal(decode_fields(fields, decoder()) > 0, labels > 0)
    fields[-1] = 0
    assert not decode_fields(fields, decoder()).any()


def test_every_plane_is_an_image_of_its_own():
    labels = np.concatenate([rods(), rods()])
    found = decode_fields(fields_of(labels), decoder())
    np.testing.assert_array_equal(found[0], rods()[0])
    np.testing.assert_array_equal(found[1], rods()[0] + (rods()[0] > 0) * 9)


def test_parts_of_a_cell_that_another_crosses_are_one():
    labels = np.zeros((1, 40, 40), np.int32)
    labels[0, 18:22, 2:38] = 1
    labels[0, 2:38, 18:23] = 2  # parts it
    fields = fields_of(labels)
    np.testing.assert_array_equal(
        np.unique(decode_fields(fields, decoder(join_distance=6.0))[labels == 1]).size, 1
    )
    assert decode_fields(fields, decoder(join_distance=5.0)).max() == 3


def test_cells_of_one_place_that_lie_apart_are_two():
    labels = np.zeros((1, 40, 60), np.int32)
    labels[0, 10:20, 5:15] = labels[0, 10:20, 40:50] = 1
    found = decode_fields(fields_of(labels), decoder())
    assert found.max() == 2
    assert found[0, 15, 10] != found[0, 15, 45]


def test_specks_go_to_the_nearest_cell_or_vanish():
    labels = np.zeros((1, 30, 60), np.int32)
    labels[0, 5:25, 5:25] = 1
    labels[0, 14, 14] = 2  # in the midst of it
    labels[0, 14, 50] = 3  # far from everything
    found = decode_fields(fields_of(labels), decoder())
    np.testing.assert_array_equal(found, (labels == 1) | (labels == 2))


def test_parts_join_over_others_and_all_parts_have_numbers():
    clusters = np.array([[1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 2]], np.int32)
    assert objects_of(clusters, 3.0).tolist() == [[1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 2, 3]]
    assert objects_of(clusters, 0.0).max() == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bandwidth", 0.0),
        ("bandwidth", float("nan")),
        ("foreground_threshold", 1.5),
        ("join_distance", 65.0),
        ("min_radius", -1.0),
        ("reach", 64.0),
    ],
)
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} is .*; expected"):
        with_values(EmbeddingParameters(), {name: value}, "embedding")


def test_agreement_falls_with_noise_and_with_missed_cells():
    found = []
    for noise in (0.0, 0.05, 0.15):
        one = decoder()
        fields = fields_of(rods(), noise=noise)
        collector = one.collector((1, 40, 60))
        collector.add(Block(slice(0, 1), slice(0, 40), fields))
        kept = collector.kept()
        found.append(one.agreement(one.decode(kept, mode="fast"), kept))
    assert found[0] == pytest.approx(1, abs=1e-3)
    assert found[0] > found[1] > found[2] > 0


GUIDES = Guides(((0.011, -0.02), (0.0, 0.017), (0.019, 0.004)), (0.3, 2.0, 5.5), 0.5, 0.6, 0.3, 0.0)


def waves_of(labels):
    """What a perfect network says of labels (z, y, x): mean waves, as they look from each pixel."""
    fields = np.zeros((7, *labels.shape))
    fields[-1] = labels > 0
    rows, columns = np.indices(labels.shape[1:])
    for k, (fy, fx) in enumerate(GUIDES.frequencies):
        wave = np.exp(2j * np.pi * (fy * rows + fx * columns))
        for z, plane in enumerate(labels):
            for cell in np.unique(plane[plane > 0]):
                seen = wave[plane == cell].mean() / wave[plane == cell]
                fields[k, z][plane == cell] = seen.real
                fields[3 + k, z][plane == cell] = seen.imag
    return fields.astype(np.float32)


def wave_decoder(**parameters):
    outputs = Outputs(wave_outputs(3), guides=GUIDES)
    return EMBEDDING.make(EmbeddingParameters(**parameters), outputs, "")


def test_waves_are_turned_to_the_mean_over_each_cell_in_any_order_of_blocks():
    labels, one = rods(), wave_decoder()
    fields = waves_of(labels)
    collector = one.collector(labels.shape)
    for rows in (slice(25, 40), slice(0, 10), slice(10, 25)):
        collector.add(Block(slice(0, 1), rows, fields[:, :, rows]))
    kept = collector.kept()
    y, x = np.nonzero(labels[0] == 4)
    for k, ((fy, fx), phase) in enumerate(zip(GUIDES.frequencies, GUIDES.phases, strict=True)):
        mean = np.exp(1j * (2 * np.pi * (fy * y + fx * x) + phase)).mean()
        np.testing.assert_allclose(kept[0, y, x, k] / 8192, mean.real, atol=2e-4)
        np.testing.assert_allclose(kept[0, y, x, 3 + k] / 8192, mean.imag, atol=2e-4)
    np.testing.assert_array_equal(kept[..., -1], 8192 * (labels > 0))


def test_cells_come_out_of_waves_wherever_they_lie():
    first, second = rods(), np.roll(rods(), 1, axis=1)
    found = decode_fields(waves_of(np.concatenate([first, second])), wave_decoder(bandwidth=0.1))
    np.testing.assert_array_equal(found, np.concatenate([first, second + 9 * (second > 0)]))


def test_values_beyond_what_is_kept_are_cut():
    fields = np.full((7, 1, 2, 3), 9.0, np.float32)
    fields[3:6] = 0
    collector = wave_decoder().collector((1, 2, 3))
    collector.add(Block(slice(0, 1), slice(0, 2), fields))
    kept = collector.kept()
    assert kept[..., -1].min() == 32767
    length = np.hypot(*kept[..., :6].reshape(-1, 2, 3).astype(float).swapaxes(0, 1))
    assert length.min() > 20_000  # a wrap round would turn the sign of a large value


def test_waves_without_guides_are_refused():
    with pytest.raises(InputError, match="the model card has no guides"):
        EMBEDDING.make(EmbeddingParameters(), Outputs(wave_outputs(3)), "")
