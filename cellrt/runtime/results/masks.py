"""The mask of each cell of an image, whole also where others cover it.

Masks may overlap, labels cannot: so many label images as it takes, each of cells that do not, hold
them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import minimum_spanning_tree

# Radius of the disc that closes a gap, in gaps: a small one leaves a bridge that is too thin.
_WIDE = 2.0
_EIGHT = np.ones((3, 3), bool)


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


def masks_of(labels: NDArray[np.integer[Any]]) -> dict[int, Mask]:
    """The mask of each label of an image (y, x), as the labels have it."""
    found = enumerate(ndimage.find_objects(labels), 1)
    return {label: Mask(box, labels[box] == label) for label, box in found if box is not None}


def whole_masks(labels: NDArray[np.integer[Any]]) -> dict[int, Mask]:
    """The mask of each label of an image (y, x), with what lies under others between its parts.

    A label in several parts is a cell that others cross. Its parts are closed morphologically,
    with a disc whose radius is twice the distance at which they become one: what that adds belongs
    to the cell as far as it is other cells' and joins parts. What a cell covers at another one's
    end is not known, and stays the upper one's alone.

    Examples
    --------
    >>> masks = whole_masks(np.array([[1, 1, 1, 2, 1, 1, 1]] * 5))
    >>> masks[1].inside[2].tolist()
    [True, True, True, True, True, True, True]
    >>> masks[2].inside.sum().item()
    5
    """
    return {label: _completed(mask, label, labels) for label, mask in masks_of(labels).items()}


def _completed(mask: Mask, label: int, labels: NDArray[np.integer[Any]]) -> Mask:
    parts, count = ndimage.label(mask.inside, _EIGHT)
    if count < 2:
        return mask
    radius = _WIDE * _gap(parts, count)
    room = 2 * int(radius) + 4
    dilated = ndimage.distance_transform_edt(~np.pad(mask.inside, room)) <= radius
    closed = ndimage.distance_transform_edt(dilated) > radius
    here = labels[mask.box]
    added, _ = ndimage.label(closed[room:-room, room:-room] & (here > 0) & (here != label), _EIGHT)
    inside = mask.inside.copy()
    for addition, box in enumerate(ndimage.find_objects(added), 1):
        near = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        one = added[near] == addition
        beside = parts[near][ndimage.binary_dilation(one, _EIGHT)]
        if np.unique(beside[beside > 0]).size > 1:
            inside[near] |= one
    return Mask(mask.box, inside)


def _gap(parts: NDArray[np.integer[Any]], count: int) -> float:
    """Distance in pixels that has to be bridged for all parts to be one."""
    between = np.zeros((count, count))
    for part in range(1, count):
        away = ndimage.distance_transform_edt(parts != part)
        between[part - 1, part:] = ndimage.minimum(away, parts, np.arange(part + 1, count + 1))
    return float(minimum_spanning_tree(between).max())


def layers_of(masks: Mapping[int, Mask], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Put each mask into the first layer where it meets no other.

    Parameters
    ----------
    masks : mapping of int to Mask
        By label.
    shape : (int, int)
        Of the image, (y, x).

    Returns
    -------
    (layer, y, x) int32 array
        0 is background; at least one layer. No label is in two of them.

    Examples
    --------
    >>> everywhere = (slice(0, 1), slice(0, 3))
    >>> rows = {1: [1, 1, 0], 2: [0, 1, 1], 5: [0, 0, 1]}
    >>> masks = {label: Mask(everywhere, np.array([row], bool)) for label, row in rows.items()}
    >>> layers_of(masks, (1, 3)).tolist()
    [[[1, 1, 5]], [[0, 2, 2]]]
    """
    layers = [np.zeros(shape, np.int32)]
    for label, (box, inside) in masks.items():
        layer = next((layer for layer in layers if not layer[box][inside].any()), None)
        if layer is None:
            layer = np.zeros(shape, np.int32)
            layers.append(layer)
        layer[box][inside] = label
    return np.stack(layers)
