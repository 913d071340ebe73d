"""Points sorted into nested balls, so that sums over a ball of any place cost little.

A ball of the tree that lies within the one that is asked for adds what was summed before, and one
that lies beyond it is passed over; single points are looked at where the border runs.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.threads import in_threads

# Points of a leaf, side by side, so that one instruction takes several.
_LANES = 16
# Above this many points a node's radius is what follows from its parts, below it is measured.
_MEASURED = 1024
# A path down the tree halves the widest edge at every step: float32 allows no more.
_DEPTH = 4096
# Roots among which threads share the work.
_ROOTS = 32
# By how much rounding may misplace a border, as a share of the radius.
_SLACK = 1e-6
# Where there is no point: far from all, and its square is still a float32.
_NOWHERE = np.float32(1e15)


class PointTree(NamedTuple):
    """Nested balls. A node's first part follows it; nodes of one root lie together.

    Attributes
    ----------
    points : (n, d) float32 array
        Sorted so that those of each node are neighbours.
    order : (n,) int64 array
        Where each was before.
    roots : (r,) int64 array
        Nodes that are part of no other, ascending.
    bounds : (m, 4) int64 array
        First point of each node, the one after its last, its second part (0 for leaves) and a
        leaf's first block.
    sums : (m, d) float64 array
        Of the node's points.
    centres : (m, d) float32 array
        Their mean.
    radii : (m,) float64 array
        No point of the node is farther from its centre.
    blocks : (b, d, _LANES) float32 array
        Points of the leaves, filled up.
    """

    points: npt.NDArray[np.float32]
    order: npt.NDArray[np.int64]
    roots: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float32]
    radii: npt.NDArray[np.float64]
    blocks: npt.NDArray[np.float32]


def build_tree(points: npt.NDArray[np.float32]) -> PointTree:
    """Sort points (n, d) into a tree; n is at least 1."""
    points = np.array(points, np.float32, order="C")
    order = np.arange(len(points))
    # Halves of halves, one after the other, until there is work for all threads.
    ranges = [(0, len(points))]
    while len(ranges) < _ROOTS:
        first, end = max(ranges, key=lambda span: span[1] - span[0])
        cut = _halve(points, order, first, end) if end - first > _LANES else 0
        if cut == 0:
            break
        ranges.remove((first, end))
        ranges += [(first, cut), (cut, end)]
    ranges.sort()

    def part(first: int, last: int) -> list[Any]:
        return [_subtree(points, order, lo, hi) for lo, hi in ranges[first:last]]

    trees = [tree for trees in in_threads(len(ranges), part, voxels=points.size) for tree in trees]
    nodes, blocks = (np.cumsum([0] + [len(tree[column]) for tree in trees]) for column in (0, -1))
    for tree, node, block in zip(trees, nodes, blocks, strict=False):
        tree[0][:, 2] += node * (tree[0][:, 2] > 0)
        tree[0][:, 3] += block
    return PointTree(
        points, order, nodes[:-1], *(np.concatenate(c) for c in zip(*trees, strict=True))
    )


def means_within(
    tree: PointTree, places: npt.NDArray[np.float64], radius: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Mean and number of the points within a radius of each place.

    Parameters
    ----------
    tree : PointTree
    places : (n, d) float64 array
    radius : float
        Points at this Euclidean distance count, too.

    Returns
    -------
    (n, d) float64 array, (n,) int64 array
        The mean is the place itself where there is no point.
    """
    means, counts = places.copy(), np.zeros(len(places), np.int64)
    work = partial(_means_within, *tree[2:], places, radius, means, counts)
    in_threads(len(places), work, voxels=len(places), smallest=256)
    return means, counts


