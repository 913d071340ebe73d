"""What a family of decoders is, and what the stages ask of its decoders.

Nothing here changes: a decoder is made once with its parameters, and what it says of one run, such
as the device it ran on, travels with that run's result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.geometry import Shape
from cellrt.threads import copy_in_threads

if TYPE_CHECKING:
    from cellrt.runtime.model.card_parts import Guides

Mode = Literal["fast", "exact"]
Merging = Literal["weighted", "per tile"]

MOST_VOXELS = 2**31 - 1
"""Flat indices of voxels are int32 in the memory that becomes the labels."""


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


@dataclass(frozen=True)
class Evidence:
    """What the network's fields say of the cells that were found in them.

    Parameters
    ----------
    cells : mapping of str to (n + 1,) float64 array
        What is known of each cell, by its label; the background's entry means nothing. The names
        become columns of the table of cells.
    volume : mapping of str to float
        What is known of the volume as a whole, 0 or more.
    areas : mapping of str to (n + 1,) float64 array
        What is known of each cell and has a unit: that of areas, in squares of the x size of a
        voxel. The names become columns with the unit at their end.
    """

    cells: Mapping[str, NDArray[np.float64]]
    volume: Mapping[str, float]
    areas: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """Cells, and where they were found.

    A family that knows more of its cells than this extends the class.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        0 for background, cells 1 to n in the order of their first voxel.
    place : Place
    evidence : Evidence, optional
        Without it there is no confidence in cells.
    warnings : tuple of str
        What a user should know of how they were found.
    """

    labels: NDArray[np.int32]
    place: Place
    evidence: Evidence | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """A finished piece of the merged fields: a z-slab, cut along y, whole along x.

    In voxels of the network's output, which may have a stride.

    ``fields`` has shape (channels, depth, height, x), float32, and is valid until the next block is
    asked for.
    """

    z: slice
    y: slice
    fields: Any


@dataclass(frozen=True)
class TileFields:
    """Everything the network says of one tile, as it says it: in voxels of its output.

    Parameters
    ----------
    start : (int, int, int)
        First voxel (z, y, x) of the tile in the volume.
    own : (slice, slice, slice)
        Box (z, y, x) in the tile that is nearer to its middle than to that of its neighbours. The
        boxes of all tiles cover the volume once: what is looked for there is found once.
    fields : (channels, z, y, x) float32 array
        On the host; valid until the next tile comes. Tiles may reach beyond the volume.
    """

    start: Shape
    own: tuple[slice, slice, slice]
    fields: NDArray[np.float32]


class Collector(Protocol):
    """Takes a network's fields piece by piece and keeps what its decoder needs of them."""

    def add(self, block: Block) -> None:
        """Take a merged block, on the host; together they cover the volume once, in any order."""
        ...

    def kept(self) -> Any:
        """What :meth:`Decoder.decode` takes."""
        ...


class ReducedCollector(Collector, Protocol):
    """A collector that a GPU spares work, as `WholeCollector` does with a `Reduction`."""

    reduction: Reduction | None

    def put(self, z: slice, y: slice, values: NDArray[Any]) -> None:
        """Take what is kept of a block, in place of the block."""
        ...

    def put_whole(self, kept: Any) -> None:
        """Take what is kept of the volume, in place of all blocks."""
        ...


class TileCollector(Collector, Protocol):
    """What a decoder whose `merging` is ``"per tile"`` collects with."""

    def add_tile(self, tile: TileFields) -> None:
        """Take a tile, in the order of the grid, before any block that it is part of."""
        ...


class Decoder(Protocol):
    """A decoder with its parameters set. It never changes, nor does it change what was kept.

    Attributes
    ----------
    name : str
        What cards and ``--decoder`` call it.
    parameters : dataclass
        What it was made with.
    modes : tuple of {"fast", "exact"}
        Modes that :meth:`decode` knows.
    merging : {"weighted", "per tile"}
        Whether the collector gets merged blocks only, or every tile as well.
    merged : slice
        Channels that are merged; the others are never held for a volume.
    kept_bytes, working_bytes, promised_bytes : int
        Memory per voxel: of the kept fields, of all that is alive while decoding, and what a whole
        run promises to stay within besides 1 GB.
    size_weight : float
        How much the match of the cells' size with the guessed one counts beside `agreement` where
        the size is searched for: the power to which it is taken.
    """

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Any: ...
    @property
    def modes(self) -> tuple[Mode, ...]: ...
    @property
    def merging(self) -> Merging: ...
    @property
    def merged(self) -> slice: ...
    @property
    def kept_bytes(self) -> int: ...
    @property
    def working_bytes(self) -> int: ...
    @property
    def promised_bytes(self) -> int: ...
    @property
    def size_weight(self) -> float: ...

    def warm_up(self) -> None:
        """Compile every kernel, so that a first run can do it while the network computes."""
        ...

    def collector(self, shape: Shape) -> Collector:
        """Begin to collect the fields of a volume (z, y, x) on the model's grid.

        Fields have fewer voxels where the network's outputs have a stride.
        """
        ...

    def decode(self, kept: Any, *, mode: Mode) -> Decoded:
        """Cells on the model's grid."""
        ...

    def to_grid(self, decoded: Decoded, kept: Any, shape: Shape) -> Decoded:
        """Bring cells to a grid of another shape (z, y, x) that covers the same volume."""
        ...

    def agreement(self, decoded: Decoded, kept: Any) -> float:
        """How well the cells explain the fields they came from, 0 to 1."""
        ...


