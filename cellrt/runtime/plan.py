"""The plan of a run: grid, tiles and memory, known before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cellrt.errors import ResourceError, UsageError
from cellrt.geometry import Shape
from cellrt.limits import free_memory
from cellrt.runtime.decoding.base import Decoder, check_size
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.network.engines.gpu_session import BATCH_VOXELS, ENGINE_BYTES_PER_VOXEL
from cellrt.runtime.network.engines.speed import probe_tile, session_speed
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.runtime.network.merge import merge_values
from cellrt.runtime.network.tiles import TileGrid, largest_halo, plan_tiles
from cellrt.runtime.network.views import VIEWS, VOXELS_AT_ONCE

# Measured with the bundled networks in OpenVINO: interpreter, libraries and compiled kernels.
BASE_BYTES = 360_000_000
# Those networks have four channels. Of more, the engine's copy, the one that is merged and that
# which comes meanwhile are alive at once.
MEASURED_CHANNELS = 4
COPIES_OF_FIELDS = 3
LABEL_BYTES_PER_VOXEL = 4
# Of views, four fields of a tile that are put together, two that wait, and the image of the next.
VIEWS_BYTES_PER_VOXEL = 3 * 16 + 4
# A GPU's work takes of the host what its libraries and pieces on their way take, and the tiles that
# wait for it: of two batches, float32.
DEVICE_HOST_BYTES = 600_000_000
DEVICE_HOST_BYTES_PER_VOXEL = 8
# What `cellrt segment` promises to stay within, besides the decoder's share per voxel; larger tiles
# overlap less, so they use it up.
PROMISED_BYTES = 1_000_000_000
# Largest tiles to try, in voxels. The small ones, in which a halo may have no room, are for engines
# that take much per voxel, and for stacks whose sides make tiles round up.
TILE_VOXELS = (3_200_000, 2_600_000, 2_100_000, 1_700_000, 1_400_000, 1_200_000)
SMALL_TILE_VOXELS = (900_000, 600_000, 400_000, 300_000)


@dataclass(frozen=True)
class Plan:
    """What will be computed, and what it takes.

    Parameters
    ----------
    shape : (int, int, int)
        The image (z, y, x), without margins of fill.
    grid : TileGrid
        Tiles on the model's grid.
    memory_bytes : int
        Estimated peak of the whole process.
    scale : str
        Where the grid comes from, and what to do where it is wrong.
    tile_asked : bool
        Whether a tile that was asked for decides on the memory.
    """

    shape: Shape
    grid: TileGrid
    memory_bytes: int
    scale: str = ""
    tile_asked: bool = False

    @property
    def model_voxels(self) -> int:
        """Voxels on the model's grid."""
        return math.prod(self.grid.shape)

    @property
    def overhead(self) -> float:
        """Voxels computed per voxel of the model's grid; 1 without overlap and padding."""
        return self.grid.computed_voxels / self.model_voxels

    def check_memory(self) -> None:
        """Raise ResourceError where this process can have less memory than the plan needs."""
        memory = free_memory()
        if self.memory_bytes - BASE_BYTES / 2 > memory.free:
            if self.tile_asked and math.prod(self.grid.tile) > TILE_VOXELS[0]:
                tile = " ".join(map(str, self.grid.tile))
                raise ResourceError(
                    f"--tile {tile} takes about {self.memory_bytes / 1e9:.3g} GB of memory and "
                    f"{memory.free / 1e9:.1f} of {memory.limit / 1e9:.1f} GB are free "
                    f"({memory.source}); give a smaller one, or leave it out"
                )
            raise ResourceError(
                f"this stack needs about {self.memory_bytes / 1e9:.1f} GB of memory and "
                f"{memory.free / 1e9:.1f} of {memory.limit / 1e9:.1f} GB are free "
                f"({memory.source}); close other programs or ask for more, crop the stack, or "
                f"have it computed on a coarser grid: {_grid_words(self.grid.shape, self.scale)}"
            )


