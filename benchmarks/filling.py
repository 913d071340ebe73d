"""Shapes filled up to their radius, and as Delaunay simplices: how well, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import DATA
from scipy.spatial import Delaunay

import cellrt
from cellrt.geometry import LabelArray
from cellrt.runtime.decoding.star.delaunay import rasterise_delaunay
from cellrt.runtime.decoding.star.directions import FEWER, directions
from cellrt.runtime.decoding.star.harmonics import radii_along
from cellrt.runtime.decoding.star.shapes import Shapes, consecutive_labels, decode, encode
from cellrt.runtime.image.reading import read_array

CUBES = (1.0, 1.0, 1.0)
# Of the shapes that are drawn by themselves.
EDGE, CENTRE = 64, (31.3, 32.1, 31.7)


def filled() -> list[dict[str, Any]]:
    """Mean Dice of each kind of shapes after encoding at order 5, and CPU seconds per cell."""
    small = encode(np.ones((4, 4, 4), np.int32))
    decode(small), by_delaunay(small)  # compiles, imports
    rows = []
    for name, labels in shapes():
        _, truth = consecutive_labels(labels)
        found = encode(truth)
        by_radius, seconds = _timed(lambda found=found: decode(found))
        by_hull, hull_seconds = _timed(lambda found=found: by_delaunay(found))
        rows.append(
            {
                "shapes": name,
                "cells": len(found),
                "dice": cellrt.evaluate(by_radius, truth).mean_dice,
                "delaunay_dice": cellrt.evaluate(by_hull, truth).mean_dice,
                "seconds": seconds / len(found),
                "delaunay_seconds": hull_seconds / len(found),
                "published_seconds": _timed(lambda found=found: over_the_volume(found))[1],
            }
        )
        print(rows[-1], flush=True)
    return rows


def shapes() -> Iterator[tuple[str, NDArray[Any]]]:
    """What is drawn: known shapes one by one, and cells of two tissues."""
    offsets = np.moveaxis(np.indices((EDGE,) * 3), 0, -1) - CENTRE
    distance = np.linalg.norm(offsets, axis=-1)
    yield "sphere of radius 12", (distance <= 12).astype(np.int32)
    axes = (8, 12, 18)
    yield "ellipsoid, 8 x 12 x 18", (np.linalg.norm(offsets / axes, axis=-1) <= 1).astype(np.int32)
    along = offsets[..., 2] / np.maximum(distance, 1e-9)
    yield "peanut, 32 long with a waist of 8", (distance <= 4 + 12 * along**2).astype(np.int32)
    from cellrt.simulation import simulate_paper_nuclei

    yield "simulated nuclei", simulate_paper_nuclei("noise", (140, 140, 250)).labels
    tissue = DATA / "labels_only" / "plant_tissue_labels.h5"
    if tissue.exists():
        labels = np.asarray(read_array(f"{tissue}:label"))
        yield "plant tissue", labels[20:120, 80:260, 180:380]


def by_delaunay(found: Shapes) -> LabelArray:
    """Each shape in its box, through 500 points of its surface."""
    radii = radii_along(found.coefficients, FEWER)
    return rasterise_delaunay(
        found.image_shape, found.voxel_size, found.centres, radii, directions(FEWER)
    )


def over_the_volume(found: Shapes) -> NDArray[np.bool_]:
    """One shape, asking every voxel of the image, as the published code does."""
    radii = radii_along(found.coefficients[:1], FEWER)[0]
    ends = found.centres[0] + radii[:, None] * directions(FEWER)
    voxels = np.indices(found.image_shape).reshape(3, -1).T
    return np.asarray(Delaunay(ends).find_simplex(voxels) >= 0)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the CPU time of all threads, which other work hardly touches."""
    start = time.process_time()
    found = work()
    return found, time.process_time() - start
