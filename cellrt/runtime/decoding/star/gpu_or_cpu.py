"""Where shapes are drawn: on an NVIDIA GPU that gives the CPU's voxels, or on the CPU."""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoding.base import Place
from cellrt.runtime.decoding.star import rasterise
from cellrt.runtime.decoding.star.candidates import Kind
from cellrt.runtime.decoding.star.directions import directions
from cellrt.runtime.decoding.try_gpu import try_gpu

# The module for GPUs has the same functions.
HOST: ModuleType = rasterise


@functools.cache
def find_gpu(kind: Kind) -> tuple[ModuleType | None, Place]:
    """Look for a GPU that draws shapes of a kind as the CPU does; once per process.

    The first time on a machine compiles the kernels.

    Returns
    -------
    draw : module or None
        :mod:`~cellrt.runtime.decoding.star.rasterise_cuda`.
    place : Place
        The GPU, or the CPU with the reason why not the GPU.
    """
    return try_gpu(_cuda, HOST, functools.partial(draw_sample, kind), "draws small shapes")


def _cuda() -> ModuleType:
    from cellrt.runtime.decoding.star import rasterise_cuda

    return rasterise_cuda


def draw_sample(kind: Kind, draw: ModuleType) -> list[NDArray[Any]]:
    """Draw two shapes that overlap in each way there is, which compiles and tries the kernels.

    Parameters
    ----------
    kind : {"harmonics", "rays"}
    draw : module
        `HOST`, or that for GPUs.
    """
    shape, spacing = (9, 8, 16), (1.0, 1.2, 0.9)
    centres = np.array([[4.0, 4.2, 4.6], [3.9, 5.0, 9.0]])
    rows = 1 + 0.1 * np.sin(np.arange(2 * 36)).reshape(2, 36)
    if kind == "rays":
        given, rasterised = (4.2 * rows, directions(36)), draw.rasterise_rays
    else:
        coefficients = rows - 1
        coefficients[:, 0] = 4.0 * math.sqrt(4 * math.pi)
        given, rasterised = (coefficients, np.array([4.6, 4.6])), draw.rasterise_harmonics
    found = [
        rasterised(shape, spacing, centres, *given, limit=limit, first=first)
        for limit, first in ((1.0, True), (1.3, False))
    ]
    if kind == "rays":
        return found
    masks = draw.harmonic_masks(shape, centres, *given)
    return [*found, masks.voxels, masks.volumes]
