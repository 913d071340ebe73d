"""Elongated cells in a plane: curves with a radius, such as rods and worms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled

POINTS = 12
"""Points of a rod's middle line: enough for a bend that cannot be seen as corners."""


@dataclass(frozen=True)
class Rod:
    """A bent rod with round ends.

    Attributes
    ----------
    centre : (float, float)
        (y, x) in pixels.
    angle : float
        Direction of its long axis at the centre, in radians from x towards y.
    length, width : float
        In pixels, ends included.
    bend : float
        Angle in radians by which the direction turns from one end to the other.
    """

    centre: tuple[float, float]
    angle: float
    length: float
    width: float
    bend: float = 0.0

    def line(self) -> NDArray[np.float64]:
        """Points (y, x) of the middle line, shape (POINTS, 2)."""
        along = np.linspace(-0.5, 0.5, POINTS) * (self.length - self.width)
        turned = self.angle + self.bend * np.linspace(-0.5, 0.5, POINTS)
        step = np.diff(along, prepend=along[0])
        points = np.stack([np.cumsum(step * np.sin(turned)), np.cumsum(step * np.cos(turned))], 1)
        moved: NDArray[np.float64] = points - points.mean(axis=0) + self.centre
        return moved


def height_of(
    line: NDArray[np.float64], radius: float | NDArray[np.float64], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Half the thickness of a round body along a line, above the plane of its middle.

    Parameters
    ----------
    line : (n, 2) float array
        Points (y, x) of the middle line.
    radius : float or (n,) float array
        In pixels; one for each point where it changes along the line.
    shape : (int, int)
        Of the image.

    Returns
    -------
    box : (slice, slice)
        Part of the image that it may touch; empty where it lies outside.
    height : float32 array of that shape
        In pixels; 0 outside of the body.
    """
    radii = np.full(len(line), radius) if np.ndim(radius) == 0 else np.asarray(radius)
    reach = radii.max()
    low = np.clip(np.floor(line.min(axis=0) - reach).astype(int), 0, shape)
    high = np.clip(np.ceil(line.max(axis=0) + reach).astype(int) + 1, low, shape)
    height = np.zeros((high[0] - low[0], high[1] - low[1]), np.float32)
    _fill_height(line, radii, low[0], low[1], height)
    return (slice(low[0], high[0]), slice(low[1], high[1])), height


@compiled
def _fill_height(line: Any, radii: Any, top: int, left: int, height: Any) -> None:
    for j in range(height.shape[0]):
        for i in range(height.shape[1]):
            highest = 0.0
            for k in range(line.shape[0] - 1):
                ay, ax = line[k, 0], line[k, 1]
                dy, dx = line[k + 1, 0] - ay, line[k + 1, 1] - ax
                py, px = top + j - ay, left + i - ax
                length = dy * dy + dx * dx
                t = 0.0 if length == 0 else min(1.0, max(0.0, (py * dy + px * dx) / length))
                radius = radii[k] + t * (radii[k + 1] - radii[k])
                square = (py - t * dy) ** 2 + (px - t * dx) ** 2
                highest = max(highest, radius * radius - square)
            if highest > 0:
                height[j, i] = math.sqrt(highest)


def pack_rods(
    shape: tuple[int, int],
    *,
    length: float,
    width: float,
    filling: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int32], NDArray[np.float32], list[Rod]]:
    """Rods that touch and do not overlap, most beside or behind another, as after divisions.

    Parameters
    ----------
    shape : (int, int)
        (y, x).
    length, width : float
        Mean ones in pixels; lengths spread by a quarter, widths by a twelfth.
    filling : float
        Share of the image to cover; less where no more rods find room.
    rng : numpy.random.Generator

    Returns
    -------
    labels : (y, x) int32 array
        1 to n.
    height : (y, x) float32 array
        Half their thickness in pixels.
    rods : list of Rod
        In the order of their labels.
    """
    labels = np.zeros(shape, np.int32)
    height = np.zeros(shape, np.float32)
    rods: list[Rod] = []
    covered, failures = 0, 0
    most = 60 + 12 * round(math.prod(shape) / (length * width))
    while covered < filling * math.prod(shape) and failures < most:
        rod = _next_rod(rods, shape, length, width, rng)
        box, own = height_of(rod.line(), rod.width / 2, shape)
        inside = own > 0
        area = np.count_nonzero(inside)
        # What the image cuts to less than a third is no cell that anybody would draw.
        if area < rod.length * rod.width / 3 or (labels[box][inside] > 0).any():
            failures += 1
            continue
        rods.append(rod)
        labels[box][inside] = len(rods)
        height[box][inside] = own[inside]
        covered += area
    return labels, height, rods


def _next_rod(
    rods: list[Rod],
    shape: tuple[int, int],
    length: float,
    width: float,
    rng: np.random.Generator,
) -> Rod:
    """Draw a rod: anywhere, or along the side or behind the end of one that is there."""
    own_length = max(1.6 * width, length * math.exp(0.25 * rng.standard_normal()))
    own_width = width * math.exp(0.08 * rng.standard_normal())
    bend = 0.25 * float(rng.standard_normal())
    if not rods or rng.random() < 0.1:
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        return Rod((y, x), float(rng.uniform(0, math.pi)), own_length, own_width, bend)
    other = rods[int(rng.integers(len(rods)))]
    along, across = math.cos(other.angle), math.sin(other.angle)
    side = float(rng.choice([-1.0, 1.0]))
    if rng.random() < 0.6:
        gap = side * (0.5 * (other.width + own_width) + rng.uniform(0.2, 1.2))
        shift = rng.uniform(-0.5, 0.5) * other.length
        angle = other.angle + 0.12 * rng.standard_normal()
    else:
        gap = rng.uniform(-0.2, 0.2) * width
        shift = side * (0.5 * (other.length + own_length) + rng.uniform(0.2, 1.2))
        angle = other.angle + 0.25 * rng.standard_normal()
    y = other.centre[0] + shift * across + gap * along
    x = other.centre[1] + shift * along - gap * across
    return Rod((y, x), angle, own_length, own_width, bend)
