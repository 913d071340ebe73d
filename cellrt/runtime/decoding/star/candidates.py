"""Shapes that a network proposes: taken out of its tiles, while the map alone is merged.

A tile proposes what lies in the part of it that is its own. A cell on the edge of that part may be
seen a voxel farther by one tile than by the next, so that neither would own it: where cells are
proposed once, by the highest voxel of their map, tiles propose what lies a little beyond as well,
and proposals of the same cell are recognised later on.

The map is not enlarged to the grid of the input, as the paper does it: between the voxels of a map
that is enlarged linearly no value is above all of theirs, so that peaks are where they are on the
network's own grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Block, TileFields
from cellrt.threads import in_threads

Kind = Literal["harmonics", "rays"]

# Voxels of the network's grid around its own part in which a tile looks for peaks.
_BEYOND = 2
# Edge, in voxels of the model's grid, of the box in which coefficients are averaged.
_AVERAGED = 5
# Values of what is kept of a map, which are 0 to 1.
LEVELS = 255
# Memory for proposals: where every voxel is one, more of them say nothing new of any cell.
_LEAST_ROOM, _ROOM_PER_VOXEL = 1 << 28, 4
# Longer radii are those of no cell.
_LONGEST = 127.0
_SHORTEST = 1e-3


@dataclass(frozen=True, eq=False)
class Proposals:
    """Shapes about their centres.

    Attributes
    ----------
    places : ndarray of int64, shape (shapes, 3)
        Voxel (z, y, x) of the network's grid.
    centres : ndarray of float64, shape (shapes, 3)
        In voxels of the model's grid, from the centre of the first one.
    scores : ndarray of float32, shape (shapes,)
    values : ndarray of float32, shape (shapes, numbers)
        Coefficients or radii, in voxels of the model's grid.
    """

    places: NDArray[np.int64]
    centres: NDArray[np.float64]
    scores: NDArray[np.float32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: NDArray[Any]) -> Proposals:
        return Proposals(
            self.places[chosen], self.centres[chosen], self.scores[chosen], self.values[chosen]
        )

    def by_score(self, above: float) -> NDArray[np.intp]:
        """Which have a score above a value, the highest first, each place once.

        Of equals the one with the first voxel comes first.
        """
        chosen = np.flatnonzero(self.scores > above)
        order = chosen[np.lexsort((*self.places[chosen].T[::-1], -self.scores[chosen]))]
        places = self.places[order]
        again = np.zeros(len(order), np.bool_)
        again[1:] = (places[1:] == places[:-1]).all(axis=1)
        return np.asarray(order[~again])


@dataclass(frozen=True, eq=False)
class StarFields:
    """What is kept of a network's fields.

    Attributes
    ----------
    shape : (z, y, x)
        On the model's grid.
    map : ndarray of uint8, shape (z, y, x)
        Of the network's grid: distance to the border or probability, 0 to `LEVELS`.
    proposals : Proposals
    lowest : float
        Not above it nothing is kept.
    thinned : bool
        There were more proposals than there is room for, and those with low scores went.
    """

    shape: Shape
    map: NDArray[np.uint8]
    proposals: Proposals
    lowest: float
    thinned: bool = False


class StarCollector:
    """Collects `StarFields`.

    Parameters
    ----------
    shape : (z, y, x)
        On the model's grid.
    kind : {"harmonics", "rays"}
    stride : int
        Of the network's grid.
    lowest : float
        Voxels propose where the map is above it.
    """

    def __init__(self, shape: Shape, kind: Kind, stride: int, lowest: float) -> None:
        self._shape, self._kind, self._stride, self._lowest = shape, kind, stride, lowest
        z, y, x = (-(-n // stride) for n in shape)
        self._map = np.zeros((z, y, x), np.uint8)
        self._found: list[Proposals] = []
        self._thinned = False
        self._room = max(_LEAST_ROOM, _ROOM_PER_VOXEL * math.prod(shape))

    def add_tile(self, tile: TileFields) -> None:
        """See `TileCollector`."""
        z, y, x = self._map.shape
        look = peaks if self._kind == "harmonics" else every_voxel
        self._found.append(look(tile, (z, y, x), self._stride, self._lowest))
        if sum(each.values.nbytes for each in self._found) > self._room:
            self._thin()

    def _thin(self) -> None:
        """Keep the proposals with the highest scores: three quarters of what there is room for."""
        found = self._joined()
        most = int(0.75 * self._room / (4 * found.values.shape[1]))
        lowest = np.partition(found.scores, len(found) - most)[len(found) - most]
        self._lowest, self._thinned = float(lowest), True
        self._found = [found[found.scores >= lowest]]

    def add(self, block: Block) -> None:
        """See `Collector`."""
        levels = block.fields[0] * LEVELS
        np.rint(levels, out=levels)
        self._map[block.z, block.y] = np.clip(levels, 0, LEVELS, out=levels)

    def kept(self) -> StarFields:
        """See `Collector`."""
        self._found = [self._joined()]
        return StarFields(self._shape, self._map, self._found[0], self._lowest, self._thinned)

    def _joined(self) -> Proposals:
        found = self._found

        def joined(part: Callable[[Proposals], Any], *shape: int, dtype: Any) -> Any:
            return np.concatenate([np.zeros(shape, dtype), *map(part, found)])

        numbers = found[0].values.shape[1] if found else 0
        return Proposals(
            joined(lambda each: each.places, 0, 3, dtype=np.int64),
            joined(lambda each: each.centres, 0, 3, dtype=np.float64),
            joined(lambda each: each.scores, 0, dtype=np.float32),
            joined(lambda each: each.values, 0, numbers, dtype=np.float32),
        )


def every_voxel(tile: TileFields, shape: Shape, stride: int, lowest: float) -> Proposals:
    """Each voxel above a value proposes its radii, as in StarDist.

    Parameters
    ----------
    tile : TileFields
    shape : (z, y, x)
        Of the network's grid.
    stride : int
        Its voxels' edge on the model's grid.
    lowest : float
    """
    height = tile.fields[0][tile.own]
    found = np.argwhere(height > lowest)
    here = found + [part.start for part in tile.own]
    radii = np.empty((len(here), len(tile.fields) - 1), np.float32)
    in_threads(
        len(here),
        lambda lo, hi: _take(tile.fields, here, radii, lo, hi),
        voxels=16 * radii.size,
    )
    np.clip(radii, _SHORTEST, _LONGEST, out=radii)
    places = here + np.asarray(tile.start)
    centres = places * float(stride) + (stride - 1) / 2
    return Proposals(places, centres, height[tuple(found.T)].astype(np.float32), radii)


@compiled
def _take(fields: Any, here: Any, radii: Any, lo: int, hi: int) -> None:
    for ray in range(radii.shape[1]):
        for i in range(lo, hi):
            radii[i, ray] = fields[ray + 1, here[i, 0], here[i, 1], here[i, 2]]


def peaks(tile: TileFields, shape: Shape, stride: int, lowest: float) -> Proposals:
    """Each voxel that is above its neighbours proposes the shape that those around agree on.

    It lies between voxels, where a parabola through the map has its vertex. Parameters as for
    `every_voxel`.
    """
    reach = _AVERAGED // stride // 2
    bounds = np.zeros((3, 2), np.int64)
    for axis, (part, start) in enumerate(zip(tile.own, tile.start, strict=True)):
        inside = min(tile.fields.shape[axis + 1], shape[axis] - start)
        if part.start < part.stop:
            # Not so far that the tile's own face cuts off what is averaged: its owner sees that.
            bounds[axis, 0] = min(part.start, max(part.start - _BEYOND, reach, 1))
            bounds[axis, 1] = max(part.stop, min(part.stop + _BEYOND, inside - max(reach, 1)))
    height = np.ascontiguousarray(tile.fields[0])
    here = np.concatenate(
        in_threads(
            int(bounds[0, 1] - bounds[0, 0]),
            lambda lo, hi: _peaks(height, bounds, lowest, bounds[0, 0] + lo, bounds[0, 0] + hi),
            voxels=height.size,
        )
        if (bounds[:, 1] > bounds[:, 0]).all()
        else [np.empty((0, 3), np.int64)]
    )
    # Only what the volume contains: beyond it tiles mirror the image.
    inside = np.minimum(height.shape, np.subtract(shape, tile.start))
    values = np.empty((len(here), len(tile.fields) - 1), np.float32)
    offsets = np.empty((len(here), 3))
    _average(tile.fields, here, inside, reach, values, offsets)
    places = here + np.asarray(tile.start)
    centres = (places + offsets) * float(stride) + (stride - 1) / 2
    return Proposals(places, centres, height[tuple(here.T)].astype(np.float32), values)


@compiled
def _peaks(height: Any, bounds: Any, lowest: Any, first: int, last: int) -> Any:
    """Voxels that none of 26 neighbours is above; of equal neighbours the first one."""
    nz, ny, nx = height.shape
    found = np.empty((16, 3), np.int64)
    count = 0
    for z in range(first, last):
        for y in range(bounds[1, 0], bounds[1, 1]):
            for x in range(bounds[2, 0], bounds[2, 1]):
                value = height[z, y, x]
                if not value > lowest:
                    continue
                highest = True
                for k in range(27):
                    a, b, c = z + k // 9 - 1, y + k // 3 % 3 - 1, x + k % 3 - 1
                    if a < 0 or b < 0 or c < 0 or a >= nz or b >= ny or c >= nx:
                        continue
                    other = height[a, b, c]
                    if other > value or (other == value and k < 13):
                        highest = False
                        break
                if highest:
                    if count == len(found):
                        larger = np.empty((2 * count, 3), np.int64)
                        larger[:count] = found
                        found = larger
                    found[count] = z, y, x
                    count += 1
    return found[:count]


@compiled
def _average(fields: Any, here: Any, inside: Any, reach: int, values: Any, offsets: Any) -> None:
    """Mean of the values around each peak, weighted by the map, and where its vertex is."""
    place, beside = np.empty(3, np.int64), np.empty(2)
    for i in range(here.shape[0]):
        values[i] = 0.0
        total = 0.0
        for z in range(max(here[i, 0] - reach, 0), min(here[i, 0] + reach + 1, inside[0])):
            for y in range(max(here[i, 1] - reach, 0), min(here[i, 1] + reach + 1, inside[1])):
                for x in range(max(here[i, 2] - reach, 0), min(here[i, 2] + reach + 1, inside[2])):
                    weight = max(fields[0, z, y, x], np.float32(0.0))
                    total += weight
                    for k in range(values.shape[1]):
                        values[i, k] += weight * fields[k + 1, z, y, x]
        for k in range(values.shape[1]):
            values[i, k] /= total
        at = fields[0, here[i, 0], here[i, 1], here[i, 2]]
        for axis in range(3):
            offsets[i, axis] = 0.0
            if 0 < here[i, axis] < inside[axis] - 1:
                for side in range(2):
                    for other in range(3):
                        place[other] = here[i, other]
                    place[axis] += 2 * side - 1
                    beside[side] = fields[0, place[0], place[1], place[2]]
                curvature = beside[0] - 2.0 * at + beside[1]
                if curvature < 0.0:
                    vertex = 0.5 * (beside[0] - beside[1]) / curvature
                    offsets[i, axis] = min(0.5, max(-0.5, vertex))
