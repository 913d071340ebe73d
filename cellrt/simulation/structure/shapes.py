"""Random star-convex shapes from spherical harmonics, and their rasterisation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.runtime.decoding.star.harmonics import real_spherical_harmonics

POLAR_NODES = 25
AZIMUTH_NODES = 48


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a rotation matrix uniformly (Gram-Schmidt on normal vectors)."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return np.asarray(q)


def direction_grid() -> NDArray[np.float64]:
    """Unit vectors (polar nodes, azimuth nodes, 3) in (z, y, x), polar axis z."""
    theta = np.linspace(0, np.pi, POLAR_NODES)[:, None]
    phi = np.linspace(0, 2 * np.pi, AZIMUTH_NODES, endpoint=False)[None, :]
    return np.stack(
        [
            np.cos(theta) * np.ones_like(phi),
            np.sin(theta) * np.sin(phi),
            np.sin(theta) * np.cos(phi),
        ],
        axis=-1,
    )


def random_radius_tables(
    diameters: NDArray[np.float64],
    axis_ratios: NDArray[np.float64],
    roughness: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    order: int = 5,
    normals: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Radii of random shapes over the direction grid.

    A shape is an ellipsoid in a random orientation times
    1 + sum of c_lm Y_lm with normal coefficients that fall with l: degree 1
    and 2 bend it into beans, the rest makes it bumpy. Starting from the
    ellipsoid keeps strongly elongated nuclei convex, where harmonics alone
    would turn them into peanuts.

    Parameters
    ----------
    diameters : ndarray, (n,)
        Diameter of the sphere of the same volume, in voxels.
    axis_ratios : ndarray, (n, 3)
        Relative lengths of the half axes; only their ratios count.
    roughness : ndarray, (n,)
        Relative standard deviation of the radius that the harmonics add.
    rng : numpy.random.Generator
    order : int
        Largest degree of the harmonics.
    normals : ndarray, (n, 3), optional
        Direction of each shape's third axis; NaN for a random orientation, the default.

    Returns
    -------
    ndarray of float32, (n, polar nodes, azimuth nodes)
    """
    directions = direction_grid()
    harmonics = real_spherical_harmonics(directions, order)
    degree = np.repeat(np.arange(order + 1), 2 * np.arange(order + 1) + 1)
    spread = np.where(degree > 0, 1.0 / np.maximum(degree, 1) ** 1.5, 0.0)
    # A field with coefficients c has variance sum(c²) / 4 pi over the sphere.
    spread *= math.sqrt(4 * math.pi / (spread**2).sum())
    solid_angle = np.sin(np.linspace(0, np.pi, POLAR_NODES))[:, None] * (
        (np.pi / (POLAR_NODES - 1)) * (2 * np.pi / AZIMUTH_NODES)
    )
    tables = np.empty((len(diameters), POLAR_NODES, AZIMUTH_NODES), dtype=np.float32)
    for i, diameter in enumerate(diameters):
        rotation = random_rotation(rng)
        if normals is not None and np.isfinite(normals[i]).all():
            rotation = _turn_third_axis(rotation, normals[i])
        local = directions @ rotation
        radius = 1.0 / np.sqrt(((local / axis_ratios[i]) ** 2).sum(axis=-1))
        coefficients = rng.standard_normal(len(spread)) * spread * roughness[i]
        radius = radius * np.clip(1.0 + harmonics @ coefficients, 0.4, 1.8)
        volume = (radius**3 / 3 * solid_angle).sum()
        tables[i] = radius * (diameter / (6 * volume / np.pi) ** (1 / 3))
    return tables


def _turn_third_axis(
    rotation: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The rotation with its third column along `normal`, the others made orthogonal to it."""
    third = normal / np.linalg.norm(normal)
    first = rotation[:, 0] - (rotation[:, 0] @ third) * third
    first /= max(float(np.linalg.norm(first)), 1e-9)
    return np.stack([first, np.cross(third, first), third], axis=1)


@compiled
def rasterise(
    shape: tuple[int, int, int],
    centres: NDArray[np.float64],
    tables: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Rasterise star-convex shapes; where two overlap, the relatively nearer centre wins.

    Parameters
    ----------
    shape : tuple of int
        Volume (z, y, x) in voxels.
    centres : ndarray of float64, (n, 3)
        Centres (z, y, x) in voxels; they may lie outside the volume.
    tables : ndarray of float32, (n, polar nodes, azimuth nodes)
        Radii in voxels.

    Returns
    -------
    owner : ndarray of int32
        1 + index of the shape that is nearest to the voxel (within 2 voxels
        outside its surface), 0 elsewhere.
    depth : ndarray of float32
        Distance to the owner's surface along the ray from its centre, in
        voxels, positive inside.
    rival : ndarray of float32
        The largest depth among the other shapes at this voxel, -100 if there is none.
    """
    owner = np.zeros(shape, np.int32)
    relative = np.full(shape, 1e9, np.float32)
    depth = np.full(shape, -100.0, np.float32)
    rival = np.full(shape, -100.0, np.float32)
    polar = tables.shape[1]
    azimuth = tables.shape[2]
    for i in range(centres.shape[0]):
        cz, cy, cx = centres[i, 0], centres[i, 1], centres[i, 2]
        table = tables[i]
        reach = table.max() + 2.0
        z0, z1 = max(0, int(cz - reach)), min(shape[0], int(cz + reach) + 2)
        y0, y1 = max(0, int(cy - reach)), min(shape[1], int(cy + reach) + 2)
        x0, x1 = max(0, int(cx - reach)), min(shape[2], int(cx + reach) + 2)
        for z in range(z0, z1):
            dz = z - cz
            for y in range(y0, y1):
                dy = y - cy
                for x in range(x0, x1):
                    dx = x - cx
                    distance = math.sqrt(dz * dz + dy * dy + dx * dx)
                    if distance > reach:
                        continue
                    cosine = dz / distance if distance > 0 else 1.0
                    t = math.acos(min(1.0, max(-1.0, cosine))) * ((polar - 1) / math.pi)
                    p = math.atan2(dy, dx) * (azimuth / (2 * math.pi))
                    if p < 0:
                        p += azimuth
                    ti = min(int(t), polar - 2)
                    tf = t - ti
                    pi = int(p)
                    pf = p - pi
                    pi = pi % azimuth
                    pj = (pi + 1) % azimuth
                    radius = (1 - tf) * ((1 - pf) * table[ti, pi] + pf * table[ti, pj]) + tf * (
                        (1 - pf) * table[ti + 1, pi] + pf * table[ti + 1, pj]
                    )
                    here = radius - distance
                    if here < -2.0:
                        continue
                    ratio = distance / radius
                    if ratio < relative[z, y, x]:
                        if owner[z, y, x] > 0 and depth[z, y, x] > rival[z, y, x]:
                            rival[z, y, x] = depth[z, y, x]
                        relative[z, y, x] = ratio
                        depth[z, y, x] = here
                        owner[z, y, x] = i + 1
                    elif here > rival[z, y, x]:
                        rival[z, y, x] = here
    return owner, depth, rival