def nearest(tree: PointTree, places: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Index of the place (k, d) nearest to each point, in the points' former order."""
    found = np.empty(len(tree.points), np.int32)
    work = partial(_nearest, tree.points, tree.order, *tree[2:-1], places, found)
    in_threads(len(tree.roots), work, voxels=tree.points.size)
    return found


def _squared(a: Any, b: Any) -> Any:
    total = 0.0
    for k in range(a.size):
        total += (np.float64(a[k]) - np.float64(b[k])) ** 2
    return total


# Sums may be taken in any order: distances differ in their last bits at most.
_squared_distance = compiled(_squared, fastmath={"reassoc", "contract"})


@compiled
def _halve(points: Any, order: Any, lo: int, hi: int) -> Any:
    """Part points lo to hi - 1 at the middle of their box's widest edge.

    Returns the first of the second half, 0 where all are equal.
    """
    dimensions = points.shape[1]
    low, high = points[lo].copy(), points[lo].copy()
    for i in range(lo + 1, hi):
        for k in range(dimensions):
            low[k] = min(low[k], points[i, k])
            high[k] = max(high[k], points[i, k])
    widest = 0
    for k in range(1, dimensions):
        if high[k] - low[k] > high[widest] - low[widest]:
            widest = k
    if not high[widest] > low[widest]:
        return 0
    middle = low[widest] + (high[widest] - low[widest]) / 2
    if middle >= high[widest]:
        middle = low[widest]
    left, right = lo, hi - 1
    while True:
        while points[left, widest] <= middle:
            left += 1
        while points[right, widest] > middle:
            right -= 1
        if left > right:
            return left
        for k in range(dimensions):
            points[left, k], points[right, k] = points[right, k], points[left, k]
        order[left], order[right] = order[right], order[left]


@compiled
def _subtree(points: Any, order: Any, lo: int, hi: int) -> Any:
    """What a tree over points lo to hi - 1 has from `bounds` on; it sorts them."""
    bounds = np.zeros((4 * (hi - lo) // _LANES + 64, 4), np.int64)
    waiting = np.empty((_DEPTH, 3), np.int64)  # first, end, whose second part it is
    waiting[0] = lo, hi, -1
    left, used, blocks = 1, 0, 0
    while left:
        left -= 1
        first, end, parent = waiting[left]
        if used == bounds.shape[0]:
            larger = np.zeros((2 * used, 4), np.int64)
            larger[:used] = bounds
            bounds = larger
        node = used
        used += 1
        bounds[node, 0], bounds[node, 1] = first, end
        if parent >= 0:
            bounds[parent, 2] = node
        cut = _halve(points, order, first, end) if end - first > _LANES else 0
        if cut:
            waiting[left] = cut, end, node
            waiting[left + 1] = first, cut, -1
            left += 2
        else:
            bounds[node, 3] = blocks
            blocks += (end - first + _LANES - 1) // _LANES
    bounds = bounds[:used].copy()
    dimensions = points.shape[1]
    sums, radii = np.zeros((used, dimensions)), np.zeros(used)
    centres = np.empty((used, dimensions), np.float32)
    packed = np.full((blocks, dimensions, _LANES), _NOWHERE, np.float32)
    for node in range(used - 1, -1, -1):
        _measure(points, bounds, sums, centres, radii, node)
        if bounds[node, 2] == 0:
            first, end = bounds[node, 0], bounds[node, 1]
            for i in range(first, end):
                block = bounds[node, 3] + (i - first) // _LANES
                for k in range(dimensions):
                    packed[block, k, (i - first) % _LANES] = points[i, k]
    return bounds, sums, centres, radii, packed


@compiled
def _measure(points: Any, bounds: Any, sums: Any, centres: Any, radii: Any, node: int) -> None:
    """Sum, centre and radius of a node whose parts have them."""
    first, end, second = bounds[node, 0], bounds[node, 1], bounds[node, 2]
    dimensions = points.shape[1]
    if second:
        for k in range(dimensions):
            sums[node, k] = sums[node + 1, k] + sums[second, k]
    else:
        for i in range(first, end):
            for k in range(dimensions):
                sums[node, k] += np.float64(points[i, k])
    for k in range(dimensions):
        centres[node, k] = sums[node, k] / (end - first)
    farthest = 0.0
    if second and end - first > _MEASURED:
        for part in (node + 1, second):
            apart = math.sqrt(_squared_distance(centres[part], centres[node]))
            farthest = max(farthest, apart + radii[part])
    else:
        for i in range(first, end):
            farthest = max(farthest, _squared_distance(points[i], centres[node]))
        farthest = math.sqrt(farthest)
    radii[node] = farthest


@compiled
def _means_within(
    roots: Any,
    bounds: Any,
    sums: Any,
    centres: Any,
    radii: Any,
    blocks: Any,
    places: Any,
    radius: float,
    means: Any,
    counts: Any,
    lo: int,
    hi: int,
) -> None:
    dimensions = places.shape[1]
    waiting = np.empty(_DEPTH + roots.size, np.int64)
    total, lanes = np.empty(dimensions), np.empty((dimensions, _LANES))
    inside = np.empty(_LANES, np.float32)
    here = np.empty(dimensions, np.float32)
    square = np.float32(radius * radius)
    for at in range(lo, hi):
        for k in range(dimensions):
            here[k] = places[at, k]
            total[k] = 0.0
        lanes[:] = 0.0
        count = 0
        left = roots.size
        waiting[:left] = roots
        while left:
            left -= 1
            node = waiting[left]
            apart = math.sqrt(_squared_distance(here, centres[node]))
            if apart - radii[node] > radius * (1 + _SLACK):
                continue
            first, end, second = bounds[node, 0], bounds[node, 1], bounds[node, 2]
            if apart + radii[node] < radius * (1 - _SLACK):
                count += end - first
                for k in range(dimensions):
                    total[k] += sums[node, k]
            elif second:
                waiting[left] = second
                waiting[left + 1] = node + 1
                left += 2
            else:
                block = bounds[node, 3]
                after = block + (end - first + _LANES - 1) // _LANES
                count += _add_lanes(blocks, block, after, here, square, inside, lanes)
        counts[at] = count
        if count:
            for k in range(dimensions):
                for i in range(_LANES):
                    total[k] += lanes[k, i]
                means[at, k] = total[k] / count


def _lanes_within(
    blocks: Any, first: int, end: int, here: Any, square: Any, inside: Any, lanes: Any
) -> Any:
    """Add up those points of some blocks that are near, by lanes, and say how many they are."""
    count = 0
    for b in range(first, end):
        for i in range(_LANES):
            inside[i] = np.float32(0)
        for k in range(here.size):
            for i in range(_LANES):
                apart = blocks[b, k, i] - here[k]
                inside[i] += apart * apart
        near = np.float32(0)
        for i in range(_LANES):
            inside[i] = np.float32(1) if inside[i] <= square else np.float32(0)
            near += inside[i]
        if near > 0:
            count += np.int64(near)
            for k in range(here.size):
                for i in range(_LANES):
                    lanes[k, i] += np.float64(inside[i] * blocks[b, k, i])
    return count


_add_lanes = compiled(_lanes_within, fastmath={"reassoc", "contract"})


@compiled
def _nearest(
    points: Any,
    order: Any,
    roots: Any,
    bounds: Any,
    sums: Any,
    centres: Any,
    radii: Any,
    places: Any,
    found: Any,
    lo: int,
    hi: int,
) -> None:
    """Go down the trees of some roots with the places that can be nearest to any point of a node.

    Candidates of a node lie, one node's after the other's, in one stack; what lies above those of
    the node in hand belongs to nodes that are done.
    """
    waiting = np.empty((_DEPTH, 3), np.int64)  # node, its parent's candidates: first and end
    stack = np.empty(4 * places.shape[0] + 64, np.int64)
    stack[: places.shape[0]] = np.arange(places.shape[0])
    distance = np.empty(places.shape[0])
    for root in roots[lo:hi]:
        waiting[0] = root, 0, places.shape[0]
        left = 1
        while left:
            left -= 1
            node, from_, to = waiting[left]
            first, end, second = bounds[node, 0], bounds[node, 1], bounds[node, 2]
            least = np.inf
            for c in range(from_, to):
                distance[c - from_] = math.sqrt(_squared_distance(centres[node], places[stack[c]]))
                least = min(least, distance[c - from_])
            if stack.size < to + (to - from_):
                larger = np.empty(2 * stack.size, np.int64)
                larger[:to] = stack[:to]
                stack = larger
            limit = (least + 2 * radii[node]) * (1 + _SLACK)
            kept = to
            for c in range(from_, to):
                if distance[c - from_] <= limit:
                    stack[kept] = stack[c]
                    kept += 1
            if kept - to == 1:
                for i in range(first, end):
                    found[order[i]] = stack[to]
            elif second:
                waiting[left] = second, to, kept
                waiting[left + 1] = node + 1, to, kept
                left += 2
            else:
                for i in range(first, end):
                    best, least = stack[to], np.inf
                    for c in range(to, kept):
                        apart = _squared_distance(points[i], places[stack[c]])
                        if apart < least:
                            best, least = stack[c], apart
                    found[order[i]] = best
