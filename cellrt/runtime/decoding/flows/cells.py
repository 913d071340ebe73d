"""Instances from a flow field: every voxel follows the flow to its cell's centre (sink).

The steps, each in its own module:

1. ``trace`` (fast) or ``trace_exact``: where each foreground voxel's path ends;
2. ``sinks``: which sinks belong to one cell;
3. ``confidence``, ``flow_error``: which cells are kept;
4. ``walls``: voxels of walls go to the nearest cell.

What passes over the voxels is listed in ``steps`` and exists for the CPU and, in the package
``cuda``, for a GPU; decisions about cells rest on small tables on the host. No step depends on the
number of cells. Beyond its inputs the fast mode needs 8 bytes per voxel
(packed field and labels), the exact mode 6 more where the flow is not float16.

References
----------
Eschweiler et al., "Robust 3D Cell Segmentation: Extending the View of Cellpose", 2021 (section 2:
steps, closing of sinks, filters; section 3: their parameters).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.runtime.decoding.base import Evidence, Mode, check_size
from cellrt.runtime.decoding.flows.confidence import mean_probability
from cellrt.runtime.decoding.flows.packed_field import pack_field, threshold_byte, unpack_flow
from cellrt.runtime.decoding.flows.sinks import join_basins, number_sinks
from cellrt.runtime.decoding.flows.steps import HOST, Steps
from cellrt.runtime.decoding.flows.trace import follow_pointers
from cellrt.runtime.decoding.flows.trace_exact import exact_pointers
from cellrt.runtime.decoding.labels.regions import (
    Regions,
    equivalent_radius,
    former_labels,
    smallest_volume,
)

Target = Literal["tanh", "heat", "centroid"]

UNSURE = (0.3, 0.75)
"""Probabilities between which the network does not know."""


@dataclass(frozen=True)
class FlowParameters:
    """How a flow field becomes instances; lengths are in voxels of the field's own grid.

    Attributes
    ----------
    step : float
        Length of a move at a flow of 1 along one axis.
    iterations : int
        Most moves of a voxel in the exact mode; the fast mode follows every path to its end.
    closing_radius : float
        Two sinks within this distance are one cell unless the flow between them clearly diverges;
        sinks further apart are joined only if their basins' whole border says so.
    radius_range : (float, float)
        Smallest and largest radius of a cell: of the ball of its volume, of the disc of its area
        in stacks of one slice. Parts smaller than the lower bound join a neighbour from which no
        border divides them.
    min_overlap : float
        Least share of a cell's voxels, filled walls included, that are foreground.
    max_flow_error : float
        Largest mean absolute difference between the flow of the found cell and the predicted one.
    foreground_threshold : float
        Least probability of foreground.
    min_probability : float
        Least mean probability of foreground over a cell's voxels, before walls are filled.
    wall_thickness : float
        Background voxels up to this distance from cells on two sides, and those next to a cell,
        go to the nearest cell; 0 for none.
    target : {"tanh", "heat", "centroid"}
        Formulation of the flow the network predicts, see
        :mod:`cellrt.runtime.decoding.flows.targets`.

    Raises
    ------
    InputError
        A value outside of its range; the message names it.
    """

    step: float = 4.0
    iterations: int = 100
    closing_radius: float = 3.0
    radius_range: tuple[float, float] = (5.0, 100.0)
    min_overlap: float = 0.2
    max_flow_error: float = 0.8
    foreground_threshold: float = 0.5
    min_probability: float = 0.0
    wall_thickness: float = 0.0
    target: Target = "tanh"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        _in_range("step", self.step, 0.1, 100.0)
        _in_range("iterations", self.iterations, 1, 100_000)
        _in_range("closing_radius", self.closing_radius, 0.0, 1000.0)
        _in_range("min_overlap", self.min_overlap, 0.0, 1.0)
        _in_range("max_flow_error", self.max_flow_error, 0.0, 2.0)
        _in_range("foreground_threshold", self.foreground_threshold, 0.0, 1.0)
        _in_range("min_probability", self.min_probability, 0.0, 1.0)
        _in_range("wall_thickness", self.wall_thickness, 0.0, 32.0)
        if len(self.radius_range) != 2 or not 0 <= self.radius_range[0] <= self.radius_range[1]:
            raise InputError(
                f"radius_range is {self.radius_range}; expected two radii, 0 <= smallest <= largest"
            )
        if self.target not in get_args(Target):
            raise InputError(
                f"target is {self.target!r}; expected one of {', '.join(get_args(Target))}"
            )


class FlowCells(NamedTuple):
    """Cells of a field, and what the field says of them.

    Attributes
    ----------
    labels : (z, y, x) int32 array
    evidence : Evidence
        Of cells, before walls are filled: ``probability``, the mean of the foreground's, and
        ``flow_error``, the mean absolute difference between the cell's own flow and the predicted
        one. Of the volume, all in relation to the cells' voxels: ``flow_error``; ``unsure``, voxels
        that may be foreground or not; ``missed``, possible foreground outside of cells.
    """

    labels: npt.NDArray[np.int32]
    evidence: Evidence


def decode_flows(
    flow: npt.NDArray[np.floating[Any]],
    foreground: npt.NDArray[np.generic],
    parameters: FlowParameters,
    *,
    mode: Mode = "fast",
) -> npt.NDArray[np.int32]:
    """Label the cells of a flow field.

    Parameters
    ----------
    flow : (3, z, y, x) float16 or float32 array
        Components along z, y, x in [-1, 1], towards the cell's centre.
    foreground : (z, y, x) float16, float32, bool or uint8 array
        Probability of foreground in [0, 1], or a mask (non-zero is foreground).
    parameters : FlowParameters
        Lengths in voxels of this grid.
    mode : {"fast", "exact"}
        ``exact`` moves each voxel in fractions of voxels with interpolated flow; ``fast`` rounds
        positions to voxels, so that paths are shared and each is walked once.

    Returns
    -------
    (z, y, x) int32 array
        0 for background, cells 1 to n in the order of their first voxel.

    Raises
    ------
    InputError
        Shapes that do not fit, types that are no numbers, or 2**31 voxels and more.

    Notes
    -----
    A voxel with a value that is not a number, in flow or foreground, is background; values beyond
    their range are clipped. Cells are assumed to be star-like along the axes: the tanh target of a
    non-convex cell has several centres, which are joined only where no flow divides them.

    Examples
    --------
    >>> import numpy as np
    >>> from cellrt.runtime.decoding.flows.targets import tanh_flow
    >>> cells = np.repeat(np.int32([[[1, 2]]]), 12, axis=2).repeat(12, 0).repeat(12, 1)
    >>> labels = decode_flows(tanh_flow(cells), cells > 0, FlowParameters())
    >>> bool((labels == cells).all())
    True
    """
    _check_inputs(flow, foreground, mode)
    if foreground.size == 0:
        return np.zeros(foreground.shape, np.int32)
    return decode_packed(pack_field(flow, foreground), parameters, mode=mode, flow=flow).labels


def decode_packed(
    packed: Any,
    parameters: FlowParameters,
    *,
    mode: Mode = "fast",
    flow: npt.NDArray[np.floating[Any]] | None = None,
    steps: Steps = HOST,
) -> FlowCells:
    """Label and judge the cells of a packed field.

    Parameters
    ----------
    packed : (z, y, x) uint32 array
        As :func:`~cellrt.runtime.decoding.flows.packed_field.pack_field` makes it; in the memory
        that `steps` work in, or on the host.
    parameters, mode
        See :func:`decode_flows`.
    flow : (3, z, y, x) float16 or float32 array, optional
        For the exact mode, where it is known better than the packed field's 1/127.
    steps : Steps
        The device that passes over the voxels; every one gives the same labels. The exact mode
        runs on the host only.

    Returns
    -------
    FlowCells

    Raises
    ------
    InputError
        An unknown mode, or 2**31 voxels and more.
    """
    _check_field(packed.shape, mode)
    if mode == "exact":
        steps = HOST
        pointers = exact_pointers(
            unpack_flow(packed) if flow is None else flow,
            packed,
            parameters.step,
            parameters.iterations,
            parameters.foreground_threshold,
        )
        follow_pointers(pointers)
        sinks = number_sinks(pointers)
        labels: Any = pointers.reshape(packed.shape)
    else:
        packed = steps.field(packed)
        labels, sinks = steps.basins(packed, parameters.step, parameters.foreground_threshold)
    regions = steps.count_regions(labels, sinks.size)
    contacts = steps.contacts(labels, packed, sinks, parameters.closing_radius)
    fragment = smallest_volume(parameters.radius_range[0], packed.shape)
    group = join_basins(regions.volumes, contacts, fragment)
    evidence = _filter_and_fill(labels, packed, regions.grouped(group), group, parameters, steps)
    return FlowCells(steps.to_host(labels), evidence)


def _filter_and_fill(
    labels: Any,
    packed: Any,
    regions: Regions,
    group: npt.NDArray[np.int32],
    parameters: FlowParameters,
    steps: Steps,
) -> Evidence:
    """Turn basins into numbered cells, in place; each basin belongs to a group of `regions`."""
    radius = equivalent_radius(regions.volumes, packed.shape)
    smallest, largest = parameters.radius_range
    table = regions.numbered((radius >= smallest) & (radius <= largest))
    steps.relabel(labels, table[group])
    cells = regions.relabelled(table)
    count = cells.volumes.size - 1
    errors = probabilities = np.zeros(count + 1)
    if count:
        errors = steps.flow_errors(labels, packed, cells.volumes, parameters.target)
        sums = steps.probability_sums(labels, packed, count)
        probabilities = mean_probability(sums, cells.volumes)
        keep = errors <= parameters.max_flow_error
        if parameters.min_probability > parameters.foreground_threshold:
            keep &= probabilities >= parameters.min_probability
        table = cells.numbered(keep)
        if table.max() < count:
            steps.relabel(labels, table)
    old = former_labels(table) if count else np.zeros(1, np.int64)
    volumes = cells.volumes[old]
    found = Evidence(
        {"probability": probabilities[old], "flow_error": errors[old]},
        _doubts(labels, packed, volumes, errors[old], steps),
    )
    if old.size > 1 and parameters.wall_thickness > 0:
        steps.fill_walls(labels, parameters.wall_thickness)
        least = threshold_byte(parameters.foreground_threshold)
        filled = steps.count_regions(labels, old.size - 1)
        inside = steps.foreground_voxels(labels, packed, old.size - 1, least)
        share = inside / np.maximum(filled.volumes, 1)
        table = filled.numbered(share >= parameters.min_overlap)
        steps.relabel(labels, table)
        old = former_labels(table)
        found = replace(found, cells={name: v[old] for name, v in found.cells.items()})
    return found


def _doubts(
    labels: Any,
    packed: Any,
    volumes: npt.NDArray[np.int64],
    errors: npt.NDArray[np.float64],
    steps: Steps,
) -> dict[str, float]:
    """What speaks against the cells of a volume as a whole; see :class:`FlowCells`."""
    possible, sure = (
        steps.foreground_voxels(labels, packed, volumes.size - 1, threshold_byte(probability))
        for probability in UNSURE
    )
    claimed = max(int(volumes.sum()), 1)
    return {
        "flow_error": float((errors * volumes).sum() / claimed),
        "unsure": int(possible.sum() - sure.sum()) / claimed,
        "missed": int(possible[0]) / claimed,
    }


def _check_inputs(
    flow: npt.NDArray[np.floating[Any]], foreground: npt.NDArray[np.generic], mode: str
) -> None:
    if flow.ndim != 4 or flow.shape[0] != 3 or flow.shape[1:] != foreground.shape:
        raise InputError(
            f"flow has shape {flow.shape} and foreground {foreground.shape}; "
            "expected (3, z, y, x) and (z, y, x)"
        )
    if flow.dtype.kind != "f" or foreground.dtype.kind not in "fbu":
        raise InputError(
            f"flow has type {flow.dtype} and foreground {foreground.dtype}; expected floating "
            "point numbers, and for the foreground these or a mask (bool, uint8)"
        )
    _check_field(foreground.shape, mode)


def _check_field(shape: tuple[int, ...], mode: str) -> None:
    """Refuse what no pass over a field can do, however the field came here."""
    check_size(shape)
    if mode not in get_args(Mode):
        raise InputError(f"mode is {mode!r}; expected one of {', '.join(get_args(Mode))}")


def _in_range(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise InputError(f"{name} is {value}; expected a number from {lowest} to {highest}")
