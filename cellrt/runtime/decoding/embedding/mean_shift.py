"""Mean shift with a flat kernel: clusters are what climbs to one place of most points.

From each seed, repeatedly, to the mean of all points within the bandwidth, until that hardly moves.
Places that many points lead to are centres of clusters, and every point belongs to the nearest one
(Comaniciu and Meer, IEEE TPAMI 24, 2002). That is scikit-learn's ``MeanShift``, whose labels these
are but for ties, at a fraction of the work: sums over balls come from a tree, and the mean of the
same set of points is the same place, to the bit, wherever one came from, so that a path is followed
once however many seeds lead into it. For that, points are rounded to 1/4096 of the bandwidth; else
nothing is approximated.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.runtime.decoding.embedding.point_tree import (
    PointTree,
    build_tree,
    means_within,
    nearest,
)

# Points lie on a grid of so many steps to a bandwidth, where sums are exact in any order.
_STEPS = 4096.0
# More points than that within the bandwidth, in the mean, are hardly those of cells.
_MANY = 1000
# Seeds that tell whether there are so many.
_SAMPLE = 256
# As a share of the bandwidth: paths among many points that come so near to each other are one.
_NEAR = 0.1
# As scikit-learn: of the bandwidth; a shorter step is the last one.
_SHORTEST_STEP = 1e-3


def mean_shift(
    points: npt.NDArray[np.float32],
    bandwidth: float,
    *,
    seeding: Literal["means", "centres"] = "means",
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Cluster points.

    Parameters
    ----------
    points : (n, d) float32 array
        Finite.
    bandwidth : float
        Radius of the kernel, Euclidean; above 0.
    seeding : {"means", "centres"}
        Seeds are taken from bins, cubes as wide as the bandwidth: the mean of each one's points, or
        its centre as in scikit-learn's ``bin_seeding``. In many dimensions a bin's centre may be
        farther than the bandwidth from all of its points, and clusters are lost that way.

    Returns
    -------
    labels : (n,) int32 array
        Index of each point's cluster, from 0.
    centres : (k, d) float64 array
        Those with the most points within the bandwidth come first; equal ones by their coordinates.
    """
    if not len(points):
        return np.empty(0, np.int32), np.empty((0, points.shape[1]))
    unit = bandwidth / _STEPS
    tree = _tree(points, unit)
    centres = _climbed(tree, seeds_of(tree.points, _STEPS, seeding), math.inf)
    return nearest(tree, centres), centres * unit


