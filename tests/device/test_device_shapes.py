"""Shapes at real size are drawn on a device as on the CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import config

if config.ENABLE_CUDASIM:
    pytest.skip("minutes in the simulator", allow_module_level=True)

from cellrt.runtime.decoding.base import Outputs
from cellrt.runtime.decoding.star.candidates import LEVELS, Proposals, StarFields
from cellrt.runtime.decoding.star.decoder import StarDecoder
from cellrt.runtime.decoding.star.harmonics import coefficient_names
from cellrt.runtime.decoding.star.parameters import StarParameters

EDGE, APART = 192, 24


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("kind", ["harmonics", "rays"])
def test_some_hundred_shapes_have_the_cpus_labels_on_both_grids(kind, fit):
    rng = np.random.default_rng(0)
    grid = np.indices((EDGE // APART,) * 3).reshape(3, -1).T * APART + APART // 2
    places = grid + rng.integers(-3, 4, grid.shape)
    radii = rng.uniform(0.45, 0.65, len(places)) * APART
    if kind == "harmonics":
        channels = ("distance", *coefficient_names(5))
        values = rng.normal(0, 0.5, (len(places), 36))
        values[:, 0] = radii * math.sqrt(4 * math.pi)
        places_of, score = places + rng.uniform(-0.5, 0.5, places.shape), 1.0
    else:
        channels = ("probability", *(f"radius_{i:03d}" for i in range(96)))
        values = radii[:, None] * rng.uniform(0.85, 1.15, (len(places), 96))
        places_of, score = places.astype(float), 0.9
    scores = score - 0.3 * rng.random(len(places))
    proposals = Proposals(places, places_of, scores.astype(np.float32), values.astype(np.float32))
    kept = StarFields((EDGE,) * 3, np.full((EDGE,) * 3, LEVELS, np.uint8), proposals, 0.5)
    parameters, outputs = StarParameters(fit=fit, max_overlap=0.5), Outputs(channels)
    finer = (EDGE // 2, EDGE + 40, EDGE + 31)
    here = StarDecoder(parameters, outputs, "to compare")
    expected = here.decode(kept, mode="fast")
    expected_finer = here.to_grid(expected, kept, finer)
    there = StarDecoder(parameters, outputs)
    for _ in range(2):
        found = there.decode(kept, mode="fast")
        assert found.place.device != "CPU", found.place.reason
        np.testing.assert_array_equal(found.labels, expected.labels)
        again = there.to_grid(found, kept, finer)
        assert again.place == found.place
        np.testing.assert_array_equal(again.labels, expected_finer.labels)
    assert expected.labels.max() > 300
