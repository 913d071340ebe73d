"""Patches for training: drawn from stacks, augmented, with their targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cellrt.geometry import Shape, across_planes
from cellrt.runtime.grid.brightness import BrightnessMeter
from cellrt.training.data.accidents import Scene
from cellrt.training.data.augment import (
    Geometry,
    acquire,
    beyond,
    change_contrast,
    draw_geometry,
    sample_patch,
)
from cellrt.training.data.stacks import Stack
from cellrt.training.recipe import Recipe

Sample = tuple[Tensor, Tensor, Tensor]

# Cells around a patch on which its brightness is measured as well.
_SURROUNDINGS = 1.25
# Above and below a single plane of a stack.
_PLANAR_SURROUNDINGS = 0.5
# Share of patches whose reference is the stack's; and the camera's largest offset, in units of
# cells.
_WHOLE_STACK = 0.4
_LARGEST_OFFSET = 4.0


class PatchDataset(Dataset[Sample]):
    """An endless set of patches: item ``i`` depends only on the recipe's seed and on ``i``.

    Parameters
    ----------
    stacks : sequence of Stack
    recipe : Recipe
    augmented : bool
        False gives plain, unturned crops, for validation.

    Notes
    -----
    An item is ``(image (1, z, y, x), targets (channels, z, y, x), labels (z, y, x))``; the
    targets are the method's, as fine as its network's output.
    """

    def __init__(self, stacks: Sequence[Stack], recipe: Recipe, *, augmented: bool = True) -> None:
        self.stacks = list(stacks)
        self.recipe = recipe
        self.augmented = augmented
        self._method = recipe.method()
        weights = np.array([stack.weight for stack in self.stacks])
        self._cumulated = np.cumsum(weights / weights.sum())

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> Sample:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.optim.seed, index, int(self.augmented)])
        chosen = min(int(np.searchsorted(self._cumulated, rng.random())), len(self.stacks) - 1)
        stack = self.stacks[chosen]
        shape = recipe.optim.patch_voxels
        flat = len(stack.image) == 1
        margin = recipe.targets.margin_voxels
        centre = _patch_centre(stack, shape, recipe.optim.anywhere, rng)
        if self.augmented:
            geometry = draw_geometry(centre, recipe.augment, rng, flat=flat)
        else:  # voxels of patch and stack fall on each other
            middle = np.round(centre) + 0.5 * (1 - np.array(shape) % 2)
            geometry = Geometry(middle, np.eye(3), np.zeros((3, 5, 5, 5)))
        mirrored = bool(rng.random() < 0.6)
        # Brightness is measured on more than the patch, as in a stack; labels beyond it tell
        # where the centre of a cut cell is.
        wide = math.ceil(_SURROUNDINGS * recipe.model.nominal_diameter_voxels)
        around = across_planes(
            max(margin, wide),
            recipe.model.planar,
            0 if flat else math.ceil(_PLANAR_SURROUNDINGS * recipe.model.nominal_diameter_voxels),
        )
        outer = _sum(_sum(shape, around), around)
        light, labels = sample_patch(
            stack.image, stack.labels, geometry, outer, 0, mirrored=mirrored
        )
        scene = Scene(
            light.numpy(), labels, beyond(light), float(rng.uniform(0, 1) ** 2 * _LARGEST_OFFSET)
        )
        scene.image[scene.fill] = 0
        if self.augmented:
            acquire(scene, recipe.augment, rng)
        inner = tuple(slice(a, a + size) for a, size in zip(around, shape, strict=True))
        image = torch.from_numpy(self._normalised(scene, inner, rng))
        if self.augmented:
            image = change_contrast(image, recipe.augment, rng)
        margins = across_planes(margin, recipe.model.planar, 0)
        wider = tuple(
            slice(a - m, a + size + m) for a, m, size in zip(around, margins, shape, strict=True)
        )
        targets = self._method.targets(scene.labels[wider], margin)
        return (
            image[None].contiguous(),
            torch.from_numpy(np.ascontiguousarray(targets)),
            torch.from_numpy(np.ascontiguousarray(scene.labels[inner])),
        )

    def _normalised(
        self, scene: Scene, inner: tuple[slice, ...], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        meter = BrightnessMeter(scene.image.shape, self.recipe.model.nominal_diameter_voxels)
        for z, plane in enumerate(scene.image):
            meter.add(z, plane, scene.fill[z])
        # In a stack the typical cell is that of the whole stack, often brighter or dimmer than
        # what is near.
        whole = self.augmented and rng.random() < _WHOLE_STACK
        brightness = meter.measure(1.0 if whole else None)
        start = tuple(s.start for s in inner)
        return brightness.normalise(scene.image[inner], start, scene.fill[inner])


class StepSampler(Sampler[int]):
    """Item numbers in order from a given step on, each process its own: a resumed run goes on.

    Parameters
    ----------
    first_step, batch, rank, processes : int
        Step to start at, items per step and process, this process's number, processes in all.
    """

    def __init__(self, first_step: int, batch: int, rank: int = 0, processes: int = 1) -> None:
        self.first_step = first_step
        self.batch = batch
        self.rank = rank
        self.processes = processes

    def __iter__(self) -> Iterator[int]:
        step = self.first_step
        while True:
            first = (step * self.processes + self.rank) * self.batch
            yield from range(first, first + self.batch)
            step += 1


def _patch_centre(
    stack: Stack, shape: tuple[int, int, int], anywhere: float, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Pick a voxel in or near a cell, or anywhere, drawn inwards so that little lies outside."""
    size = np.array(stack.image.shape, float)
    if rng.random() >= anywhere and len(stack.centres):
        centre = stack.centres[rng.integers(len(stack.centres))].astype(float)
        centre += rng.uniform(-0.25, 0.25, 3) * shape
    else:
        centre = rng.uniform(0, size)
    # Half of the patches may stick out by up to a quarter: the runtime meets such borders too.
    reach = np.array(shape) * (0.5 if rng.random() < 0.5 else 0.25)
    centre = np.where(size > 2 * reach, np.clip(centre, reach, size - reach), size / 2)
    if len(stack.image) == 1:
        centre[0] = 0  # in the plane, not beside it
    return centre


def _sum(first: Shape, second: Shape) -> Shape:
    z, y, x = (a + b for a, b in zip(first, second, strict=True))
    return z, y, x
