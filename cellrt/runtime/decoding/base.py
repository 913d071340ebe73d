"""What the pipeline asks of a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape

Mode = Literal["fast", "exact"]


@dataclass(frozen=True)
class Place:
    """A device that decodes, and why it is this one.

    Parameters
    ----------
    device : str
        ``"CPU"`` or the name of the GPU.
    reason : str
    fell_back : bool
        The GPU was to decode and could not.
    """

    device: str
    reason: str
    fell_back: bool = False


class Decoder(Protocol):
    """A decoder with its parameters set, and how it keeps a network's fields meanwhile.

    Merged fields arrive block by block and are reduced to what the decoder needs, so that no more
    than that is in memory for the whole volume.

    Attributes
    ----------
    name : str
        What cards and ``--decoder`` call it.
    parameters : dataclass
        What it was made with.
    modes : tuple of {"fast", "exact"}
        Modes that :meth:`decode` knows.
    kept_bytes, working_bytes, promised_bytes : int
        Memory per voxel: of the kept fields, of all that is alive while decoding, and what a whole
        run promises to stay within besides 1 GB.
    place : Place
        Where the last fields were decoded.
    size_weight : float
        How much the match of the cells' size with the guessed one counts beside `agreement` where
        the size is searched for: the power to which it is taken.
    """

    name: str
    parameters: Any
    modes: tuple[Mode, ...]
    kept_bytes: int
    working_bytes: int
    promised_bytes: int
    place: Place
    size_weight: float

    def warm_up(self) -> None:
        """Compile every kernel, so that a first run can do it while the network computes."""
        ...

    def empty(self, shape: Shape) -> NDArray[Any]:
        """Room for the fields of a volume (z, y, x) on the model's grid."""
        ...

    def store(self, kept: NDArray[Any], z: slice, y: slice, fields: NDArray[np.float32]) -> None:
        """Keep a merged block of fields, shape (channels, depth, height, x)."""
        ...

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Labels (z, y, x) on the model's grid."""
        ...

    def upsample(
        self, labels: NDArray[np.int32], kept: NDArray[Any], shape: Shape
    ) -> NDArray[np.int32]:
        """Labels on a grid of another shape that covers the same volume."""
        ...

    def agreement(self, labels: NDArray[np.int32], kept: NDArray[Any]) -> float:
        """How well the cells explain the fields they came from, 0 to 1."""
        ...
