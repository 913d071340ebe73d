"""The flow decoder's passes over the voxels on a GPU, and the memory they take there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.errors import ResourceError
from cellrt.geometry import Shape
from cellrt.runtime.decoding.flows.cuda.flow_error import tanh_flow_errors
from cellrt.runtime.decoding.flows.cuda.regions import (
    count_regions,
    fill_walls,
    foreground_voxels,
    probability_sums,
    relabel,
)
from cellrt.runtime.decoding.flows.cuda.sinks import basin_contacts
from cellrt.runtime.decoding.flows.cuda.trace import basins
from cellrt.runtime.decoding.flows.cuda.upsample import upsample_labels
from cellrt.runtime.decoding.flows.flow_error import Errors, flow_errors
from cellrt.runtime.machine.kernels import free_bytes, to_device, wrapped
from cellrt.runtime.machine.transfer import to_host

# Packed field, and pointers that become labels in place. Tables take more, in all networks' fields
# a small part of it; where they do not fit, the CPU decodes.
FIELD_BYTES_PER_VOXEL = 4
LABEL_BYTES_PER_VOXEL = 4


class CudaSteps:
    """The passes as kernels; see :class:`cellrt.runtime.decoding.flows.steps.Steps`.

    What reads or writes voxels runs on the GPU, at the speed of its memory. Tables with an entry
    per region go to the host, where regions are joined and chosen: a few megabytes at most.
    """

    def check_memory(self, field: Any, target: Shape | None = None) -> None:
        """Refuse a volume that the free memory of the GPU does not hold.

        Parameters
        ----------
        field : (z, y, x) uint32 array
            On the host or the device.
        target : (int, int, int), optional
            Shape of the grid on which labels are wanted; by default those of the field's own.

        Raises
        ------
        ResourceError
            Too little memory.
        """
        voxels = math.prod(field.shape)
        needed = LABEL_BYTES_PER_VOXEL * (voxels + (math.prod(target) if target else 0))
        if not is_device_array(field):
            needed += FIELD_BYTES_PER_VOXEL * voxels
        free = free_bytes()
        if needed > free:
            raise ResourceError(
                f"it needs {needed / 1e9:.2g} GB of device memory and {free / 1e9:.2g} GB are free"
            )

    def field(self, packed: Any) -> Any:
        """Copy a packed field to the device; arrays that are there already are used in place."""
        if not is_device_array(packed):
            return to_device(packed)
        return wrapped(packed)

    def to_host(self, labels: Any) -> npt.NDArray[np.int32]:
        """Copy labels to the host."""
        return to_host(labels)

    def flow_errors(
        self, labels: Any, packed: Any, volumes: npt.NDArray[np.int64], target: str
    ) -> Errors:
        """Flow errors of each cell; other targets than tanh are computed on the CPU.

        The flows of those are floating point numbers, which a GPU rounds otherwise.
        """
        if target == "tanh":
            return tanh_flow_errors(labels, packed, volumes)
        return flow_errors(to_host(labels), to_host(packed), volumes, target)

    def upsample(
        self,
        labels: Any,
        packed: Any,
        shape: tuple[int, int, int],
        *,
        step: float,
        threshold: float,
        walls: bool,
    ) -> npt.NDArray[np.int32]:
        """Labels of the host or the device on another grid, on the host."""
        labels, packed = self.field(labels), self.field(packed)
        result = upsample_labels(labels, packed, shape, step=step, threshold=threshold, walls=walls)
        return self.to_host(result)

    basins = staticmethod(basins)
    count_regions = staticmethod(count_regions)
    contacts = staticmethod(basin_contacts)
    relabel = staticmethod(relabel)
    probability_sums = staticmethod(probability_sums)
    foreground_voxels = staticmethod(foreground_voxels)
    fill_walls = staticmethod(fill_walls)


def is_device_array(array: Any) -> bool:
    """Whether an array lies in the memory of a GPU."""
    return not isinstance(array, np.ndarray)