def find_centres(
    points: npt.NDArray[np.float32],
    bandwidth: float,
    seeds: npt.NDArray[np.float32],
    *,
    in_haze: bool = True,
) -> npt.NDArray[np.float64] | None:
    """Centres of clusters, as of `mean_shift`, to which the paths from some seeds lead.

    Where thousands of points lie within the bandwidth, as where a network saw no cells but a haze,
    paths that come near to each other are taken for one.

    Parameters
    ----------
    points, seeds : (n, d) float32 array
        One at least of each.
    bandwidth : float
    in_haze : bool
        Also where thousands of points lie within the bandwidth of the typical seed; fewer points
        would do there, and None is returned without it.
    """
    unit = bandwidth / _STEPS
    tree, places = _tree(points, unit), seeds.astype(np.float64) / unit
    if not in_haze:
        some = np.ascontiguousarray(places[:: max(1, len(places) // _SAMPLE)])
        if means_within(tree, some, _STEPS)[1].mean() > _MANY:
            return None
    return _climbed(tree, places, 0 if in_haze else _MANY) * unit


def nearest_centre(
    points: npt.NDArray[np.float32], centres: npt.NDArray[np.float64], bandwidth: float
) -> npt.NDArray[np.int32]:
    """Index of the centre nearest to each point."""
    unit = bandwidth / _STEPS
    return nearest(_tree(points, unit), np.ascontiguousarray(centres / unit))


def _tree(points: npt.NDArray[np.float32], unit: float) -> PointTree:
    return build_tree(np.rint(points / np.float32(unit)))


def _climbed(
    tree: PointTree, seeds: npt.NDArray[np.float64], many: float
) -> npt.NDArray[np.float64]:
    """Centres among points in steps, with a bandwidth of `_STEPS`.

    Paths that come near to each other become one where more points than `many` lie within reach.
    """
    # A graph in which each place leads to the mean of the points around it.
    places, counts, following = seeds[:0], np.empty(0, np.int64), np.empty(0, np.int64)
    new = seeds
    while len(new):
        means, count = means_within(tree, new, _STEPS)
        # Its own place is among them where nothing moves, or nothing is near.
        known = np.concatenate([places, new])
        group, first = distinct_rows(np.concatenate([known, means]).view(np.int64))
        following = np.concatenate([following, first[group[len(known) :]]])
        places, counts = known, np.concatenate([counts, count])
        unseen = np.unique(following[following >= len(known)])
        new = means[unseen - len(known)]
        step = np.searchsorted(unseen, following[following >= len(known)])
        if len(new) and count.mean() > many:
            joined = np.empty(len(new), np.int64)
            chosen = np.empty(len(new), np.int64)
            new = new[chosen[: _choose(new, _NEAR * _STEPS, chosen, joined)]]
            step = joined[step]
        following[following >= len(known)] = len(known) + step
    end = _last_step(places, following)
    start = np.arange(len(seeds))
    last = np.unique(end[start[counts[start] > 0]])
    centres = _centres(places[following[last]], counts[last])
    if not len(centres):  # no seed has a point within its reach
        return np.asarray(tree.points.mean(0, dtype=np.float64)[None])
    return centres


def seeds_of(
    points: npt.NDArray[np.float32], bandwidth: float, seeding: str
) -> npt.NDArray[np.float64]:
    """One place for each bin that has points; see `mean_shift`."""
    bins = np.rint(points * np.float32(1 / bandwidth)).astype(np.int32)
    group, first = distinct_rows(bins)
    if seeding == "centres":
        middles: npt.NDArray[np.float64] = bins[first] * bandwidth
        return middles
    sums = np.zeros((len(first), points.shape[1] + 1))
    _add_up(points, group, sums)
    return np.ascontiguousarray(sums[:, 1:] / sums[:, :1])


@compiled
def _add_up(points: Any, group: Any, sums: Any) -> None:
    for i in range(group.size):
        sums[group[i], 0] += 1
        for k in range(points.shape[1]):
            sums[group[i], k + 1] += np.float64(points[i, k])


def distinct_rows(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number the distinct rows of an integer array (n, d) in the order of their first occurrence.

    Returns
    -------
    (n,) int64 array, (k,) int64 array
        The number of each row, and the index of the first row with each number.
    """
    group, first = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    table = np.full(1 << max(4, int(2 * len(rows) - 1).bit_length()), -1, np.int64)
    return group, first[: _number_rows(rows, group, first, table)].copy()


@compiled
def _number_rows(rows: Any, group: Any, first: Any, table: Any) -> Any:
    count = 0
    mask = table.size - 1
    for i in range(rows.shape[0]):
        word = np.int64(0)
        for k in range(rows.shape[1]):
            word = (word ^ rows[i, k]) * 0x9E3779B97F4A7C1
            word ^= word >> 29
        slot = word & mask
        while True:
            other = table[slot]
            if other < 0:
                table[slot] = count
                first[count] = i
                group[i] = count
                count += 1
                break
            same = True
            for k in range(rows.shape[1]):
                if rows[first[other], k] != rows[i, k]:
                    same = False
                    break
            if same:
                group[i] = other
                break
            slot = (slot + 1) & mask
    return count


def _last_step(
    places: npt.NDArray[np.float64], following: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """For each place, the one from which the last step on its way is taken."""
    length = np.sqrt(np.square(places[following] - places).sum(axis=1))
    step = np.where(length <= _SHORTEST_STEP * _STEPS, np.arange(len(places)), following)
    end = step
    for _ in range(len(places).bit_length()):
        if np.array_equal(end, farther := end[end]):
            return end
        end = farther
    # Where paths were joined, one may lead to where it came from: the first place of such a circle
    # stands for it.
    for place in np.unique(end[step[end] != end]):
        circle = [place]
        while (after := step[circle[-1]]) != place:
            circle.append(after)
        end[end == place] = min(circle)
    return end


def _centres(
    places: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Of places within the bandwidth of each other those with the most points."""
    best_first = np.lexsort((*places.T[::-1], counts))[::-1]
    places = np.ascontiguousarray(places[best_first])
    chosen, joined = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    return places[chosen[: _choose(places, _STEPS, chosen, joined)]]


@compiled
def _choose(places: Any, bandwidth: float, chosen: Any, joined: Any) -> Any:
    """Choose places farther than the bandwidth from all before; say whom each other one joins."""
    count = 0
    square = bandwidth * bandwidth
    for i in range(places.shape[0]):
        alone = True
        for j in range(count - 1, -1, -1):
            apart = 0.0
            for k in range(places.shape[1]):
                apart += (places[i, k] - places[chosen[j], k]) ** 2
                if apart > square:
                    break
            if apart <= square:
                alone = False
                joined[i] = j
                break
        if alone:
            chosen[count] = i
            joined[i] = count
            count += 1
    return count