def check_halo(halo: int, card: ModelCard, tile: Shape | None) -> None:
    """Refuse a halo that leaves no room in any tile, before the image is looked at.

    Parameters
    ----------
    halo : int
    card : ModelCard
    tile : (int, int, int) or None
        The tile where it is fixed; else the largest square one of the thinnest stack counts.

    Raises
    ------
    UsageError
    """
    edge = max(tile) if tile else math.isqrt(TILE_VOXELS[0] // card.multiples[0])
    most = largest_halo(edge, card.blend, card.multiple)
    if -(-halo // card.output_stride) * card.output_stride > most:
        of = "tiles of {} x {} x {} voxels".format(*tile) if tile else "any stack"
        raise UsageError(
            f"--halo is {halo} and leaves no room inside of a tile; expected at most "
            f"{max(0, most)} for {of}, and {card.halo} is what the model asks for"
        )


def make_plan(
    shape: Shape,
    model_shape: Shape,
    card: ModelCard,
    decoder: Decoder,
    *,
    whole: Shape | None = None,
    scale: str = "",
    image_bytes: int,
    resident_bytes: int | None = None,
    tile: Shape | None = None,
    halo: int | None = None,
    device_voxels: int | None = None,
    tile_bytes: float | None = None,
) -> Plan:
    """Lay out tiles and estimate memory.

    Parameters
    ----------
    shape, model_shape : (int, int, int)
        Image on its own and on the model's grid.
    card : ModelCard
    decoder : Decoder
        Says what it takes and promises per voxel.
    whole : (int, int, int), optional
        The image with its margins, for which labels take room.
    scale : str, optional
        Where the model's grid comes from, and what to do where it is wrong, for errors.
    image_bytes : int
        Size of the input, wherever it lies: the tiles follow from it, so that the labels of a stack
        do not depend on how its file is stored.
    resident_bytes : int, optional
        How much of that takes memory; all of it by default, nothing for a memory map.
    tile, halo : optional
        Override what the card and the search for the cheapest tiling say.
    device_voxels : int, optional
        Where the network runs in the memory of a GPU: the largest tile for that.
    tile_bytes : float, optional
        What the engine takes of the CPU's memory per voxel of a tile; see `Engine`.

    Raises
    ------
    UsageError
        Tile and halo do not fit together.
    InputError
        The model's grid has 2**31 voxels or more, which no decoder can take at once.
    """
    check_size(model_shape, _grid_words(model_shape, scale))
    whole = whole or shape
    promised = PROMISED_BYTES + decoder.promised_bytes * math.prod(whole)
    margins = LABEL_BYTES_PER_VOXEL * (math.prod(whole) if whole != shape else 0)
    on_host = device_voxels is None
    if tile_bytes is None:
        tile_bytes = card.activation_bytes + ENGINE_BYTES_PER_VOXEL
    sizes = TILE_VOXELS + SMALL_TILE_VOXELS if device_voxels is None else (device_voxels,)
    for max_voxels in sizes:
        try:
            grid = plan_tiles(
                model_shape,
                halo=card.halo if halo is None else halo,
                blend=card.blend,
                multiple=card.multiple,
                stride=card.output_stride,
                planar=card.planar,
                max_voxels=max_voxels,
                tile=tile,
                layers="few" if on_host else "many",  # several GPUs share them
            )
        except UsageError:
            if max_voxels in SMALL_TILE_VOXELS:
                break
            raise
        working = _working_bytes(shape, grid, decoder, card, on_host, tile_bytes)
        working += BASE_BYTES + margins
        missing = working + image_bytes - 0.95 * promised
        if missing <= 0:
            break
        if max_voxels == TILE_VOXELS[-1] and missing > tile_bytes * math.prod(grid.tile):
            break  # smaller ones would not help
    held = image_bytes if resident_bytes is None else resident_bytes
    return Plan(shape, grid, int(working) + held, scale, tile is not None and on_host)


def _grid_words(model_shape: Shape, scale: str) -> str:
    """Why the model's grid is as fine as it is."""
    grid = " x ".join(map(str, model_shape))
    if not scale:
        return "a larger --diameter makes the grid coarser"
    return f"the grid of {grid} voxels follows from a cell diameter of {scale}"


def _working_bytes(
    shape: Shape,
    grid: TileGrid,
    decoder: Decoder,
    card: ModelCard,
    on_host: bool,
    tile_bytes: float,
) -> float:
    """Memory of the network stage or of the decoder, whichever takes more."""
    voxels, model_voxels = math.prod(shape), math.prod(grid.shape)
    resampled = 0 if shape == grid.shape else 2 * model_voxels
    network: float = resampled + decoder.kept_bytes * model_voxels
    tile_voxels = math.prod(grid.tile)
    if on_host:
        merged = len(card.outputs[0].channels[decoder.merged])
        network += 4 * merged * sum(merge_values(grid.outputs))
        # All views are loaded, for a few planes each, and put together beside what comes next.
        alive = min(VOXELS_AT_ONCE, tile_voxels) * len(VIEWS) if card.views else tile_voxels
        network += tile_bytes * alive
        network += VIEWS_BYTES_PER_VOXEL * tile_voxels if card.views else 0
        values = len(card.outputs[0].channels) * math.prod(grid.outputs.tile)
        network += COPIES_OF_FIELDS * 4 * max(0, values - MEASURED_CHANNELS * tile_voxels)
    else:
        network += DEVICE_HOST_BYTES + DEVICE_HOST_BYTES_PER_VOXEL * max(tile_voxels, BATCH_VOXELS)
    decoding = decoder.working_bytes * model_voxels
    if shape != grid.shape:
        decoding += LABEL_BYTES_PER_VOXEL * voxels
    return max(network, decoding)


def estimate_seconds(plan: Plan, network: LoadedModel) -> tuple[float, str]:
    """Time the network on one small tile and scale up to the plan.

    Returns
    -------
    (float, str)
        Seconds of the network stage, and a tenth for everything around it; and what is computed in.
    """
    tile = network.fixed_tile or probe_tile(network.model)
    session = network.session(tile)
    speed = session_speed(session, tile)
    return 1.1 * plan.grid.computed_voxels / speed, session.precision
