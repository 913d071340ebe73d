"""Watershed of the distance transform: every foreground voxel climbs to a maximum, in place.

A voxel points to the highest of its 26 neighbours, where a flooding from all maxima would reach it
first; voxels that climb to the same maximum are one supervoxel. Each voxel decides by itself, so
the work is spread over threads and needs no queue of all voxels. What it decides depends on
distances only and not on where the axes point, except in ties:

1. among equally high neighbours the nearest wins (face, then edge, then corner);
2. among those the one with the higher neighbourhood (sum over its 26 neighbours);
3. what is still equal lies in a plane of symmetry; the one that comes first in memory wins.

Voxels without a higher neighbour form plateaus. From those that are no maximum the shortest way
along the plateau to a voxel that can climb is taken; the others are one supervoxel each.

A word per voxel holds the squared distance (24 bits) and, above it, which neighbour it points to.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.threads import in_threads

_HEIGHT = (1 << 24) - 1
_SHIFT = 24
_FLAT = 26  # no higher neighbour
_QUEUED = 27


def _neighbours() -> npt.NDArray[np.int64]:
    reach = (-1, 0, 1)
    offsets = [(z, y, x) for z in reach for y in reach for x in reach if (z, y, x) != (0, 0, 0)]
    return np.array(sorted(offsets, key=lambda offset: sum(map(abs, offset))), np.int64)


_OFFSETS = _neighbours()
_NEARNESS = np.abs(_OFFSETS).sum(axis=1)


def climb_to_maxima(words: npt.NDArray[np.int32]) -> int:
    """Turn squared distances, in place, into supervoxels numbered from 1.

    Parameters
    ----------
    words : (z, y, x) int32 array
        As :func:`~cellrt.runtime.decoding.labels.distance.squared_distance` gives them; 0 is
        outside and stays 0.

    Returns
    -------
    int
        Number of supervoxels.
    """
    shape = words.shape
    flat = words.reshape(-1)
    deltas = _OFFSETS @ np.array([shape[1] * shape[2], shape[2], 1], np.int64)

    def part(lo: int, hi: int) -> npt.NDArray[np.int64]:
        _point(flat, shape, deltas, lo, hi)
        begin, end = lo * shape[1] * shape[2], hi * shape[1] * shape[2]
        stuck: npt.NDArray[np.int64] = np.flatnonzero(flat[begin:end] >> _SHIFT == _FLAT) + begin
        return stuck

    stuck = np.concatenate(in_threads(shape[0], part, voxels=8 * flat.size))
    _leave_plateaus(flat, shape, deltas, stuck)
    count = int(_number_maxima(flat, shape, deltas, stuck))
    in_threads(flat.size, partial(_climb, flat, deltas), voxels=flat.size)
    in_threads(flat.size, lambda lo, hi: np.negative(flat[lo:hi], flat[lo:hi]), voxels=flat.size)
    return count


@compiled
def _inside(shape: Any, z: int, y: int, x: int, code: int) -> Any:
    a = z + _OFFSETS[code, 0]
    b = y + _OFFSETS[code, 1]
    c = x + _OFFSETS[code, 2]
    return 0 <= a < shape[0] and 0 <= b < shape[1] and 0 <= c < shape[2]


@compiled
def _place(shape: Any, at: int) -> Any:
    x = at % shape[2]
    rest = at // shape[2]
    return rest // shape[1], rest % shape[1], x


@compiled
def _inner(shape: Any, z: int, y: int, x: int) -> Any:
    """Whether all neighbours of a voxel exist."""
    return 0 < z < shape[0] - 1 and 0 < y < shape[1] - 1 and 0 < x < shape[2] - 1


@compiled
def _neighbourhood(words: Any, shape: Any, deltas: Any, z: int, y: int, x: int, code: int) -> Any:
    """Sum of the heights around a neighbour of a voxel."""
    z += _OFFSETS[code, 0]
    y += _OFFSETS[code, 1]
    x += _OFFSETS[code, 2]
    at = (z * shape[1] + y) * shape[2] + x
    inner = _inner(shape, z, y, x)
    total = np.int64(0)
    for around in range(26):
        if inner or _inside(shape, z, y, x, around):
            total += words[at + deltas[around]] & _HEIGHT
    return total


@compiled
def _point(words: Any, shape: Any, deltas: Any, lo: int, hi: int) -> None:
    """Write which neighbour each voxel climbs to."""
    nz, ny, nx = shape
    # Highest of the nine voxels in the same place of the row and of the rows around it.
    tops = np.empty(nx + 2, np.int32)
    for z in range(lo, hi):
        for y in range(ny):
            for x in range(nx + 2):
                tops[x] = 0
            for a in range(max(z - 1, 0), min(z + 2, nz)):
                for b in range(max(y - 1, 0), min(y + 2, ny)):
                    row = (a * ny + b) * nx
                    for x in range(nx):
                        # Other threads add directions above the heights, which never change.
                        tops[x + 1] = max(tops[x + 1], words[row + x] & np.int32(_HEIGHT))
            for x in range(nx):
                at = (z * ny + y) * nx + x
                here = words[at] & _HEIGHT
                if here == 0:
                    continue
                highest = np.int64(max(max(tops[x], tops[x + 1]), tops[x + 2]))
                best = np.int64(_FLAT)
                if highest > here:
                    best = _best(words, shape, deltas, z, y, x, highest, np.int64(_FLAT + 1))
                words[at] = here | (best << _SHIFT)


@compiled
def _best(
    words: Any, shape: Any, deltas: Any, z: int, y: int, x: int, height: int, below: int
) -> Any:
    """Which neighbour of a height to point to, of those whose own code is below a limit."""
    at = (z * shape[1] + y) * shape[2] + x
    inner = _inner(shape, z, y, x)
    best = np.int64(_FLAT)
    support = np.int64(-1)
    for code in range(26):
        if best != _FLAT and _NEARNESS[code] > _NEARNESS[best]:
            break
        if not inner and not _inside(shape, z, y, x, code):
            continue
        word = words[at + deltas[code]]
        if word & _HEIGHT != height or word >> _SHIFT >= below:
            continue
        if best == _FLAT:
            best = np.int64(code)
            continue
        if support < 0:
            support = _neighbourhood(words, shape, deltas, z, y, x, best)
        other = _neighbourhood(words, shape, deltas, z, y, x, code)
        if other > support:
            best = np.int64(code)
            support = other
    return best


@compiled
def _leave_plateaus(words: Any, shape: Any, deltas: Any, stuck: Any) -> None:
    """Point each stuck voxel along its plateau to the nearest voxel that can climb."""
    front = np.empty(stuck.size, np.int64)
    codes = np.empty(stuck.size, np.int32)
    end = 0
    for at in stuck:
        z, y, x = _place(shape, at)
        for code in range(26):
            if _inside(shape, z, y, x, code):
                word = words[at + deltas[code]]
                if word & _HEIGHT == words[at] & _HEIGHT and word >> _SHIFT < _FLAT:
                    front[end] = at
                    end += 1
                    break
    for i in range(end):
        words[front[i]] = (words[front[i]] & _HEIGHT) | (_QUEUED << _SHIFT)
    begin = 0
    while begin < end:
        # All of one distance choose before any of them can be chosen.
        for i in range(begin, end):
            z, y, x = _place(shape, front[i])
            height = np.int64(words[front[i]] & _HEIGHT)
            codes[i] = _best(words, shape, deltas, z, y, x, height, np.int64(_FLAT))
        for i in range(begin, end):
            words[front[i]] = (words[front[i]] & _HEIGHT) | (codes[i] << _SHIFT)
        following = end
        for i in range(begin, end):
            at = front[i]
            z, y, x = _place(shape, at)
            for code in range(26):
                if _inside(shape, z, y, x, code):
                    word = words[at + deltas[code]]
                    if word == (words[at] & _HEIGHT) | (_FLAT << _SHIFT):
                        words[at + deltas[code]] = (word & _HEIGHT) | (_QUEUED << _SHIFT)
                        front[following] = at + deltas[code]
                        following += 1
        begin = end
        end = following


@compiled
def _number_maxima(words: Any, shape: Any, deltas: Any, stuck: Any) -> Any:
    """Number the plateaus that nothing leads away from, as negative words; return how many."""
    stack = np.empty(stuck.size, np.int64)
    count = 0
    for seed in stuck:
        if words[seed] < 0 or words[seed] >> _SHIFT != _FLAT:
            continue
        count += 1
        words[seed] = -count
        stack[0] = seed
        left = 1
        while left:
            left -= 1
            at = stack[left]
            z, y, x = _place(shape, at)
            for code in range(26):
                if _inside(shape, z, y, x, code):
                    word = words[at + deltas[code]]
                    # Stuck neighbours are equally high: neither is above the other.
                    if word > 0 and word >> _SHIFT == _FLAT:
                        words[at + deltas[code]] = -count
                        stack[left] = at + deltas[code]
                        left += 1
    return count


@compiled
def _climb(words: Any, deltas: Any, lo: int, hi: int) -> None:
    """Follow each path to its maximum and write that along it; threads agree on what they write."""
    for start in range(lo, hi):
        if words[start] <= 0:
            continue
        # A word is read once: another thread may finish it between two reads.
        at = start
        word = words[at]
        while word > 0:
            at += deltas[word >> _SHIFT]
            word = words[at]
        label = word
        at = start
        word = words[at]
        while word > 0:
            words[at] = label
            at += deltas[word >> _SHIFT]
            word = words[at]
