"""The flow of one cell inside its bounding box."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellrt.compiled import compiled


@compiled
def _centroid(inside: Any) -> Any:
    centre = np.zeros(3)
    volume = 0
    for z in range(inside.shape[0]):
        for y in range(inside.shape[1]):
            for x in range(inside.shape[2]):
                if inside[z, y, x]:
                    centre[0] += z
                    centre[1] += y
                    centre[2] += x
                    volume += 1
    return centre / volume


@compiled
def centroid_box(inside: Any, scale: float) -> Any:
    """Centroid flow (3, z, y, x) of one cell, given as a mask of its bounding box."""
    centre = _centroid(inside)
    flow = np.zeros((3, *inside.shape), np.float32)
    for z in range(inside.shape[0]):
        for y in range(inside.shape[1]):
            for x in range(inside.shape[2]):
                if inside[z, y, x]:
                    flow[0, z, y, x] = np.tanh((centre[0] - z) / scale)
                    flow[1, z, y, x] = np.tanh((centre[1] - y) / scale)
                    flow[2, z, y, x] = np.tanh((centre[2] - x) / scale)
    return flow


@compiled
def heat_box(inside: Any) -> Any:
    """Heat flow (3, z, y, x) of one cell, given as a mask of its bounding box."""
    nz, ny, nx = inside.shape
    source, runs = _medoid_and_runs(inside)
    # One voxel of cold surroundings on each side, so that the loop needs no bounds.
    row = nx + 2
    plane = (ny + 2) * row
    heat = np.zeros((nz + 2) * plane)
    after = np.zeros((nz + 2) * plane)
    share = 1.0 / 7.0
    for _ in range(nz + ny + nx):
        heat[source] += 1.0
        for k in range(runs.shape[0]):
            for i in range(runs[k, 0], runs[k, 1]):
                after[i] = share * (
                    heat[i]
                    + heat[i - plane]
                    + heat[i + plane]
                    + heat[i - row]
                    + heat[i + row]
                    + heat[i - 1]
                    + heat[i + 1]
                )
        heat, after = after, heat
    flow = np.zeros((3, nz, ny, nx), np.float32)
    for k in range(runs.shape[0]):
        for i in range(runs[k, 0], runs[k, 1]):
            gz = heat[i + plane] - heat[i - plane]
            gy = heat[i + row] - heat[i - row]
            gx = heat[i + 1] - heat[i - 1]
            length = np.sqrt(gz * gz + gy * gy + gx * gx)
            if length > 0.0:
                z, y, x = i // plane - 1, i % plane // row - 1, i % row - 1
                flow[0, z, y, x] = gz / length
                flow[1, z, y, x] = gy / length
                flow[2, z, y, x] = gx / length
    return flow


@compiled
def _medoid_and_runs(inside: Any) -> Any:
    """Voxel nearest to the centroid, and the mask's runs along x, in the box padded by one.

    Returns
    -------
    (int, (n, 2) int64 array)
        Flat index of the voxel; first and past-the-last flat index of each run.
    """
    nz, ny, nx = inside.shape
    centre = _centroid(inside)
    nearest = np.inf
    source = 0
    runs = np.empty((nz * ny * (nx // 2 + 1), 2), np.int64)
    count = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if not inside[z, y, x]:
                    continue
                here = ((z + 1) * (ny + 2) + y + 1) * (nx + 2) + x + 1
                if x == 0 or not inside[z, y, x - 1]:
                    runs[count, 0] = here
                    count += 1
                runs[count - 1, 1] = here + 1
                away = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
                if away < nearest:
                    nearest = away
                    source = here
    return source, runs[:count].copy()
