"""The result of a simulation: an image together with the cells that are in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SimulatedStack:
    """A simulated stack and its ground truth.

    Attributes
    ----------
    image : ndarray of uint16, (z, y, x)
        What the camera would have stored.
    labels : ndarray of int32, (z, y, x)
        Instance labels 1..n without gaps, 0 is background. Every label is one
        6-connected component, but where there are `layers`.
    voxel_size_um : tuple of float
        Voxel size (z, y, x) in µm.
    kind : str
        ``"nuclei"``, ``"membranes"``, ``"bacteria"`` or ``"worms"``.
    parameters : dict
        Everything that went into the stack, ready for JSON. With the same
        parameters and the same seed the stack comes out byte for byte.
    layers : ndarray of int32, (layer, y, x), optional
        Of cells that overlap: the whole of each, by the same labels, those that share a pixel in
        different layers. In `labels` that pixel belongs to the one that lies uppermost.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.int32]
    voxel_size_um: tuple[float, float, float]
    kind: str
    parameters: dict[str, Any]
    layers: NDArray[np.int32] | None = None

    @property
    def cell_count(self) -> int:
        """Number of cells."""
        return int((self.labels if self.layers is None else self.layers).max(initial=0))


def json_seed(seed: int | np.random.Generator) -> int | None:
    """The seed as it goes into the parameters; a generator's state is not recorded."""
    return None if isinstance(seed, np.random.Generator) else int(seed)
