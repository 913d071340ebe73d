"""Quantiles of grey values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def quantiles(values: NDArray[Any], shares: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles as ``numpy.quantile`` has them; small integers are counted, which is much faster.

    Parameters
    ----------
    values : ndarray, any real dtype
        At least one.
    shares : sequence of float
        From 0 to 1.

    Returns
    -------
    ndarray, float64
    """
    if values.dtype.kind != "u" or values.dtype.itemsize > 2:
        return np.asarray(np.quantile(values, shares), np.float64)
    below = np.cumsum(np.bincount(values.ravel()))  # how many are as dark as each value, or darker
    places = np.asarray(shares) * (values.size - 1)
    low = np.searchsorted(below, np.floor(places), side="right")
    high = np.searchsorted(below, np.ceil(places), side="right")
    return np.asarray(low + (high - low) * (places % 1), np.float64)
