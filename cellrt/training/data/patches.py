"""Patches for training: drawn from stacks, augmented, with their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cellrt.training.data.augment import Geometry, acquire, draw_geometry, sample_patch
from cellrt.training.data.stacks import Stack
from cellrt.training.recipe import Recipe

Sample = tuple[Tensor, Tensor, Tensor]


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
    targets are the method's.
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
        margin = recipe.targets.margin_voxels
        centre = _patch_centre(stack, shape, recipe.optim.anywhere, rng)
        if self.augmented:
            geometry = draw_geometry(centre, recipe.augment, rng)
        else:
            geometry = Geometry(np.round(centre) + 0.5, np.eye(3), np.zeros((3, 5, 5, 5)))
        mirrored = bool(rng.random() < 0.6)
        image, labels = sample_patch(
            stack.image, stack.labels, geometry, shape, margin, mirrored=mirrored
        )
        if self.augmented:
            image = acquire(image, recipe.augment, rng)
        targets = self._method.targets(labels)
        inner = tuple(slice(margin, margin + size) for size in shape)
        fields = (slice(None), *inner)
        return (
            image[None].contiguous(),
            torch.from_numpy(np.ascontiguousarray(targets[fields])),
            torch.from_numpy(np.ascontiguousarray(labels[inner])),
        )


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
    return np.where(size > 2 * reach, np.clip(centre, reach, size - reach), size / 2)
