"""Load all stacks of a recipe onto the model grid and keep them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.models.ground_truth import UNKNOWN
from cellrt.runtime.grid.brightness import Brightness, measure_brightness
from cellrt.runtime.grid.scale import slab_planes
from cellrt.training.data.grid import median_diameter_um, zoom_image, zoom_labels
from cellrt.training.data.pairs import find_pairs, read_stack
from cellrt.training.data.simulated import drawn_from_labels, simulated_stacks
from cellrt.training.recipe import DataTable, Recipe

_CENTRES = 20_000
_BRIGHTEST = 500.0
_DARKEST = -3.0  # above what `augment.beyond` takes for no image
_CROWDED = 50  # more cells in a stack do not make it count for more


@dataclass(frozen=True)
class Stack:
    """A labelled stack on the model grid.

    Attributes
    ----------
    name : str
    image : (z, y, x) float16 array
        Light above the background, in units of a typical cell's peak.
    labels : (z, y, x) int32 array
        Cells above 0, background 0, unknown -1.
    centres : (n, 3) int16 array
        Random voxels inside cells, where patches are centred; none in a stack without cells.
    weight : float
        How often patches come from here, relative to the other stacks.
    """

    name: str
    image: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int32]
    centres: npt.NDArray[np.int16]
    weight: float


def load_training_stacks(recipe: Recipe) -> list[Stack]:
    """Load every ``[[data]]`` and ``[[simulate]]`` stack of a recipe.

    A table's weight is shared by its stacks according to their number of cells.
    """
    stacks: list[Stack] = []
    for table in recipe.data:
        stacks += _shared(list(load_table(table, recipe)), table.weight)
    for simulate in recipe.simulate:
        drawn = [
            to_model_grid(
                f"{simulate.name}:{index}",
                image,
                labels,
                voxel_size,
                recipe,
                # Stacks without cells are drawn for cells of the nominal size.
                recipe.model.nominal_diameter_voxels * voxel_size[2]
                if simulate.kind == "empty"
                else None,
            )
            for index, (image, labels, voxel_size) in enumerate(simulated_stacks(simulate, recipe))
        ]
        stacks += _shared([stack for stack in drawn if stack is not None], simulate.weight)
    if not stacks:
        raise InputError(f"recipe '{recipe.name}': no stack with cells to train on")
    return stacks


def load_validation_stacks(recipe: Recipe) -> list[Stack]:
    """Load every ``[[validation]]`` stack of a recipe."""
    stacks = [stack for table in recipe.validation for stack in load_table(table, recipe)]
    if recipe.model.planar and any(len(stack.image) > 1 for stack in stacks):
        raise InputError(
            f"recipe '{recipe.name}': a planar network is scored on single slices; leave stacks "
            "out of [[validation]]"
        )
    return stacks


def load_table(table: DataTable, recipe: Recipe) -> Iterator[Stack]:
    """Yield the stacks of one table, on the model grid."""
    for image_address, label_address in find_pairs(table, recipe.folder):
        labels = _clean_labels(read_stack(label_address), table)
        name = f"{table.name}:{Path(label_address).name}"
        if image_address is None:
            for index, (image, drawn, voxel_size) in enumerate(
                drawn_from_labels(labels, table, recipe)
            ):
                stack = to_model_grid(f"{name}:{index}", image, drawn, voxel_size, recipe)
                if stack is not None:
                    yield stack
            continue
        image = _cropped(read_stack(image_address), table)
        if image.shape != labels.shape:
            raise InputError(
                f"{image_address}: shape {image.shape}, its labels {labels.shape}; must be equal"
            )
        stack = to_model_grid(name, image, labels, table.voxel_size_um, recipe, table.diameter_um)
        if stack is not None:
            yield stack


def to_model_grid(
    name: str,
    image: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    voxel_size_um: Sequence[float],
    recipe: Recipe,
    diameter_um: float | None = None,
) -> Stack | None:
    """Normalise a stack and resample it so that its median cell has the nominal diameter.

    Returns
    -------
    Stack or None
        None when there is no cell in it and no diameter is given.
    """
    diameter = diameter_um or median_diameter_um(labels, voxel_size_um)
    if diameter == 0:
        return None
    voxel_um = diameter / recipe.model.nominal_diameter_voxels
    zoom = [size / voxel_um for size in voxel_size_um]
    if len(image) == 1:
        zoom[0] = 1.0
    on_grid = zoom_labels(labels, zoom)
    centres = np.argwhere(on_grid > 0)
    if not len(centres) and diameter_um is None:
        return None
    rng = np.random.default_rng(0)
    resampled = zoom_image(image, zoom)
    nominal = recipe.model.nominal_diameter_voxels
    if len(image) == 1 and not recipe.model.planar:  # as the runtime shows it to a 3D network
        slab = (slab_planes(nominal), *resampled.shape[1:])
        resampled = np.broadcast_to(resampled, slab)
        on_grid = np.broadcast_to(on_grid, slab)
        centres = np.argwhere(on_grid > 0)
    return Stack(
        name=name,
        image=_light(resampled, nominal),
        labels=on_grid,
        centres=centres[rng.integers(len(centres), size=_CENTRES if len(centres) else 0)].astype(
            np.int16
        ),
        weight=1.0,
    )


def normalised(stack: Stack, diameter_voxels: float) -> npt.NDArray[np.float32]:
    """Normalise a whole stack as the runtime does."""
    brightness = measure_brightness(enumerate(stack.image), stack.image.shape, diameter_voxels)
    return brightness.normalise(stack.image)


def _light(image: npt.NDArray[np.float32], diameter_voxels: float) -> npt.NDArray[np.float16]:
    """Grey values as light: 0 is the darkest background, 1 a typical cell."""
    shape = image.shape
    brightness: Brightness = measure_brightness(enumerate(image), shape, diameter_voxels)
    unit = brightness.reference or float(brightness.contrast.mean())
    dark = float(brightness.background.min())
    flat = image[:1] if image.strides[0] == 0 else image
    light = np.clip((flat - dark) / unit, _DARKEST, _BRIGHTEST).astype(np.float16)
    return np.broadcast_to(light, shape)


def _shared(stacks: list[Stack], weight: float) -> list[Stack]:
    """Share a table's weight by cells: crowded stacks, the hard ones, are seen more often."""
    cells = [min(_CROWDED, 1 + len(np.unique(s.labels[s.labels > 0]))) for s in stacks]
    return [
        replace(stack, weight=weight * count / sum(cells))
        for stack, count in zip(stacks, cells, strict=True)
    ]


def _cropped(array: npt.NDArray[Any], table: DataTable) -> npt.NDArray[Any]:
    if table.crop is None:
        return array
    return array[tuple(slice(start, stop) for start, stop in table.crop)]


def _clean_labels(labels: npt.NDArray[Any], table: DataTable) -> npt.NDArray[np.int32]:
    """Number labels from 1 and mark what is unknown with -1."""
    first_plane = table.crop[0][0] if table.crop else 0
    labels = _cropped(labels, table)
    ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    new = np.zeros(len(ids), np.int32)
    cells = ids > 0
    new[cells] = np.arange(1, np.count_nonzero(cells) + 1)
    if table.ignore_background:
        new[~cells] = UNKNOWN
    new[cells & (counts < table.min_object_voxels)] = UNKNOWN
    new[np.isin(ids, table.unknown_labels)] = UNKNOWN
    clean = new[inverse].reshape(labels.shape)
    for plane in (z - first_plane for z in table.lost_planes):
        if 0 < plane < len(clean) - 1:
            below, above = clean[plane - 1], clean[plane + 1]
            clean[plane] = np.where(below == above, below, UNKNOWN)
        elif 0 <= plane < len(clean):
            clean[plane] = UNKNOWN
    return clean
