"""Tiles that show a network what it will see: from stacks, or simulated. No torch here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.geometry import Shape, across_planes
from cellrt.runtime.cell_size.search import refine_scale
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.grid.model_image import ModelImage, look_at, prepare_image
from cellrt.runtime.grid.scale import known_scale
from cellrt.runtime.image.reading import read_volume
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.simulation.styles import KINDS, STYLES, simulate_style

Tile = NDArray[np.float32]

EDGE = 64
# A single plane is wider, and drawn with what is above and below it.
PLANAR_EDGE = 256
PLANAR_DEPTH = 24
PER_STACK = 6
# Where cells are dense, where they are few, and anything.
_STYLES = {"nuclei": ("dense", "typical", "random"), "membranes": ("tissue", "typical", "random")}


def stack_tiles(paths: Sequence[str | Path], model: ModelFile) -> list[Tile]:
    """Cut tiles out of stacks, brought to the model's grid as `cellrt segment` does it.

    Parameters
    ----------
    paths : sequence of str or Path
        Stacks with one channel.
    model : ModelFile
        A float32 model: without a voxel size it estimates the cell size.

    Returns
    -------
    list of (1, 1, z, y, x) float32 arrays
        Up to `PER_STACK` a stack, of `tile_shape` (fewer voxels never: mirrored), those with the
        strongest contrast.

    Raises
    ------
    InputError
        A file that cannot be read, one slice where the model is for stacks or the other way
        round, a constant image.
    """
    tiles: list[Tile] = []
    for path in paths:
        image = _model_image(path, model)
        depth, height, width = shape = tile_shape(model.card.multiple, model.card.planar)
        starts = itertools.product(
            *(range(0, max(1, n - e // 2), e) for n, e in zip(image.shape, shape, strict=True))
        )
        found = []
        for z, y, x in starts:
            found.append(image.read((z, y, x), (z + depth, y + height, x + width))[None, None])
        found.sort(key=lambda tile: -float(tile.std()))
        tiles += [tile for tile in found if tile.min() < tile.max()][:PER_STACK]
    return tiles


def simulated_tiles(card: ModelCard, count: int, *, seed: int) -> list[Tile]:
    """Simulate tiles of the kind of image a model is made for.

    Parameters
    ----------
    card : ModelCard
        Its target and nominal diameter are simulated.
    count, seed : int
        Same seed, same tiles.

    Returns
    -------
    list of (1, 1, z, y, x) float32 arrays
        Of `tile_shape`, normalised; different styles take turns.
    """
    assert set(_STYLES) <= set(KINDS)
    assert all(set(styles) <= set(STYLES[kind]) for kind, styles in _STYLES.items())
    if card.target not in _STYLES:
        raise InputError(
            f"no stacks of {card.target!r} can be simulated; give some with --calibrate"
        )
    shape = tile_shape(card.multiple, card.planar)
    drawn = (PLANAR_DEPTH if card.planar else shape[0], *shape[1:])
    tiles = []
    for index in range(count):
        stack = simulate_style(
            card.target,
            _STYLES[card.target][index % 3],
            index=index,
            seed=seed,
            shape=drawn,
            diameter_voxels=card.diameter_voxels,
        )
        middle = (drawn[0] - shape[0]) // 2
        image = prepare_image(stack.image[middle:][: shape[0]], shape, card.normalisation)
        tiles.append(image.read((0, 0, 0), image.shape)[None, None])
    return tiles


def tile_shape(multiple: int, planar: bool) -> Shape:
    """Shape (z, y, x) of the tiles that a network of some stride is shown."""
    edge = math.ceil((PLANAR_EDGE if planar else EDGE) / multiple) * multiple
    return across_planes(edge, planar, 1)


def _model_image(path: str | Path, model: ModelFile) -> ModelImage:
    """Read a stack and bring it to the model's grid; the scale is found as for segmenting."""
    card = model.card
    volume = read_volume(path)
    if volume.is_2d and not card.planar:
        raise InputError(f"{path} has one slice; calibrate with stacks (z, y, x)")
    if card.planar and not volume.is_2d:
        raise InputError(f"{path} has {volume.shape[0]} slices; calibrate with single ones")
    scale, spacing, origin = known_scale(volume, card)
    warnings: list[str] = []
    seen = look_at(volume.image, card.normalisation)
    scale = refine_scale(
        seen,
        scale,
        spacing,
        origin,
        network=LoadedModel(model, choose_engine("openvino"), "fp32"),
        decoder=decoder_for(card),
        warnings=warnings,
    )
    shape = scale.model_shape(seen.shape, card)
    if card.planar:
        shape = (1, *shape[1:])
    image = prepare_image(seen, shape, card.normalisation)
    if image.is_constant:
        raise InputError(f"{path} is constant; calibrate with stacks that show cells")
    return image
