"""Masks that overlap, as a stack of label images none of which holds two that do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Mask(NamedTuple):
    """Pixels of one cell.

    Attributes
    ----------
    box : (slice, slice)
        Part of the image, along (y, x), outside of which it has none.
    inside : bool array of that shape
    """

    box: tuple[slice, slice]
    inside: NDArray[np.bool_]


def layers_of(masks: Iterable[Mask], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Put each mask into the first layer where it meets no other.

    Parameters
    ----------
    masks : iterable of Mask
        In the order of their labels, which count from 1. One without a pixel takes up its number.
    shape : (int, int)
        Of the image, (y, x).

    Returns
    -------
    (layer, y, x) int32 array
        0 is background; at least one layer. No label is in two of them.

    Examples
    --------
    >>> everywhere = (slice(0, 1), slice(0, 3))
    >>> rows = [1, 1, 0], [0, 1, 1], [0, 0, 1]
    >>> layers_of([Mask(everywhere, np.array([row], bool)) for row in rows], (1, 3)).tolist()
    [[[1, 1, 3]], [[0, 2, 2]]]
    """
    layers = [np.zeros(shape, np.int32)]
    for label, (box, inside) in enumerate(masks, 1):
        free = (layer for layer in layers if not layer[box][inside].any())
        layer = next(free, None)
        if layer is None:
            layer = np.zeros(shape, np.int32)
            layers.append(layer)
        layer[box][inside] = label
    return np.stack(layers)
