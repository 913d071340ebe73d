"""What a microscope does to a fluorescent structure: optics first, then the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellrt.simulation.microscope.camera import detect, digitise
from cellrt.simulation.microscope.optics import blur, disturb_slices, illumination, interpolate
from cellrt.simulation.microscope.sampling import slice_positions
from cellrt.simulation.parameters.imaging import ImagingParameters


def degrade(
    signal: NDArray[np.float32],
    imaging: ImagingParameters,
    rng: np.random.Generator,
    *,
    z_step: float = 1.0,
    slices: int | None = None,
    normalise: bool = True,
) -> NDArray[np.uint16]:
    """Image a structure as the microscope of `imaging` would.

    Parameters
    ----------
    signal : ndarray of float32, (z, y, x)
        Fluorophore density on an isotropic grid, 0 or more; the structure
        itself is about 1.
    imaging : ImagingParameters
    rng : numpy.random.Generator
    z_step : float
        Distance of two output slices in voxels of `signal`.
    slices : int, optional
        Number of output slices; as many as fit by default.
    normalise : bool
        Scale the blurred light such that the structure (where `signal` is
        above 0.5) has mean 1, so that `photons` means the same for thick and thin structures.

    Returns
    -------
    ndarray of uint16, (slices, y, x)
    """
    structure = signal > 0.5
    light = blur(
        signal,
        (imaging.blur_z_voxels, imaging.blur_xy_voxels),
        (imaging.tail_weight, imaging.tail_scale),
        _depth(signal.shape[0], imaging) * imaging.depth_blur,
    )
    if normalise and structure.any():
        light *= np.float32(1.0 / max(float(light[structure].mean()), 1e-6))
    light = interpolate(light, slice_positions(signal.shape[0], z_step, slices), 0)
    light += np.float32(imaging.background)
    decay = (1 - imaging.depth_decay) ** _depth(light.shape[0], imaging)
    light *= illumination(
        (light.shape[0], light.shape[1], light.shape[2]), decay, imaging.shading, rng
    )
    disturb_slices(light, imaging.flicker, imaging.jitter_voxels, imaging.missing_slices, rng)
    grey = detect(light, imaging, rng)
    return digitise(grey, light, imaging)


def _depth(slices: int, imaging: ImagingParameters) -> NDArray[np.float64]:
    depth = np.linspace(0, 1, slices)
    return depth[::-1] if imaging.depth_reversed else depth
