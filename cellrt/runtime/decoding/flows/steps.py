"""What the flow decoder does with every voxel, as one interface, and how the CPU does it.

Every implementation gives the same arrays, bit for bit: sums are sums of integers, and where
several answers would do, the lowest index is taken.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellrt.geometry import Shape
from cellrt.runtime.decoding.flows.confidence import foreground_voxels, probability_sums
from cellrt.runtime.decoding.flows.flow_error import Errors, flow_errors
from cellrt.runtime.decoding.flows.sinks import Contacts, basin_contacts, number_sinks
from cellrt.runtime.decoding.flows.trace import follow_pointers, lattice_pointers
from cellrt.runtime.decoding.flows.upsample import upsample_labels
from cellrt.runtime.decoding.flows.walls import fill_walls
from cellrt.runtime.decoding.labels.regions import Regions, count_regions, relabel

IntTable = npt.NDArray[np.int64]


class Steps(Protocol):
    """Passes over the voxels of a volume on one device.

    Volumes, (z, y, x) arrays of uint32 (packed field) and int32 (labels), are the device's own and
    have a ``shape``; tables with one entry per region are on the host.
    """

    def field(self, packed: Any) -> Any:
        """Bring a packed field to the device, if it is not there."""
        ...

    def to_host(self, labels: Any) -> npt.NDArray[np.int32]:
        """Bring labels to the host."""
        ...

    def basins(self, packed: Any, step: float, threshold: float) -> tuple[Any, IntTable]:
        """Trace every voxel to its sink: basins from 1 in the order of their sinks, and these."""
        ...

    def count_regions(self, labels: Any, count: int) -> Regions:
        """Volume and first voxel of each label."""
        ...

    def contacts(self, labels: Any, packed: Any, sinks: IntTable, radius: float) -> Contacts:
        """Pairs of touching basins, in any order."""
        ...

    def relabel(self, labels: Any, table: npt.NDArray[np.int32]) -> None:
        """Replace each label by its entry of a table, in place."""
        ...

    def flow_errors(self, labels: Any, packed: Any, volumes: IntTable, target: str) -> Errors:
        """How far each cell's own flow is from the predicted one."""
        ...

    def probability_sums(self, labels: Any, packed: Any, count: int) -> IntTable:
        """Sum of the probability bytes of each label; 0 for background."""
        ...

    def foreground_voxels(self, labels: Any, packed: Any, count: int, least: np.uint32) -> IntTable:
        """Voxels of each label, background included, with at least that probability byte."""
        ...

    def fill_walls(self, labels: Any, thickness: float) -> None:
        """Give voxels of walls to the nearest cell, in place."""
        ...

    def upsample(
        self,
        labels: Any,
        packed: Any,
        shape: Shape,
        *,
        step: float,
        threshold: float,
        walls: bool,
    ) -> npt.NDArray[np.int32]:
        """Labels of the host or the device on another grid, on the host."""
        ...


class HostSteps:
    """The passes on the CPU, each in threads over slabs."""

    def field(self, packed: Any) -> Any:
        """Take the array as it is."""
        return packed

    def to_host(self, labels: Any) -> npt.NDArray[np.int32]:
        """Take the array as it is."""
        array: npt.NDArray[np.int32] = labels
        return array

    def basins(self, packed: Any, step: float, threshold: float) -> tuple[Any, IntTable]:
        """Write pointers, follow them and number their sinks, all in the memory of the labels."""
        pointers = lattice_pointers(packed, step, threshold)
        follow_pointers(pointers)
        sinks = number_sinks(pointers)
        return pointers.reshape(packed.shape), sinks

    count_regions = staticmethod(count_regions)
    contacts = staticmethod(basin_contacts)
    relabel = staticmethod(relabel)
    flow_errors = staticmethod(flow_errors)
    probability_sums = staticmethod(probability_sums)
    foreground_voxels = staticmethod(foreground_voxels)
    fill_walls = staticmethod(fill_walls)
    upsample = staticmethod(upsample_labels)


HOST = HostSteps()
