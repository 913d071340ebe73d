"""Tiles that show a network what it will see: from stacks, or simulated. No torch here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import InputError
from cellrt.runtime.cell_size_search import refine_scale
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
        Up to `PER_STACK` a stack, 64 voxels along every axis (fewer never: mirrored), those with
        the strongest contrast.

    Raises
    ------
    InputError
        A file that cannot be read, one slice instead of a stack, a constant image.
    """
    tiles: list[Tile] = []
    for path in paths:
        image = _model_image(path, model)
        edge = _edge(model.card)
        starts = itertools.product(*(range(0, max(1, n - edge // 2), edge) for n in image.shape))
        found = []
        for start in starts:
            z, y, x = start
            found.append(image.read((z, y, x), (z + edge, y + edge, x + edge))[None, None])
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
    list of (1, 1, 64, 64, 64) float32 arrays
        Normalised; different styles take turns.
    """
    assert set(_STYLES) == set(KINDS)
    assert all(set(styles) <= set(STYLES[kind]) for kind, styles in _STYLES.items())
    if card.target not in _STYLES:
        raise InputError(
            f"no stacks of {card.target!r} can be simulated; give some with --calibrate"
        )
    edge = _edge(card)
    tiles = []
    for index in range(count):
        stack = simulate_style(
            card.target,
            _STYLES[card.target][index % 3],
            index=index,
            seed=seed,
            shape=(edge, edge, edge),
            diameter_voxels=card.diameter_voxels,
        )
        image = prepare_image(stack.image, (edge, edge, edge), card.normalisation)
        tiles.append(image.read((0, 0, 0), image.shape)[None, None])
    return tiles


def _edge(card: ModelCard) -> int:
    return math.ceil(EDGE / card.multiple) * card.multiple


def _model_image(path: str | Path, model: ModelFile) -> ModelImage:
    """Read a stack and bring it to the model's grid; the scale is found as for segmenting."""
    card = model.card
    volume = read_volume(path)
    if volume.is_2d:
        raise InputError(f"{path} has one slice; calibrate with stacks (z, y, x)")
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
    image = prepare_image(seen, scale.model_shape(volume.shape, card), card.normalisation)
    if image.is_constant:
        raise InputError(f"{path} is constant; calibrate with stacks that show cells")
    return image
