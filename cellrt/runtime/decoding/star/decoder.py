"""The decoder of star-convex and harmonic shapes, as the stages use it.

The network proposes shapes (`candidates`); of those that overlap the best one stays (`suppress`,
`polyhedra`); they are drawn (`rasterise`, for comparison `delaunay`), or decide together with the
map where cells end (`fit`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.geometry import LabelArray, Shape
from cellrt.runtime.decoding.base import (
    Decoded,
    Evidence,
    Family,
    Merging,
    Mode,
    Outputs,
    Place,
    check_size,
    decode_fields,
)
from cellrt.runtime.decoding.labels.regions import count_regions, former_labels, relabel
from cellrt.runtime.decoding.labels.upsample import upsample_masks
from cellrt.runtime.decoding.star import gpu_or_cpu
from cellrt.runtime.decoding.star.candidates import (
    LEVELS,
    Kind,
    Proposals,
    StarCollector,
    StarFields,
)
from cellrt.runtime.decoding.star.delaunay import rasterise_delaunay
from cellrt.runtime.decoding.star.directions import FEWER, RAYS, directions
from cellrt.runtime.decoding.star.fit import (
    expected_map,
    fit_to_map,
    interpolated,
    matches,
)
from cellrt.runtime.decoding.star.harmonics import (
    HIGHEST_ORDER,
    coefficient_count,
    coefficient_names,
    half_widths,
    power_per_degree,
    radii_along,
    radius_ranges,
)
from cellrt.runtime.decoding.star.parameters import StarParameters
from cellrt.runtime.decoding.star.polyhedra import suppress_rays
from cellrt.runtime.decoding.star.reach import reach_of_harmonics, reach_of_rays
from cellrt.runtime.decoding.star.suppress import separate_peaks, suppress_harmonics
from cellrt.runtime.decoding.star.tetrahedra import as_large_as_cells, polyhedron_half_widths
from cellrt.runtime.decoding.try_gpu import somewhere

# Where the map decides, what of a shape is its cell's for certain: a share of the radius.
_CORE = 0.5

T = TypeVar("T")


@dataclass(frozen=True)
class StarDecoded(Decoded):
    """Cells and their shapes.

    Parameters
    ----------
    shapes : Proposals
        Of cells 1 to n, in voxels of the model's grid.
    ranks : (n,) int64 array
        Cells from the highest score to the lowest.
    """

    shapes: Proposals | None = None
    ranks: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class StarDecoder:
    """HarmonicNet's and StarDist's decoder.

    Shapes are drawn on a GPU where there is one, with the same labels as on the CPU.

    Parameters
    ----------
    parameters : StarParameters
    outputs : Outputs
        A map, and coefficients of harmonics or radii along :func:`~.directions.directions`.
    keep_to_cpu : str
        Why a GPU must not be used; empty where it may.
    """

    parameters: StarParameters
    outputs: Outputs
    keep_to_cpu: str = ""

    name: ClassVar[str] = "star"
    modes: ClassVar[tuple[Mode, ...]] = ("fast",)
    merging: ClassVar[Merging] = "per tile"
    merged: ClassVar[slice] = slice(0, 1)
    # A map, and at most so many proposals.
    kept_bytes: ClassVar[int] = 5
    # Labels, and lists of proposals or the queue of a map that is flooded.
    working_bytes: ClassVar[int] = 10
    promised_bytes: ClassVar[int] = 12
    # A network that sees cells of another size than it learned may still draw them well.
    size_weight: ClassVar[float] = 1.0

    @property
    def kind(self) -> Kind:
        """What shapes are made of."""
        return "harmonics" if self.outputs.channels[0] == "distance" else "rays"

    def warm_up(self) -> None:
        """Decode a small cell with and without a fit, which compiles every kernel a run needs."""
        side = -(-16 // self.outputs.stride)
        fields = np.zeros((len(self.outputs.channels), side, side, side), np.float32)
        fields[0, side // 2, side // 2, side // 2] = 1.0
        fields[1:] = 4.0
        if self.kind == "harmonics":
            fields[1], fields[2:] = 4.0 * math.sqrt(4 * math.pi), 0.0
        for fit in (False, True):
            decoder = replace(self, parameters=StarParameters(fit=fit))
            labels = decode_fields(fields, decoder, self.outputs.stride)
        upsample_masks(np.zeros((2, 2, 2), np.int32), (3, 3, 3))
        expected_map(labels, self.outputs.stride)

    def collector(self, shape: Shape) -> StarCollector:
        """Keep the map, and the shapes that are proposed."""
        return StarCollector(shape, self.kind, self.outputs.stride, self.parameters.threshold)

    def decode(self, kept: StarFields, *, mode: Mode) -> StarDecoded:
        """Suppress and draw.

        Raises
        ------
        UsageError
            Fields were kept for a higher threshold.
        """
        check_size(kept.shape)
        given = self.parameters
        if given.threshold < kept.lowest and not kept.thinned:
            raise UsageError(
                f"threshold is {given.threshold:g} and shapes were kept above {kept.lowest:g}; "
                "run the network again for a lower one"
            )
        why = self.keep_to_cpu
        if given.fill == "delaunay":
            why = why or "simplices are filled there"
        stay = Place("CPU", why) if why else None
        (shapes, levels, labels), place = self._somewhere(partial(self._drawn, kept), stay)
        regions = count_regions(labels, len(shapes))
        table = regions.numbered(regions.volumes >= given.min_volume)
        relabel(labels, table)
        former = former_labels(table)[1:] - 1
        ranks = np.argsort(former).astype(np.int64)
        shapes = shapes[former]
        levels = np.concatenate([[0.0], levels[1:][former]]).astype(np.float32)
        evidence = self._evidence(labels, kept, shapes, levels)
        warnings = (_left_out(kept.lowest),) if given.threshold < kept.lowest else ()
        return StarDecoded(labels, place, evidence, warnings, shapes, ranks)

    def to_grid(self, decoded: Decoded, kept: StarFields, shape: Shape) -> Decoded:
        """Draw the shapes again, with voxels of another size; fitted borders are interpolated."""
        assert isinstance(decoded, StarDecoded)
        assert decoded.shapes is not None
        assert decoded.ranks is not None
        z, y, x = (n / m for n, m in zip(kept.shape, shape, strict=True))
        place = decoded.place
        if self.parameters.fit:
            labels = upsample_masks(decoded.labels, shape)
        else:
            # From the centre of the model's first voxel to that of the image's.
            corner = (np.array([z, y, x]) - 1) / 2
            ranks = decoded.ranks
            shapes = decoded.shapes[ranks]
            longest = self._radii(shapes)[:, 1]
            if shape[0] == 1:
                # One slice was shown as many equal ones: a cell may be found in any of them, and
                # above itself once more.
                shapes.centres[:, 0], shapes.places[:, 0] = corner[0], 0
                stay = self._apart(shapes, kept.shape, longest)
                shapes, ranks, longest = shapes[stay], ranks[stay], longest[stay]
            labels, place = self._somewhere(
                partial(self._draw, shapes, longest, shape, (z, y, x), corner),
                place if place.device == "CPU" else None,
            )
            relabel(labels, np.concatenate([[0], ranks + 1]).astype(np.int32))
        evidence = decoded.evidence
        if evidence is not None:
            areas = {name: values / x**2 for name, values in evidence.areas.items()}
            evidence = replace(evidence, areas=areas)
        return replace(decoded, labels=labels, place=place, evidence=evidence)

    def agreement(self, decoded: Decoded, kept: StarFields) -> float:
        """What the map, and that of a perfect network for these cells, have in common."""
        expected = expected_map(decoded.labels, self.outputs.stride)
        found = kept.map.astype(np.float32) / kept.map.max(initial=1)
        both = float(np.maximum(found, expected).sum())
        return float(np.minimum(found, expected).sum()) / both if both else 0.0

    def _somewhere(self, work: Callable[[ModuleType], T], place: Place | None) -> tuple[T, Place]:
        return somewhere(partial(gpu_or_cpu.find_gpu, self.kind), gpu_or_cpu.HOST, work, place)

    def _drawn(
        self, kept: StarFields, draw: ModuleType
    ) -> tuple[Proposals, NDArray[np.float32], LabelArray]:
        """Shapes that stay, levels at which their cells end, and their labels."""
        given, found = self.parameters, kept.proposals
        order = found.by_score(given.threshold)
        if self.kind == "harmonics":
            shapes = found[order]
            shapes = shapes[separate_peaks(shapes, given.min_distance / self.outputs.stride)]
            radii = self._radii(shapes)
            stay = self._apart(shapes, kept.shape, radii[:, 1], draw=draw)
            shapes, radii = shapes[stay], radii[stay]
        else:
            found = replace(found, values=as_large_as_cells(found.values))
            stay = self._apart(found, kept.shape, order=order)
            shapes = found[order[stay]]
            radii = self._radii(shapes)
        levels = self._levels(shapes)
        whole = (shapes, radii[:, 1], kept.shape, (1.0, 1.0, 1.0), np.zeros(3), draw)
        del found, order  # as large as a label image
        if not given.fit:
            return shapes, levels, self._draw(*whole)
        heights = self._within_reach(shapes, radii, levels, kept)
        labels = self._draw(*whole, limit=_CORE)
        fit_to_map(labels, heights, levels)
        return shapes, levels, labels

    def _within_reach(
        self,
        shapes: Proposals,
        extent: NDArray[np.float64],
        levels: NDArray[np.float32],
        kept: StarFields,
    ) -> NDArray[np.uint8]:
        """The map on the model's grid, 0 beyond reach and where it is lower than all cells end."""
        if not len(shapes):
            return np.zeros(kept.shape, np.uint8)
        lowest = float(levels[1:].min()) * LEVELS
        heights = interpolated(kept.map, self.outputs.stride, kept.shape, lowest)
        values, limit = shapes.values.astype(np.float64), self.parameters.fit_reach
        if self.kind == "harmonics":
            return reach_of_harmonics(heights, shapes.centres, values, extent, limit)
        rays = directions(len(self.outputs.channels) - 1)
        return reach_of_rays(heights, shapes.centres, values, rays, limit)

    def _apart(
        self,
        shapes: Proposals,
        shape: Shape,
        longest: NDArray[np.float64] | None = None,
        *,
        order: NDArray[np.intp] | None = None,
        draw: ModuleType = gpu_or_cpu.HOST,
    ) -> NDArray[np.intp]:
        """Which shapes stay, of those in some order, or as they are: the best first.

        Of harmonics the longest radii have to be known.
        """
        most = self.parameters.max_overlap
        if self.kind == "harmonics":
            assert longest is not None
            values = shapes.values.astype(np.float64)
            return suppress_harmonics(shape, shapes.centres, values, longest, most, draw)
        stride = self.outputs.stride
        places = shapes.places if order is None else shapes.places[order]
        return suppress_rays(
            stride * places + (stride - 1) // 2,
            (stride - 1) / 2 % 1,
            shapes.values,
            directions(len(self.outputs.channels) - 1),
            most,
            order,
        )

    def _draw(
        self,
        shapes: Proposals,
        longest: NDArray[np.float64],
        shape: Shape,
        spacing: tuple[float, float, float],
        corner: NDArray[np.float64],
        draw: ModuleType,
        limit: float | None = None,
    ) -> LabelArray:
        """Labels from 1, in the order of `shapes`: the best first.

        With a limit, a multiple of the radius, that one in which a voxel lies deepest.
        """
        centres, values = shapes.centres - corner, shapes.values.astype(np.float64)
        if not len(shapes):
            return np.zeros(shape, np.int32)
        if self.parameters.fill == "delaunay":
            radii = values if self.kind == "rays" else radii_along(values, FEWER)
            surface = directions(radii.shape[1])
            return rasterise_delaunay(shape, spacing, centres, radii, surface)
        if self.kind == "rays":
            given, rasterised = (values, directions(values.shape[1])), draw.rasterise_rays
        else:
            given, rasterised = (values, longest), draw.rasterise_harmonics
        labels: LabelArray = rasterised(
            shape, spacing, centres, *given, limit=limit or 1.0, first=limit is None
        )
        return labels

    def _radii(self, shapes: Proposals) -> NDArray[np.float64]:
        """The shortest and the longest radius of each shape."""
        if not len(shapes):
            return np.zeros((0, 2))
        if self.kind == "harmonics":
            return radius_ranges(shapes.values)
        values = shapes.values
        return np.stack([values.min(axis=1), values.max(axis=1)], axis=1).astype(np.float64)

    def _levels(self, shapes: Proposals) -> NDArray[np.float32]:
        """Of each cell, and before of the background, what the map says `fit_depth` inside of it.

        The map is the distance to the middle of the nearest voxel outside, as a share of the
        largest. That is about half of what is the narrowest, wherever in the cell the shape has its
        centre, and half a voxel: the shortest radius ends at the side that is near.
        """
        levels = np.zeros(len(shapes) + 1, np.float32)
        if not len(shapes):
            return levels
        if self.kind == "harmonics":
            narrowest = half_widths(shapes.values)
        else:
            narrowest = polyhedron_half_widths(shapes.values, directions(shapes.values.shape[1]))
        deepest = np.maximum(narrowest + 0.5, 1.0)
        levels[1:] = np.minimum(self.parameters.fit_depth / deepest, 0.5)
        return levels

    def _evidence(
        self,
        labels: LabelArray,
        kept: StarFields,
        shapes: Proposals,
        levels: NDArray[np.float32],
    ) -> Evidence:
        found = matches(labels, kept.map, self.outputs.stride, levels, self.parameters.threshold)
        voxels = np.maximum(found[:, 0], 1)
        probability = np.zeros(len(shapes) + 1)
        probability[1:] = shapes.scores
        areas = {}
        if self.kind == "harmonics":
            order = math.isqrt(len(self.outputs.channels) - 1) - 1
            power = np.zeros((len(shapes) + 1, order + 1))
            if len(shapes):
                power[1:] = power_per_degree(shapes.values)
            areas = {f"power_{degree}": power[:, degree] for degree in range(order + 1)}
        return Evidence(
            {"probability": probability, "shape_match": found[:, 1] / voxels},
            {"missed": int(found[0, 1]) / max(int(found[1:, 0].sum()), 1)},
            areas,
        )


def _left_out(lowest: float) -> str:
    return (
        "the network proposed more shapes than there is room for: those with a score up to "
        f"{lowest:.3g} were left out, and cells may be missing; cut the stack into blocks, or "
        "give a larger --diameter if it is too small"
    )


def _fits(channels: tuple[str, ...]) -> bool:
    if channels[0] == "distance":
        orders = {coefficient_count(order): order for order in range(1, HIGHEST_ORDER + 1)}
        order = orders.get(len(channels) - 1, 0)
        return bool(order) and channels[1:] == coefficient_names(order)
    radii = all(re.fullmatch(r"radius_\d+", name) for name in channels[1:])
    return channels[0] == "probability" and radii and len(channels) - 1 in RAYS


STAR = Family(
    StarDecoder.name,
    "distance and coefficients c_0_0 ... of spherical harmonics, or probability and radius_000 ... "
    f"along {', '.join(map(str, RAYS))} rays",
    _fits,
    StarParameters,
    StarDecoder,
    strided=True,
)