class Outputs(NamedTuple):
    """What a network says of its input.

    Attributes
    ----------
    channels : tuple of str
        Names of the fields.
    stride : int
        Voxels of the model's grid, along every axis, per voxel of the fields: field voxel i covers
        those from ``stride * i`` on.
    guides : Guides, optional
        What embeddings are made of.
    """

    channels: tuple[str, ...]
    stride: int = 1
    guides: Guides | None = None


class Family(NamedTuple):
    """A kind of decoder: which models it is for, and how it is made.

    Attributes
    ----------
    name : str
        What cards and ``--decoder`` call it.
    needs : str
        The outputs it needs, in words, for the error about a model that has others.
    fits : callable
        Whether a network with these channels has them.
    parameters : type
        A frozen dataclass. Fields are of the types that
        :mod:`cellrt.runtime.decoding.parameters` reads; values out of range raise InputError.
    make : callable
        Given its parameters, the outputs it is for, and why a GPU must not be used: empty where it
        may.
    strided : bool
        Whether it takes outputs with a stride.
    """

    name: str
    needs: str
    fits: Callable[[tuple[str, ...]], bool]
    parameters: type
    make: Callable[[Any, Outputs, str], Decoder]
    strided: bool = False


@dataclass(frozen=True)
class Reduction:
    """How a GPU makes what is kept of merged fields, in the bits that the CPU makes.

    Fields are merged there, and no more than what is kept has to leave its memory.

    Parameters
    ----------
    dtype : numpy.dtype
        Of what is kept of each voxel: one value.
    kernel : callable
        Loads the kernel, which needs a GPU. It is launched with

        - ``fields`` (channels, z, y, x), float32, of which it takes some ``planes``, from the plane
          ``first`` on, and in each of them the first ``height`` rows and ``width`` columns;
        - ``kept``, one-dimensional: voxel (z, y, x) of these goes to
          ``start + (z * rows + y) * width + x``;
        - ``wrong``, whose first value it makes 1 where a field is not finite.
    stays : bool
        Whether the decoder takes what is kept from the GPU's memory, if there is room for it.
    """

    dtype: np.dtype[Any]
    kernel: Callable[[], Any]
    stays: bool = False


class WholeCollector:
    """Keeps one array for the volume, of which a function fills in each merged block.

    Parameters
    ----------
    kept : (z, y, x) array
        Room for it.
    reduce : callable
        Given the part of `kept` that a block covers, and the block's fields.
    reduction : Reduction, optional
        How a GPU does the same. Without one all merged channels come to the host.
    """

    def __init__(
        self,
        kept: NDArray[Any],
        reduce: Callable[[NDArray[Any], NDArray[np.float32]], None],
        reduction: Reduction | None = None,
    ) -> None:
        self._kept, self._reduce, self.reduction = kept, reduce, reduction

    def add(self, block: Block) -> None:
        """See `Collector`."""
        self._reduce(self._kept[block.z, block.y], block.fields)

    def put(self, z: slice, y: slice, values: NDArray[Any]) -> None:
        """Take what a GPU made of a block, on the host; valid until the next one comes."""
        copy_in_threads(values, self._kept[z, y])

    def put_whole(self, kept: Any) -> None:
        """Take what a GPU made of the volume, there or on the host."""
        self._kept = kept

    def kept(self) -> Any:
        """See `Collector`."""
        return self._kept


def decode_fields(
    fields: NDArray[np.float32], decoder: Decoder, stride: int = 1
) -> NDArray[np.int32]:
    """Labels of fields that are whole; see `decode_whole`."""
    return decode_whole(fields, decoder, stride).labels


def decode_whole(fields: NDArray[np.float32], decoder: Decoder, stride: int = 1) -> Decoded:
    """Decode fields that are whole, as the stages do those that come in tiles.

    Parameters
    ----------
    fields : (channels, z, y, x) float32 array
    decoder : Decoder
    stride : int
        Of the network's outputs.

    Returns
    -------
    Decoded
        Of ``stride`` times as many voxels along each axis.
    """
    _, z, y, x = fields.shape
    collector = decoder.collector((stride * z, stride * y, stride * x))
    if decoder.merging == "per tile":
        own = (slice(0, z), slice(0, y), slice(0, x))
        cast(TileCollector, collector).add_tile(TileFields((0, 0, 0), own, fields))
    collector.add(Block(slice(0, z), slice(0, y), fields[decoder.merged]))
    return decoder.decode(collector.kept(), mode="fast")


def check_size(
    shape: tuple[int, ...], why: str = "a larger --diameter makes the grid coarser"
) -> None:
    """Refuse a volume whose voxels int32 cannot count; plans ask before anything is computed.

    Parameters
    ----------
    shape : (int, int, int)
        On the model's grid.
    why : str
        Where that grid comes from, or what makes it coarser.

    Raises
    ------
    InputError
        2**31 voxels or more.
    """
    voxels = math.prod(shape)
    if voxels > MOST_VOXELS:
        raise InputError(
            f"{voxels:,} voxels are to be decoded; at most {MOST_VOXELS:,} can be at once: "
            f"{why}, or cut the stack into blocks"
        )
