"""What a model card is made of: the rule of intensities, outputs, data, scores, and more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOCAL_BRIGHTNESS_VERSION = 1


@dataclass(frozen=True)
class Normalisation:
    """Percentiles of the whole image that are mapped to 0 and 1 before the network sees it."""

    low_percentile: float = 1.0
    high_percentile: float = 99.8


@dataclass(frozen=True)
class LocalBrightness:
    """Background becomes 0 and a typical cell about 1, both followed through the image.

    Defects (fill, hot pixels, slices that fell out of line) are mended before; see
    :mod:`cellrt.runtime.grid.brightness` and :mod:`cellrt.runtime.grid.defects`.

    Parameters
    ----------
    diameter_voxels : float
        Cell diameter on the model's grid: what is local.
    version : int
        Of the rule. A network is used with the version it was trained with.
    """

    diameter_voxels: float
    version: int = LOCAL_BRIGHTNESS_VERSION


@dataclass(frozen=True)
class Confidence:
    """How far to trust cells, and a stack: two logistic regressions on what a decoder saw.

    Each maps terms to their weights: ``"constant"``, or how a piece of evidence or a column of the
    table enters and its name, as in ``"logit probability"`` or ``"plain touches_border"``; see
    :mod:`cellrt.runtime.results.confidence`.

    Parameters
    ----------
    cell : dict of str to float
        Gives the probability that a cell matches a true one at an IoU of 0.5.
    stack : dict of str to float
        Gives the average precision to be expected at an IoU of 0.5. The mean confidence of the
        stack's cells is evidence, too, as ``mean_confidence``.
    data : str
        What it was fitted on.
    """

    cell: dict[str, float]
    stack: dict[str, float]
    data: str


@dataclass(frozen=True)
class Guides:
    """Waves ``sin(2 pi (f . p) + phase)`` of a pixel's position p (y, x) in the whole image.

    The mean of each over an object's pixels is the object's place in the embedding space. A network
    says it of each pixel, told how far each wave has turned where a tile begins; or it says how the
    mean of ``exp(2 pi i (f . q))`` over the object looks from p, and the decoder turns that.

    Parameters
    ----------
    frequencies : tuple of (float, float)
        Along (y, x), in cycles per pixel of the model's grid.
    phases : tuple of float
        In radians.
    margin : float
        L1 distance that was wanted between any two objects of an image.
    smallest_l1, smallest_l2 : float
        L1 and Euclidean distance of the closest two objects of any training image.
    hinge_loss : float
        Mean by which pairs of objects of the training images lie closer than the margin.
    """

    frequencies: tuple[tuple[float, float], ...]
    phases: tuple[float, ...]
    margin: float
    smallest_l1: float
    smallest_l2: float
    hinge_loss: float


@dataclass(frozen=True)
class Output:
    """One output tensor of the graph, ``(n, channels, z, y, x)``, and what its channels are."""

    name: str
    channels: tuple[str, ...]


def predicts_shapes(channels: Sequence[str]) -> bool:
    """Whether all channels after the first are coefficients of harmonics, or radii."""
    return len(channels) > 1 and all(name.startswith(("c_", "radius_")) for name in channels[1:])


@dataclass(frozen=True)
class TrainingData:
    """A data set the weights have seen, or grew from."""

    name: str
    source: str
    licence: str


@dataclass(frozen=True)
class Score:
    """A measured figure. ``seen`` is true where the model was trained on the same data."""

    data: str
    metric: str
    value: float
    seen: bool = False


@dataclass(frozen=True)
class Golden:
    """A reproducible input and the output that the exporting machine computed for it.

    The input is :func:`cellrt.runtime.model.golden.golden_input` of ``shape``; both hashes are
    SHA-256 over C-ordered float32 bytes. Engines differ in the last bits, so the check of an
    installed engine compares ``output_mean`` (one value per output channel) within ``tolerance``.
    """

    shape: tuple[int, int, int]
    input_sha256: str
    output_sha256: str
    output_mean: tuple[float, ...]
    tolerance: float = 1e-3
