"""Scores during training: the averaged network on whole validation stacks, decoded into cells."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F

from cellrt.models.layers.network import Network
from cellrt.runtime.decoding.base import decode_fields
from cellrt.runtime.decoding.registry import decoder_for, family_names
from cellrt.training.card import make_card
from cellrt.training.data.patches import PatchDataset
from cellrt.training.data.stacks import Stack, normalised
from cellrt.training.recipe import Recipe
from cellrt.wording import counted

_LOSS_PATCHES = 8


def predict_stack(net: Network, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Run a network on a whole stack of the model grid.

    Parameters
    ----------
    net : Network
    image : (z, y, x) array
        Normalised intensities.

    Returns
    -------
    (channels, z, y, x) float32 array
        As fine as the network's output is.
    """
    device = next(net.parameters()).device
    pixels = torch.from_numpy(np.asarray(image, np.float32))[None, None].to(device)
    padding = [(-n) % step for n, step in zip(image.shape, net.size_multiples, strict=True)]
    pixels = F.pad(pixels, (0, padding[2], 0, padding[1], 0, padding[0]))
    with torch.inference_mode():
        fields = net(pixels)[0]
    z, y, x = (-(-size // net.output_stride) for size in image.shape)
    return np.ascontiguousarray(fields[:, :z, :y, :x].float().cpu().numpy())


def score_labels(
    labels: npt.NDArray[np.int32], truth: npt.NDArray[np.int32]
) -> tuple[float, float]:
    """Return mean Dice and AP at IoU 0.5; voxels of unknown label are left out."""
    from cellrt.evaluation.scores import evaluate

    known = truth >= 0
    scores = evaluate(np.where(known, labels, 0), np.where(known, truth, 0))
    return scores.mean_dice, scores.at(0.5).average_precision


class ScoreCallback(Callback):  # type: ignore[misc]
    """Every few minutes, report the loss on held-back patches and scores on held-back stacks."""

    def __init__(
        self, stacks: Sequence[Stack], recipe: Recipe, report: Callable[[str], None]
    ) -> None:
        self.stacks = list(stacks)
        self.recipe = recipe
        self.report = report
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Score when it is time."""
        if time.monotonic() - self._last < 60 * self.recipe.optim.score_minutes:
            return
        self._score(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the final weights."""
        self._score(trainer, pl_module)

    def _score(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._last = time.monotonic()
        if not self.stacks or not trainer.is_global_zero:
            return
        net = module.averaged
        loss = self._patch_loss(net)
        chosen = self._chosen()
        results: list[tuple[float, float]] = []
        if chosen and self.recipe.method().decoder in family_names():
            decoder = decoder_for(make_card(net, self.recipe, self.recipe.name))
            nominal = self.recipe.model.nominal_diameter_voxels
            for stack in chosen:
                fields = predict_stack(net, normalised(stack, nominal))
                labels = decode_fields(fields, decoder, net.output_stride)
                z, y, x = stack.labels.shape
                results.append(score_labels(labels[:z, :y, :x], stack.labels))
        text = f"validation: loss {loss:.4f}"
        metrics = {"val_loss": loss}
        if results:
            dice, ap = np.mean(results, axis=0)
            text += f"  mean Dice {dice:.3f}  AP50 {ap:.3f} on {counted(len(results), 'stack')}"
            metrics |= {"val_dice": float(dice), "val_ap50": float(ap)}
        if trainer.logger is not None:
            trainer.logger.log_metrics(metrics, trainer.global_step)
        self.report(text)

    def _chosen(self) -> list[Stack]:
        """Pick stacks evenly: neighbours in the list are often times of one specimen."""
        count = min(self.recipe.optim.score_stacks, len(self.stacks))
        return [self.stacks[(2 * i + 1) * len(self.stacks) // (2 * count)] for i in range(count)]

    def _patch_loss(self, net: Network) -> float:
        data = PatchDataset(self.stacks, self.recipe, augmented=False)
        method = self.recipe.method()
        device = next(net.parameters()).device
        total = 0.0
        for index in range(_LOSS_PATCHES):
            image, targets, labels = (tensor[None].to(device) for tensor in data[index])
            with torch.inference_mode():
                losses = method.losses(net.learned(image), targets, labels)
            total += float(losses["loss"])
        return total / _LOSS_PATCHES
