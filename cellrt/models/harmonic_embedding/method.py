"""Method ``harmonic_embedding``, made from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.models.ground_truth import without_margin
from cellrt.models.harmonic_embedding.guide_table import GuideTable
from cellrt.models.harmonic_embedding.tables import (
    HarmonicLoss,
    HarmonicModel,
    HarmonicTargets,
)
from cellrt.runtime.decoding.embedding.decoder import embedding_outputs, wave_outputs

if TYPE_CHECKING:
    from torch import Tensor

    from cellrt.models.layers.network import Network


class HarmonicEmbeddings:
    """A place for each pixel in an embedding space; see `cellrt.models.harmonic_embedding`."""

    decoder = "embedding"

    def __init__(
        self,
        model: HarmonicModel,
        targets: HarmonicTargets,
        loss: HarmonicLoss,
        decoder: Mapping[str, Any],
    ) -> None:
        self._model, self._loss = model, loss
        outputs = wave_outputs if model.position == "turn" else embedding_outputs
        self.outputs: tuple[str, ...] = outputs(model.dimensions)
        self.decoder_parameters: dict[str, Any] = {"bandwidth": model.margin, **decoder}

    @property
    def guides(self) -> GuideTable:
        """The guides that were fitted."""
        if self._model.guides is None:
            raise InputError(
                "the recipe has no 'model.guides' yet; `cellrt train` fits them to its data"
            )
        return self._model.guides

    def network(self) -> Network:
        """Return a new U-Net."""
        from cellrt.models.harmonic_embedding.network import HarmonicEmbedding

        widths = [max(1, round(self._model.width_multiplier * w)) for w in self._model.widths]
        return HarmonicEmbedding(
            widths,
            self.guides.frequencies,
            self.guides.phases,
            position=self._model.position,
            sinconv_size=self._model.sinconv_size,
        )

    def targets(self, labels: npt.NDArray[Any], margin: int) -> npt.NDArray[np.float32]:
        """Return the waves of objects, and foreground."""
        from cellrt.models.harmonic_embedding.targets import make_targets

        targets = make_targets(labels, np.array(self.guides.frequencies), margin)
        return without_margin(targets, margin, planar=True)

    def losses(
        self, learned: tuple[Tensor, Tensor], targets: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Return the loss of embeddings and foreground, where the patches were said to lie."""
        import torch

        from cellrt.models.harmonic_embedding.discriminative import discriminative_loss
        from cellrt.models.harmonic_embedding.targets import (
            foreground_loss,
            harmonic_loss,
            places_of,
        )

        logits, turned = learned
        inside = targets[:, -1]
        if self._loss.kind == "discriminative":
            embedding = discriminative_loss(logits[:, :-1], labels)
        else:
            phases = torch.tensor(self.guides.phases, device=turned.device)
            embedding = harmonic_loss(logits[:, :-1], places_of(targets, turned, phases), inside)
        foreground = foreground_loss(logits[:, -1], inside)
        return {
            "loss": foreground + self._loss.embedding_weight * embedding,
            "foreground": foreground.detach(),
            "embedding": embedding.detach(),
        }
