"""Tile geometry: where tiles lie and how much each counts. Pure numbers, no image data.

One axis with three tiles; ``h`` is the halo that is dropped at inner faces, ``/`` and ``\\`` the
blend in which one tile hands over to the next. Faces of the volume keep their full weight::

    |==================\\hhhh
                   hhhh/=========\\hhhh
                              hhhh/===============|

Tiles form a product grid and weights are products of one weight per axis that sum to one at every
position. A merged voxel is therefore a plain weighted sum: no array of total weights is needed.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.geometry import Shape, across_planes

Weighting = Literal["distance", "gaussian", "constant"]


@dataclass(frozen=True)
class AxisTiles:
    """Tiles along one axis.

    Parameters
    ----------
    length : int
        Voxels of the volume along this axis.
    tile : int
        Edge of every tile.
    starts : tuple of int
        First voxel of each tile, ascending, multiples of the network's stride.
    halo : int
        Voxels without weight at inner tile faces.
    weighting : {"distance", "gaussian", "constant"}
        Weight inside the tile less its halo: the distance to the border (weighted tile merging of
        de Bel et al. 2019, which papers 000 and 002 use, taken per axis), a Gaussian with a sigma
        of a quarter of the inner box, or one.
    """

    length: int
    tile: int
    starts: tuple[int, ...]
    halo: int
    weighting: Weighting = "distance"

    @property
    def padded(self) -> int:
        """Length that the tiles cover, at least ``length``."""
        return self.starts[-1] + self.tile

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Weights, shape (tiles, tile), float32; they sum to one at every covered position."""
        raw = np.stack([self._raw(index) for index in range(len(self.starts))])
        total = np.zeros(self.padded)
        for start, row in zip(self.starts, raw, strict=True):
            total[start : start + self.tile] += row
        covered = [
            row / total[start : start + self.tile]
            for start, row in zip(self.starts, raw, strict=True)
        ]
        return np.stack(covered).astype(np.float32)

    def coarser(self, stride: int) -> AxisTiles:
        """The same tiles in voxels that are ``stride`` times as long."""
        starts = tuple(start // stride for start in self.starts)
        length, halo = -(-self.length // stride), -(-self.halo // stride)
        return replace(self, length=length, tile=self.tile // stride, starts=starts, halo=halo)

    def own(self, index: int) -> slice:
        """Part of a tile that is nearer to its middle than to any other tile's."""
        start = self.starts[index]
        edges = [
            (before + self.tile + after) // 2
            for before, after in zip(self.starts, self.starts[1:], strict=False)
        ]
        low, high = ([0, *edges][index], [*edges, self.length][index])
        return slice(min(low, self.length) - start, min(high, self.length) - start)

    def _raw(self, index: int) -> NDArray[np.float64]:
        """Weights of one tile before they are made to sum to one."""
        position = np.arange(self.tile)
        far = float(self.padded)
        left = np.full(self.tile, far) if index == 0 else position - self.halo + 1.0
        last = index == len(self.starts) - 1
        right = np.full(self.tile, far) if last else self.tile - self.halo - 1.0 * position
        distance: NDArray[np.float64] = np.clip(np.minimum(left, right), 0, None)
        if self.weighting == "constant":
            distance = np.where(distance > 0, 1.0, 0.0)
        elif self.weighting == "gaussian":
            sigma = max(1.0, (self.tile - 2 * self.halo) / 4)
            depth = np.minimum(distance, 2 * sigma)
            distance = np.where(distance > 0, np.exp(-0.5 * ((2 * sigma - depth) / sigma) ** 2), 0)
        return distance


@dataclass(frozen=True)
class Tile:
    """One tile: its index on each axis and its first voxel (z, y, x)."""

    index: Shape
    start: Shape


@dataclass(frozen=True)
class TileGrid:
    """Tiles of a volume (z, y, x), iterated in raster order: z slowest, x fastest.

    Parameters
    ----------
    axes : three AxisTiles
    stride : int
        Voxels of the volume, along every axis, per voxel of what the network says of it.
    """

    axes: tuple[AxisTiles, AxisTiles, AxisTiles]
    stride: int = 1

    @property
    def shape(self) -> Shape:
        """Shape of the volume."""
        return _triple(axis.length for axis in self.axes)

    @property
    def tile(self) -> Shape:
        """Shape of every tile."""
        return _triple(axis.tile for axis in self.axes)

    @property
    def computed_voxels(self) -> int:
        """Voxels the network computes, overlaps included."""
        return len(self) * math.prod(self.tile)

    @cached_property
    def outputs(self) -> TileGrid:
        """The same tiles as the network returns them: in voxels of its output."""
        if self.stride == 1:
            return self
        z, y, x = (axis.coarser(self.stride) for axis in self.axes)
        return TileGrid((z, y, x))

    def output(self, tile: Tile) -> Tile:
        """A tile as one of the grid of outputs."""
        return Tile(tile.index, _triple(start // self.stride for start in tile.start))

    def own(self, tile: Tile) -> tuple[slice, slice, slice]:
        """Box (z, y, x) in a tile that is its own: where it meets another, each has half.

        The boxes of all tiles cover the volume exactly once.
        """
        z, y, x = (axis.own(index) for axis, index in zip(self.axes, tile.index, strict=True))
        return (z, y, x)

    def __len__(self) -> int:
        return math.prod(len(axis.starts) for axis in self.axes)

    def __iter__(self) -> Iterator[Tile]:
        for index in itertools.product(*(range(len(axis.starts)) for axis in self.axes)):
            start = (axis.starts[i] for axis, i in zip(self.axes, index, strict=True))
            yield Tile(_triple(index), _triple(start))


def plan_tiles(
    shape: Shape,
    *,
    halo: int,
    blend: int = 8,
    multiple: int = 8,
    stride: int = 1,
    max_voxels: int = 1 << 20,
    tile: Shape | None = None,
    weighting: Weighting = "distance",
    layers: Literal["few", "many"] = "few",
    planar: bool = False,
) -> TileGrid:
    """Choose the tiles of a volume.

    Parameters
    ----------
    shape : (int, int, int)
        Volume (z, y, x) on the model's grid.
    halo : int
        Voxels to drop at inner faces; at least the receptive-field radius makes tiled inference
        exact, less is faster.
    blend : int
        Width of the transition between neighbours in voxels.
    multiple : int
        Largest stride inside the network: tile edges and starts are multiples of it, so that
        down-sampling falls on the same voxels in every tile.
    stride : int
        Stride of the network's output, a divisor of ``multiple``. The halo is rounded up to it.
    max_voxels : int
        Largest tile, for engines that take any shape. Among the tilings that fit, the one that
        computes the fewest voxels is taken.
    tile : (int, int, int), optional
        Fixed tile, for engines built for one shape.
    weighting : {"distance", "gaussian", "constant"}
        See :class:`AxisTiles`.
    layers : {"few", "many"}
        Of tilings that compute the same, the one with the fewest or the most layers of tiles along
        z. Few keep less of the volume in flight; many are finished in smaller pieces.
    planar : bool
        Planes know nothing of each other: along z tiles need no overlap and have any edge.

    Raises
    ------
    UsageError
        The tile has no room beside its halo.
    """
    if halo < 0 or halo != int(halo):
        raise UsageError(f"halo is {halo}; expected a whole number of voxels, 0 or more")
    halo = -(-halo // stride) * stride
    halos, blends = (across_planes(width, planar, 0) for width in (halo, blend))
    multiples = across_planes(multiple, planar, 1)
    overlaps = _triple(2 * halo + blend for halo, blend in zip(halos, blends, strict=True))
    if tile is not None:
        if any(edge % step for edge, step in zip(tile, multiples, strict=True)):
            where = " along y and x" if planar else ""
            raise UsageError(
                f"tile {tile} must be multiples of {multiple}{where}; choose another tile"
            )
        axes = [
            _axis(*axis, weighting)
            for axis in zip(shape, tile, halos, overlaps, multiples, strict=True)
        ]
        return TileGrid((axes[0], axes[1], axes[2]), stride)
    candidates = [_candidates(*axis) for axis in zip(shape, overlaps, multiples, strict=True)]
    best: tuple[tuple[int, int, int], Shape] | None = None
    for combination in itertools.product(*candidates):
        edges = _triple(edge for edge, _ in combination)
        if math.prod(edges) > max_voxels:
            continue
        cost = math.prod(edges) * math.prod(count for _, count in combination)
        count = combination[0][1]
        # Sums are of all that lies beside a tile along x: fewer rows take less memory.
        key = (cost, count if layers == "few" else -count, edges[1])
        if best is None or key < best[0]:
            best = (key, edges)
    if best is None:
        smallest = " x ".join(str(options[-1][0]) for options in candidates)

        def too_large(halo: int) -> bool:
            overlaps = across_planes(2 * halo + blend, planar, 0)
            smallest = (
                _candidates(*a)[-1][0] for a in zip(shape, overlaps, multiples, strict=True)
            )
            return math.prod(smallest) > max_voxels

        most = bisect.bisect_left(range(halo), True, key=too_large) - 1
        advice = f"give a --halo of at most {most}" if most >= 0 else "give a larger --diameter"
        raise UsageError(
            f"a halo of {halo} voxels needs tiles of at least {smallest}, more than the "
            f"{max_voxels:,} voxels that fit into memory; {advice}"
        )
    return plan_tiles(
        shape,
        halo=halo,
        blend=blend,
        multiple=multiple,
        stride=stride,
        tile=best[1],
        weighting=weighting,
        planar=planar,
    )


def largest_halo(edge: int, blend: int, multiple: int) -> int:
    """Largest halo that leaves a tile of this edge room to step on; negative where none does."""
    return (edge - blend - multiple) // 2


def _candidates(length: int, overlap: int, multiple: int) -> list[tuple[int, int]]:
    """(tile edge, number of tiles) worth considering along one axis, largest edge first."""
    options: dict[int, int] = {}
    for count in range(1, max(2, length // multiple + 1)):
        edge = _round_up((length + (count - 1) * overlap) / count, multiple)
        if count > 1 and _step(edge, overlap, multiple) < multiple:
            break
        options.setdefault(edge, _count(length, edge, overlap, multiple))
        if len(options) >= 32:
            break
    return list(options.items())


def _axis(
    length: int, tile: int, halo: int, overlap: int, multiple: int, weighting: Weighting
) -> AxisTiles:
    """Spread tiles of a given edge evenly over one axis."""
    span = max(_round_up(length, multiple), tile) - tile
    if span and _step(tile, overlap, multiple) < multiple:
        blend = overlap - 2 * halo
        most = largest_halo(tile, blend, multiple)
        advice = f", or a --halo of at most {most}" if most >= 0 else ""
        raise UsageError(
            f"a tile edge of {tile} voxels has no room beside an overlap of {overlap}; "
            f"choose an edge of at least {_round_up(overlap + multiple, multiple)}{advice}"
        )
    count = _count(length, tile, overlap, multiple)
    starts = [multiple * round(i * span / max(1, count - 1) / multiple) for i in range(count)]
    return AxisTiles(length, tile, tuple(starts), halo, weighting)


def _count(length: int, tile: int, overlap: int, multiple: int) -> int:
    """Tiles needed along one axis."""
    span = max(_round_up(length, multiple), tile) - tile
    return 1 + math.ceil(span / _step(tile, overlap, multiple)) if span else 1


def _step(tile: int, overlap: int, multiple: int) -> int:
    """Largest distance between neighbouring tiles that leaves the overlap."""
    return (tile - overlap) // multiple * multiple


def _round_up(value: float, multiple: int) -> int:
    return max(1, math.ceil(value / multiple)) * multiple


def _triple(values: Iterator[int] | tuple[int, ...]) -> Shape:
    z, y, x = values
    return (z, y, x)
