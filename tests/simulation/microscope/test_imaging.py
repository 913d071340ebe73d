"""Imaging: noise, blur, sampling and digits follow the parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrt.errors import ResourceError, UsageError
from cellrt.simulation import ImagingParameters, degrade
from cellrt.simulation.microscope.optics import blur
from cellrt.simulation.microscope.sampling import sampling_grid, slice_positions

PERFECT = ImagingParameters(
    blur_xy_voxels=0.0,
    blur_z_voxels=0.0,
    tail_weight=0.0,
    depth_decay=0.0,
    depth_blur=0.0,
    shading=0.0,
    background=0.0,
    photons=0.0,
    gain=1000.0,
    read_noise=0.0,
    offset=100.0,
)
FLAT = np.ones((20, 40, 40), np.float32)


def image(signal, seed=0, **changes):
    options = {k: changes.pop(k) for k in ("z_step", "slices", "normalise") if k in changes}
    parameters = replace(PERFECT, **changes)
    return degrade(signal, parameters, np.random.default_rng(seed), **options)


def test_a_perfect_microscope_scales_and_offsets():
    signal = np.zeros((4, 5, 6), np.float32)
    signal[2, 3, 4] = 1.0
    out = image(signal)
    assert out.dtype == np.uint16
    assert np.array_equal(out, (100 + 1000 * signal).astype(np.uint16))


@pytest.mark.parametrize(("photons", "gain"), [(5.0, 20.0), (40.0, 8.0), (500.0, 2.0)])
def test_shot_noise_has_the_variance_of_photons(photons, gain):
    out = image(FLAT, photons=photons, gain=gain).astype(float) - 100
    assert out.mean() == pytest.approx(photons * gain, rel=0.02)
    assert out.var() == pytest.approx(photons * gain**2, rel=0.05)


def test_random_gain_doubles_the_variance():
    out = image(FLAT, photons=20.0, gain=30.0, em_gain=True).astype(float) - 100
    assert out.mean() == pytest.approx(600, rel=0.02)
    assert out.var() == pytest.approx(2 * 20 * 30**2, rel=0.06)


def test_read_noise_is_additive_and_normal():
    out = image(FLAT, read_noise=25.0).astype(float)
    assert out.mean() == pytest.approx(1100, abs=1)
    assert out.std() == pytest.approx(25, rel=0.03)


def test_noise_blur_correlates_neighbours():
    def neighbours(noise_blur):
        out = image(FLAT, read_noise=50.0, noise_blur_voxels=noise_blur).astype(float) - 1100
        return (out[..., 1:] * out[..., :-1]).mean() / out.var()

    assert abs(neighbours(0.0)) < 0.03
    assert neighbours(0.9) > 0.5


def test_fixed_pattern_is_the_same_in_all_slices():
    out = image(FLAT, fixed_pattern=0.1).astype(float) - 100
    assert (out == out[0]).all()
    assert out[0].std() / out[0].mean() == pytest.approx(0.1, rel=0.1)


def test_stripes_run_along_one_axis_and_flicker_along_z():
    out = image(FLAT, stripes=0.1).astype(float)
    assert (out.std(axis=1) < 1e-9).all() != (out.std(axis=2) < 1e-9).all()
    out = image(FLAT, flicker=0.1).astype(float)
    assert (out.std(axis=(1, 2)) < 1e-9).all()
    assert out.std() > 20


def test_point_spreads_to_the_asked_widths():
    point = np.zeros((41, 41, 41), np.float32)
    point[20, 20, 20] = 1.0
    light = blur(point, (3.0, 1.5), (0.0, 1.0), np.zeros(41))
    assert light.sum() == pytest.approx(1.0, abs=1e-3)
    away = np.arange(41) - 20
    for axis, sigma in enumerate((3.0, 1.5, 1.5)):
        profile = light.sum(axis=tuple(k for k in range(3) if k != axis))
        assert np.sqrt((profile * away**2).sum()) == pytest.approx(sigma, rel=0.03)


def test_tail_takes_its_share_of_the_light():
    point = np.zeros((61, 61, 61), np.float32)
    point[30, 30, 30] = 1.0
    light = blur(point, (1.0, 1.0), (0.4, 6.0), np.zeros(61))
    assert light.sum() == pytest.approx(1.0, abs=0.02)
    near = np.linalg.norm(np.indices(point.shape) - 30, axis=0) < 4
    assert light[near].sum() == pytest.approx(0.65, abs=0.06)


def test_blur_grows_with_depth():
    edge = np.zeros((20, 8, 40), np.float32)
    edge[..., 20:] = 1
    light = blur(edge, (0.5, 1.0), (0.0, 1.0), np.linspace(0, 2, 20))
    steepest = np.diff(light[:, 4], axis=1).max(axis=1)
    assert steepest[0] > 1.8 * steepest[-1]
    assert (np.diff(steepest) < 1e-6).all()


@pytest.mark.parametrize("reversed_", [False, True])
def test_signal_decays_with_depth(reversed_):
    out = image(FLAT, depth_decay=0.6, depth_reversed=reversed_).astype(float) - 100
    profile = out.mean(axis=(1, 2))[:: -1 if reversed_ else 1]
    assert profile[0] == pytest.approx(1000, abs=1)
    assert profile[-1] == pytest.approx(400, abs=1)


def test_structure_has_mean_one_after_blur_whatever_its_width():
    thin = np.zeros((20, 20, 20), np.float32)
    thin[:, :, 10] = 1.0
    options = {"blur_xy_voxels": 2.0, "blur_z_voxels": 2.0}
    assert image(thin, **options)[:, :, 10].mean() == pytest.approx(1100, rel=0.01)
    assert image(thin, normalise=False, **options)[:, :, 10].mean() < 500


def test_eight_bits_fill_the_range_and_saturate():
    ramp = np.linspace(0, 2, 40, dtype=np.float32) * FLAT
    out = image(ramp, bits=8, read_noise=5.0)
    assert out.max() <= 255
    assert out.min() >= 0
    assert out.max() > 240
    burnt = image(ramp, bits=8, read_noise=5.0, saturation=0.3)
    assert (burnt == 255).mean() > 0.1


def test_missing_slices_are_dark_or_repeated():
    signal = np.random.default_rng(0).uniform(0.6, 1.4, (60, 8, 8)).astype(np.float32)
    clean = image(signal).astype(int)
    spoilt = image(signal, missing_slices=0.5).astype(int)
    changed = np.flatnonzero((clean != spoilt).any(axis=(1, 2)))
    assert 10 < len(changed) < 50
    for z in changed:
        dark = spoilt[z].mean() < 0.6 * clean[z].mean()
        assert dark or np.array_equal(spoilt[z], spoilt[z - 1])


def test_jitter_shifts_slices():
    signal = np.zeros((12, 30, 30), np.float32)
    signal[:, 10:20, 10:20] = 1
    out = image(signal, jitter_voxels=1.0)
    assert len({plane.tobytes() for plane in out}) > 6


@settings(max_examples=30)
@given(st.integers(1, 12), st.floats(0.3, 6.0))
def test_slices_lie_inside_the_fine_grid(slices, z_step):
    grid = sampling_grid((slices, 3, 4), (z_step, 1.0, 1.0), 5.0)
    positions = slice_positions(grid.fine_shape[0], z_step, slices)
    assert positions.min() >= 0
    assert positions.max() <= grid.fine_shape[0] - 1
    out = image(np.ones(grid.fine_shape, np.float32), z_step=z_step, slices=slices)
    assert out.shape == (slices, 3, 4)


def test_coarse_slices_are_planes_of_the_fine_stack():
    signal = np.repeat(np.linspace(0.6, 1.4, 21, dtype=np.float32), 16).reshape(21, 4, 4)
    fine = image(signal, normalise=False)
    coarse = image(signal, z_step=3.0, slices=7, normalise=False)
    assert np.array_equal(coarse, fine[1::3])


def test_random_draws_stay_in_their_ranges():
    rng = np.random.default_rng(1)
    for kind, fewest in (("nuclei", 4.0), ("membranes", 12.0)):
        drawn = [ImagingParameters.random(rng, kind) for _ in range(200)]
        assert min(d.photons for d in drawn) >= fewest
        assert max(d.blur_z_voxels for d in drawn) <= 3.6
        assert {d.bits for d in drawn} == {8, 16}
        assert len({d.photons for d in drawn}) == 200


@pytest.mark.parametrize(
    ("shape", "voxel_size", "diameter", "error", "words"),
    [
        ((0, 5, 5), (1, 1, 1), 8, UsageError, "three whole numbers"),
        ((5, 5), (1, 1, 1), 8, UsageError, "three whole numbers"),
        ((5, 5, 5), (0, 1, 1), 8, UsageError, "voxel size"),
        ((5, 5, 5), (1, 1, float("nan")), 8, UsageError, "voxel size"),
        ((5, 5, 5), (1, 2, 1), 8, UsageError, "both have to be the same"),
        ((5, 5, 5), (1, 1, 1), 1.0, UsageError, "diameter"),
        ((5000, 5000, 5000), (1, 1, 1), 8, ResourceError, "smaller shape"),
    ],
)
def test_senseless_sizes_are_refused(shape, voxel_size, diameter, error, words):
    with pytest.raises(error, match=words):
        sampling_grid(shape, voxel_size, diameter)
