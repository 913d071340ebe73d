"""The input every machine can make, and how far from a card's output an engine is on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cellrt.runtime.model.card_parts import predicts_shapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cellrt.runtime.model.card import ModelCard


def golden_input(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Make the input whose output hash a card stores.

    Returns
    -------
    ndarray, float32, shape (1, 1, z, y, x)
        Smooth, exactly representable values in 0..1 from integer arithmetic, the same on every
        machine.
    """
    import numpy as np

    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    wave = (z * 37 + y * 17 + x * 11) % 64 + (z * y + y * x + z * x) % 64
    return np.ascontiguousarray(wave[None, None].astype(np.float32) / 128)


def golden_difference(card: ModelCard, infer: Callable[[Any], Any]) -> float:
    """Largest difference between the mean of an output channel and the one a card stores.

    Of what describes a shape, in parts of the largest of these means: coefficients and radii are in
    voxels, and fp16 cannot tell 40 from 40.01.

    Parameters
    ----------
    card : ModelCard
        One with a golden output.
    infer : callable
        From an image (1, 1, z, y, x) to fields (1, channels, z, y, x).
    """
    import numpy as np

    assert card.golden is not None
    means = infer(golden_input(card.golden.shape)).mean(axis=(0, 2, 3, 4))
    stored = np.asarray(card.golden.output_mean)
    difference = np.abs(means - stored)
    if predicts_shapes(card.outputs[0].channels):
        difference[1:] /= max(1.0, np.abs(stored[1:]).max())
    return float(difference.max())
