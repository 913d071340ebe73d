"""Cells of single slices: each decoded by itself, and joined to cells that go on in the next.

Two cells of neighbouring slices are one where each overlaps no other as much as this one, by at
least a given IoU: the rule that users of Cellpose know as its stitching.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.compiled import compiled
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Decoded, Decoder, Evidence, Mode, Place
from cellrt.runtime.decoding.labels.pair_table import claimed
from cellrt.runtime.decoding.labels.regions import relabel

Labels = NDArray[np.int32]


def decode_slices(
    decoder: Decoder, kept: Any, shape: Shape, *, mode: Mode, stitch: float | None = None
) -> Decoded:
    """Find the cells of every slice by itself.

    Parameters
    ----------
    decoder : Decoder
    kept : array, shape (z, y, x)
        What the decoder's collector kept of the whole stack.
    shape : (int, int, int)
        Of the image, with as many slices.
    mode : {"fast", "exact"}
    stitch : float, optional
        Smallest IoU at which cells of neighbouring slices are joined; None leaves them apart.

    Returns
    -------
    Decoded
        Labels on the image's grid, unique over the stack, in the order of their first voxel.
    """
    labels = np.zeros(shape, np.int32)
    places: list[Place] = []
    evidence: list[Evidence] = []
    warnings: list[str] = []
    lasts = [0]
    for z in range(shape[0]):
        part = kept[z : z + 1]
        decoded = decoder.decode(part, mode=mode)
        if decoded.labels.shape != (1, *shape[1:]):
            decoded = decoder.to_grid(decoded, part, (1, *shape[1:]))
        count = int(decoded.labels.max(initial=0))
        labels[z] = np.where(decoded.labels[0] > 0, decoded.labels[0] + lasts[-1], 0)
        lasts.append(lasts[-1] + count)
        places.append(decoded.place)
        warnings += decoded.warnings
        if decoded.evidence is not None:
            evidence.append(decoded.evidence)
    names = np.arange(lasts[-1] + 1, dtype=np.int32)
    sizes = np.bincount(labels.reshape(-1), minlength=lasts[-1] + 1)
    if stitch is not None:
        names = stitched_names(labels, sizes, lasts, stitch)
        relabel(labels, names)
    told = _joined(evidence, names, sizes, lasts) if len(evidence) == shape[0] else None
    # Where one slice had to go to the CPU, that is what there is to tell.
    place = next((place for place in places if place.fell_back), places[0])
    return Decoded(labels, place, told, tuple(dict.fromkeys(warnings)))


def stitched_names(
    labels: Labels, sizes: NDArray[np.int64], lasts: list[int], least: float
) -> Labels:
    """Number the cells that slices share.

    Parameters
    ----------
    labels : (z, y, x) int32 array
        Labels that are unique over the stack and ascend with the slices.
    sizes : (n + 1,) int64 array
        Voxels of each label.
    lasts : list of int
        The largest label before each slice, and that of the last one.
    least : float
        Smallest IoU at which two are one.

    Returns
    -------
    (n + 1,) int32 array
        New label of each old one; 0 for 0.
    """
    names = np.zeros(lasts[-1] + 1, np.int32)
    used = lasts[1] if len(labels) else 0
    names[: used + 1] = np.arange(used + 1)
    for z in range(1, len(labels)):
        here = np.arange(lasts[z] + 1, lasts[z + 1] + 1)
        before, after = _partners(labels[z - 1], labels[z], sizes, least)
        names[after] = names[before]
        new = here[names[here] == 0]
        names[new] = used + 1 + np.arange(len(new))
        used += len(new)
    return names


def _partners(
    before: Labels, after: Labels, sizes: NDArray[np.int64], least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of labels of two slices of which each is the other's best; ties go to the lower one."""
    table = _overlaps(before.reshape(-1), after.reshape(-1))
    table = table[table[:, 0] != 0]
    first, second = table[:, 0] >> 32, table[:, 0] & 0xFFFFFFFF
    iou = table[:, 1] / (sizes[first] + sizes[second] - table[:, 1])
    enough = iou >= least
    first, second, iou = first[enough], second[enough], iou[enough]
    best = _is_best(first, second, iou) & _is_best(second, first, iou)
    return first[best], second[best]


def _is_best(
    of: NDArray[np.int64], other: NDArray[np.int64], iou: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which pairs are the best of their label on one side."""
    order = np.lexsort((other, -iou, of))
    sorted_of = of[order]
    leads = np.ones(len(of), np.bool_)
    leads[1:] = sorted_of[1:] != sorted_of[:-1]
    best = np.zeros(len(of), np.bool_)
    best[order] = leads
    return best


@compiled
def _overlaps(before: Any, after: Any) -> Any:
    """Table of pairs that share pixels: key and how many."""
    table = np.zeros((1 << 12, 2), np.int64)
    used = 0
    for i in range(before.size):
        if before[i] == 0 or after[i] == 0:
            continue
        key = (np.int64(before[i]) << 32) | np.int64(after[i])
        table, slot, used = claimed(table, key, used)
        table[slot, 1] += 1
    return table


def _joined(
    evidence: list[Evidence],
    names: NDArray[np.int32],
    sizes: NDArray[np.int64],
    lasts: list[int],
) -> Evidence:
    """Evidence of all slices; of joined cells the mean, weighted with the voxels of their parts.

    What is known of a slice is in relation to its cells' voxels, and so weighted with these. One
    without cells counts as one voxel: it says how many voxels were missed, not which share.
    """
    voxels = np.maximum(np.bincount(names, sizes), 1)
    cells = {}
    for name in evidence[0].cells:
        parts = np.concatenate([np.zeros(1), *(part.cells[name][1:] for part in evidence)])
        cells[name] = np.bincount(names, parts * sizes) / voxels
    weights = np.maximum(np.diff(np.cumsum(sizes)[lasts]), 1)
    volume = {
        name: float(np.average([part.volume[name] for part in evidence], weights=weights))
        for name in evidence[0].volume
    }
    return Evidence(cells, volume)
