"""The input every machine can make, and how far from a card's output an engine is on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cellrt.runtime.model.card_parts import Golden

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


def golden_difference(golden: Golden, infer: Callable[[Any], Any]) -> float:
    """Largest difference between the mean of an output channel and the one a card stores."""
    import numpy as np

    means = infer(golden_input(golden.shape)).mean(axis=(0, 2, 3, 4))
    return float(np.abs(means - golden.output_mean).max())
