"""Worms in a dish: long, bent, pointed at the tail, and across each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellrt.runtime.results.masks import Mask
from cellrt.simulation.structure.curves import height_of

Heights = NDArray[np.float32]

# Points of a middle line: enough for the bends of a worm that lies in an S.
_POINTS = 40
# Share of a worm that one other may cover; they cross, but hardly ever lie on each other.
_MOST_COVERED = 0.35
_SWIMMING = 0.7
# Half the diagonal of a pixel, and a bit: a thinner tail would fall into parts.
_THINNEST = 0.75
# Share of worms that are laid where another one is already.
_MEETING = 0.6


def lay_worms(
    room: NDArray[np.bool_],
    *,
    length: float,
    width: float,
    filling: float,
    rng: np.random.Generator,
) -> list[tuple[Mask, Heights]]:
    """Lay worms into a dish, many of them across others.

    Parameters
    ----------
    room : (y, x) bool array
        Where they may lie; the image's border cuts those that reach beyond it.
    length, width : float
        Mean ones in pixels; lengths spread by an eighth, widths by a tenth.
    filling : float
        Share of the room that they cover together; less where no more find a place.
    rng : numpy.random.Generator

    Returns
    -------
    list of (Mask, float32 array)
        Each worm, whole also where others cover it, and half its thickness in pixels within the
        mask's box.
    """
    shape = (room.shape[0], room.shape[1])
    worms: list[tuple[Mask, Heights]] = []
    middles: list[NDArray[np.float64]] = []
    covered = np.zeros(shape, bool)
    failures, space = 0, np.count_nonzero(room)
    most = 40 + 10 * round(space / (length * width))
    while np.count_nonzero(covered) < filling * space and failures < most:
        line, radii = _draw(length, width, rng)
        line += _place(middles, shape, width, rng)
        box, height = height_of(line, radii, shape)
        mask = Mask(box, height > 0)
        area = np.count_nonzero(mask.inside)
        # What the image cuts to less than half, or in two, is no worm that anybody would draw.
        if (
            area < 0.5 * 2 * radii.mean() * length
            or ndimage.label(mask.inside, np.ones((3, 3)))[1] != 1
            or not room[box][mask.inside].all()
            or any(_too_much(mask, other) for other, _ in worms)
        ):
            failures += 1
            continue
        worms.append((mask, height))
        middles.append(line)
        covered[box] |= mask.inside
    return worms


def _draw(
    length: float, width: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle line (n, 2) around 0, and radii (n,), of one worm: a swimming one, or a stiff one."""
    length = length * math.exp(0.12 * rng.standard_normal())
    width = width * math.exp(0.1 * rng.standard_normal())
    along = np.linspace(0, 1, _POINTS)
    swims = rng.random() < _SWIMMING
    bend, wave = (1.2, 0.6) if swims else (0.15, 0.05)
    waves = rng.uniform(0.8, 1.6)
    turned = rng.uniform(0, 2 * math.pi) + bend * rng.standard_normal() * along
    turned += (
        wave
        * rng.standard_normal()
        * np.sin(2 * math.pi * waves * along + rng.uniform(0, 2 * math.pi))
    )
    step = length / (_POINTS - 1)
    line = np.cumsum(step * np.stack([np.sin(turned), np.cos(turned)], axis=1), axis=0)
    # A blunt head, and a tail that gets thinner over the last third.
    head = np.sqrt(np.clip(1 - (1 - along / 0.1) ** 2, 0.2, 1))
    head[along > 0.1] = 1
    tail = np.clip((1 - along) / 0.33, 0.12, 1) ** 0.8
    radii = np.maximum(0.5 * width * head * tail, _THINNEST)
    return line - line.mean(axis=0), radii


def _place(
    middles: list[NDArray[np.float64]],
    shape: tuple[int, int],
    width: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Where the middle of the next worm comes to lie: anywhere, or near a part of another one."""
    if not middles or rng.random() > _MEETING:
        return rng.uniform(0, 1, 2) * shape
    other = middles[int(rng.integers(len(middles)))]
    near: NDArray[np.float64] = other[int(rng.integers(len(other)))]
    return near + 3 * width * rng.standard_normal(2)


def _too_much(mask: Mask, other: Mask) -> bool:
    """Whether one covers more of the other than worms do that cross."""
    inner = [
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(mask.box, other.box, strict=True)
    ]
    if any(part.start >= part.stop for part in inner):
        return False
    first, second = (
        m.inside[
            tuple(
                slice(p.start - b.start, p.stop - b.start)
                for p, b in zip(inner, m.box, strict=True)
            )
        ]
        for m in (mask, other)
    )
    shared = np.count_nonzero(first & second)
    smaller = min(np.count_nonzero(mask.inside), np.count_nonzero(other.inside))
    return bool(shared > _MOST_COVERED * smaller)
