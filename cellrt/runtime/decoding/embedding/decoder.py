"""The decoder of pixel embeddings, as the stages use it: mean shift, plane by plane."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from cellrt.compiled import compiled
from cellrt.errors import InputError
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import (
    Block,
    Decoded,
    Decoder,
    Evidence,
    Family,
    Merging,
    Mode,
    Outputs,
    Place,
    WholeCollector,
    check_size,
)
from cellrt.runtime.decoding.classes.class_map import BACKGROUND, FOREGROUND
from cellrt.runtime.decoding.classes.clean_up import CleanUpParameters, clean_up
from cellrt.runtime.decoding.embedding.clusters import cluster_pixels
from cellrt.runtime.decoding.embedding.objects import objects_of
from cellrt.runtime.decoding.embedding.waves import turn_waves
from cellrt.runtime.decoding.labels.upsample import upsample_cells

if TYPE_CHECKING:
    from cellrt.runtime.model.card_parts import Guides

HERE = Place("CPU", "embeddings are decoded there")

# Kept values are whole multiples of 1/8192, between -4 and 4.
_STEP = 1 / 8192


@dataclass(frozen=True, kw_only=True)
class EmbeddingParameters(CleanUpParameters):
    """How embeddings become objects; lengths are in pixels of the model's own grid.

    Attributes
    ----------
    bandwidth : float
        Radius of the mean shift's kernel in the embedding space.
    foreground_threshold : float
        Pixels with a smaller foreground probability are background.
    join_distance : float
        Parts of one cluster whose nearest pixels lie no farther apart are one object, others are
        different objects; at most 64.
    min_radius : float
        Objects of a smaller area than the disc of this radius are dropped; their pixels go to the
        nearest object.
    reach : float
        Pixels of dropped objects farther than this from every other become background; at most 63.

    Raises
    ------
    InputError
        A value outside of its range; the message names it.
    """

    bandwidth: float = 0.5
    foreground_threshold: float = 0.5
    join_distance: float = 6.0
    min_radius: float = 2.0
    reach: float = 4.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        if not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise InputError(f"bandwidth is {self.bandwidth}; expected a number above 0")
        if not 0 <= self.foreground_threshold <= 1:
            raise InputError(
                f"foreground_threshold is {self.foreground_threshold}; expected a number from 0 "
                "to 1"
            )
        if not 0 <= self.join_distance <= 64:
            raise InputError(
                f"join_distance is {self.join_distance}; expected a number from 0 to 64"
            )


@dataclass(frozen=True)
class EmbeddingDecoder:
    """What turns embeddings and foreground into cells; see the modules beside this one.

    A pixel's embedding and foreground are kept as 16-bit numbers.

    Parameters
    ----------
    parameters : EmbeddingParameters
    dimensions : int
        Channels of the embedding, which is what the network has beside the foreground.
    guides : Guides, optional
        Of a network that says how waves look from each pixel, one for each two dimensions. Other
        networks say the embedding itself.
    """

    parameters: EmbeddingParameters
    dimensions: int
    guides: Guides | None = None

    name: ClassVar[str] = "embedding"
    modes: ClassVar[tuple[Mode, ...]] = ("fast",)
    merging: ClassVar[Merging] = "weighted"
    merged: ClassVar[slice] = slice(None)
    size_weight: ClassVar[float] = 1.0

    @property
    def kept_bytes(self) -> int:
        """Memory per pixel of what is kept."""
        return 2 * (self.dimensions + 1)

    @property
    def working_bytes(self) -> int:
        """Memory per pixel while all of a plane is decoded at once, every pixel a foreground."""
        return self.kept_bytes + 3 * self.dimensions + 16

    @property
    def promised_bytes(self) -> int:
        """Memory per pixel that a run stays within, besides 1 GB."""
        return self.working_bytes

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        fields = np.zeros((self.dimensions + 1, 1, 12, 24), np.float32)
        fields[-1, :, 1:11, 1:23] = 1
        fields[:-1, :, :, 12:] = 2 * self.parameters.bandwidth
        collector = self.collector((1, 12, 24))
        collector.add(Block(slice(0, 1), slice(0, 12), fields))
        kept = collector.kept()
        self.to_grid(self.decode(kept, mode="fast"), kept, (1, 13, 25))

    def collector(self, shape: Shape) -> WholeCollector:
        """Keep embedding and foreground in an int16 array (z, y, x, dimensions + 1)."""
        return _EmbeddingCollector(np.empty((*shape, self.dimensions + 1), np.int16), self.guides)

    def decode(self, kept: npt.NDArray[Any], *, mode: Mode) -> Decoded:
        """Labels on the model's grid; every plane is an image of its own."""
        check_size(kept.shape[:3])
        labels = np.zeros(kept.shape[:3], np.int32)
        count = 0
        for plane, target in zip(kept, labels, strict=True):
            found = self._decode_plane(plane)
            target[...] = np.where(found > 0, found + count, 0)
            count += int(found.max(initial=0))
        return Decoded(labels, HERE, self._evidence(labels, kept, count))

    def _evidence(
        self, labels: npt.NDArray[np.int32], kept: npt.NDArray[Any], count: int
    ) -> Evidence:
        errors, inside = self._errors(labels, kept), self._inside(kept)
        cell = labels[labels > 0]
        pixels = np.maximum(np.bincount(cell, minlength=count + 1), 1)
        probability = np.clip(kept[..., -1][labels > 0] * _STEP, 0, 1)
        return Evidence(
            {
                "embedding_error": np.bincount(cell, errors, count + 1) / pixels,
                "probability": np.bincount(cell, probability, count + 1) / pixels,
            },
            {
                "embedding_error": float(errors.mean()) if errors.size else 0.0,
                "missed": int(np.count_nonzero(inside & (labels == 0))) / max(cell.size, 1),
            },
        )

    def _decode_plane(self, plane: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
        inside = self._inside(plane)
        clusters = cluster_pixels(plane[..., :-1], inside, self.parameters.bandwidth / _STEP)
        labels = objects_of(clusters, self.parameters.join_distance)[None]
        classes = np.where(inside, np.uint8(FOREGROUND), np.uint8(BACKGROUND))[None]
        clean_up(labels, classes, self.parameters)
        only: npt.NDArray[np.int32] = labels[0]
        return only

    def to_grid(self, decoded: Decoded, kept: npt.NDArray[Any], shape: Shape) -> Decoded:
        """Interpolate masks and foreground; embeddings between two cells are those of a third."""
        threshold = self.parameters.foreground_threshold / _STEP
        return replace(
            decoded, labels=upsample_cells(decoded.labels, kept[..., -1], threshold, shape)
        )

    def agreement(self, decoded: Decoded, kept: npt.NDArray[Any]) -> float:
        """How close embeddings are to the mean of their cell's, in bandwidths, 1 minus.

        Of pixels of the foreground in no cell it is 0, as of those a bandwidth away.
        """
        pixels = np.count_nonzero(self._inside(kept) | (decoded.labels > 0))
        errors = self._errors(decoded.labels, kept)
        return float((1 - errors).sum() / max(pixels, 1))

    def _inside(self, kept: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = (
            kept[..., -1] >= self.parameters.foreground_threshold / _STEP
        )
        return inside

    def _errors(
        self, labels: npt.NDArray[np.int32], kept: npt.NDArray[np.int16]
    ) -> npt.NDArray[np.float32]:
        """Distance in bandwidths, at most 1, of cells' pixels from the mean of their cell."""
        errors = np.empty(np.count_nonzero(labels), np.float32)
        means = np.zeros((int(labels.max(initial=0)) + 1, self.dimensions))
        _distances(labels, kept, self.parameters.bandwidth / _STEP, means, errors)
        return errors


@compiled
def _distances(labels: Any, kept: Any, bandwidth: Any, means: Any, errors: Any) -> None:
    """Write errors of pixels in cells, one after the other; `means` is room for those of cells."""
    pixels = np.zeros(means.shape[0], np.int64)
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                cell = labels[z, y, x]
                if cell > 0:
                    pixels[cell] += 1
                    for k in range(means.shape[1]):
                        means[cell, k] += kept[z, y, x, k]
    for cell in range(1, means.shape[0]):
        for k in range(means.shape[1]):
            means[cell, k] /= max(pixels[cell], 1)
    index = 0
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                cell = labels[z, y, x]
                if cell > 0:
                    square = 0.0
                    for k in range(means.shape[1]):
                        square += (kept[z, y, x, k] - means[cell, k]) ** 2
                    errors[index] = min(math.sqrt(square) / bandwidth, 1.0)
                    index += 1


class _EmbeddingCollector(WholeCollector):
    """Keeps embedding and foreground; of waves, what they are in the whole image."""

    def __init__(self, kept: npt.NDArray[np.int16], guides: Guides | None) -> None:
        super().__init__(kept, _keep)
        self._guides = guides

    def add(self, block: Block) -> None:
        """See `Collector`."""
        if self._guides is None:
            super().add(block)
        else:
            turn_waves(
                block.fields, block.y.start, self._guides, _STEP, self._kept[block.z, block.y]
            )


def _keep(kept: npt.NDArray[np.int16], fields: npt.NDArray[np.float32]) -> None:
    for channel, field in enumerate(fields):
        kept[..., channel] = np.rint(np.clip(field / _STEP, -32768, 32767))


def embedding_outputs(dimensions: int) -> tuple[str, ...]:
    """What the channels of an embedding network are called."""
    return (*(f"embedding {k}" for k in range(dimensions)), "foreground")


def wave_outputs(dimensions: int) -> tuple[str, ...]:
    """The same for one that says how the waves of objects look from each pixel."""
    parts = (f"{part} {k}" for part in ("real", "imaginary") for k in range(dimensions))
    return (*parts, "foreground")


def _fits(channels: tuple[str, ...]) -> bool:
    count = len(channels) - 1
    return count > 0 and channels in (embedding_outputs(count), wave_outputs(count // 2))


def _make(parameters: EmbeddingParameters, outputs: Outputs, keep_to_cpu: str) -> Decoder:
    count = len(outputs.channels) - 1
    if outputs.channels == embedding_outputs(count):
        return EmbeddingDecoder(parameters, count)
    if outputs.guides is None:
        raise InputError("the model card has no guides, by which waves become embeddings")
    return EmbeddingDecoder(parameters, count, outputs.guides)


EMBEDDING = Family(
    "embedding",
    "embedding 0, embedding ..., foreground, or real 0, ..., imaginary 0, ..., foreground",
    _fits,
    EmbeddingParameters,
    _make,
)
