"""Cells end where the image does: voxels that are fill belong to none.

To a network fill is background. Where cells are dark and only their walls are bright, as in stained
membranes, so are cells, and one that fill cuts has no wall there: it would go on into it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cellrt.runtime.decoding.base import Decoded, Evidence
from cellrt.runtime.decoding.labels.regions import count_regions, former_labels, relabel
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.threads import in_threads


def without_fill(decoded: Decoded, image: MendedImage) -> Decoded:
    """Take fill out of cells, and cells that mostly lie in it.

    Parameters
    ----------
    decoded : Decoded
        On the image's grid; its labels are changed.
    image : MendedImage

    Returns
    -------
    Decoded
        With cells numbered from 1 as before, and the evidence of those that are left.
    """
    if image.defects.fill is None:
        return decoded
    labels = decoded.labels
    count = int(labels.max(initial=0))
    volumes = count_regions(labels, count).volumes

    def part(lo: int, hi: int) -> NDArray[np.int64]:
        lost = np.zeros(count + 1, np.int64)
        for z in range(lo, hi):
            fill = image.plane(z)[1]
            if fill is not None:
                lost += np.bincount(labels[z][fill], minlength=count + 1)
                labels[z][fill] = 0
        return lost

    lost = np.sum(in_threads(len(labels), part, voxels=labels.size), axis=0)
    kept = 2 * lost <= volumes
    kept[0] = False
    if kept[1:].all():
        return decoded
    numbers = np.zeros(count + 1, np.int32)
    numbers[kept] = np.arange(1, np.count_nonzero(kept) + 1)
    relabel(labels, numbers)
    evidence = decoded.evidence
    if evidence is not None:
        former = former_labels(numbers)
        cells, areas = (
            {name: values[former] for name, values in known.items()}
            for known in (evidence.cells, evidence.areas)
        )
        evidence = Evidence(cells, evidence.volume, areas)
    return replace(decoded, evidence=evidence)


def in_whole(decoded: Decoded, image: MendedImage) -> Decoded:
    """Put the cells of a box of an image where they lie in the whole image.

    Parameters
    ----------
    decoded : Decoded
        Of the box.
    image : MendedImage
        The box.
    """
    whole = image.source.shape
    if image.shape == whole:
        return decoded
    labels = np.zeros(whole, np.int32)
    labels[image.box] = decoded.labels
    return replace(decoded, labels=labels)
