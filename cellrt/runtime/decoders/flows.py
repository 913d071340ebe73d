"""Instances from a flow field: every voxel follows the flow to its cell's centre (sink)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.runtime.decoders.flows_sinks import basin_contacts, join_basins, number_sinks
from cellrt.runtime.decoders.flows_trace import follow_pointers, lattice_pointers, pack_field

Mode = Literal["fast", "exact"]
Target = Literal["tanh", "heat", "centroid"]


@dataclass(frozen=True)
class FlowParameters:
    """How a flow field becomes instances; lengths are in voxels of the field's own grid."""

    step: float = 4.0
    iterations: int = 100
    closing_radius: float = 3.0
    radius_range: tuple[float, float] = (5.0, 100.0)
    min_overlap: float = 0.2
    max_flow_error: float = 0.8
    foreground_threshold: float = 0.5
    wall_thickness: float = 0.0
    target: Target = "tanh"


def decode_flows(
    flow: npt.NDArray[np.floating[Any]],
    foreground: npt.NDArray[np.generic],
    parameters: FlowParameters,
    *,
    mode: Mode = "fast",
) -> npt.NDArray[np.int32]:
    """Label the cells of a flow field."""
    if flow.ndim != 4 or flow.shape[0] != 3 or flow.shape[1:] != foreground.shape:
        raise InputError(
            f"flow has shape {flow.shape} and foreground {foreground.shape}; "
            "expected (3, z, y, x) and (z, y, x)"
        )
    packed = pack_field(flow, foreground)
    pointers = lattice_pointers(packed, parameters.step, parameters.foreground_threshold)
    follow_pointers(pointers)
    sinks = number_sinks(pointers)
    basins = pointers.reshape(packed.shape)
    contacts = basin_contacts(basins, packed)
    volume = np.bincount(pointers, minlength=sinks.size + 1).astype(np.int64)
    volume[0] = 0
    smallest = 4.0 / 3.0 * np.pi * parameters.radius_range[0] ** 3
    group = join_basins(volume, contacts, smallest)
    volume = np.bincount(group, volume, minlength=group.size)
    radius = np.cbrt(volume * (3.0 / (4.0 * np.pi)))
    keep = (radius >= parameters.radius_range[0]) & (radius <= parameters.radius_range[1])
    new = np.zeros(group.size, np.int32)
    new[keep] = np.arange(1, np.count_nonzero(keep) + 1)
    labels: npt.NDArray[np.int32] = new[group][basins]
    return labels
