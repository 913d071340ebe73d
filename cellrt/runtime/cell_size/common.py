"""One cell size for the single images of a run: searched for in a few, confirmed by every one.

The images of a plate show cells of about one size. To search for it in each costs more than all the
rest, and gives each a slightly different one, so that neither results nor compiled networks are
alike. So some images spread over the run are searched, all but the first from what that one says,
and the median of what they say holds for all of the same kind. The cells of each image then have to
come out about that large; where they do not, the image is segmented again at a size of its own.

What is found does not depend on the order in which images are computed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.cell_size.probe import FEWEST_CELLS
from cellrt.runtime.decoding.labels.regions import equivalent_radius
from cellrt.runtime.grid.model_image import look_at
from cellrt.runtime.grid.scale import STEP, CellScale
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.job import Job, Options
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.runtime.preparation import check, find_scale, prepare
from cellrt.runtime.progress import StageClock
from cellrt.wording import counted

# Images that are searched; runs of no more than these have nothing to gain.
SURVEYED = 9
# Fewer that show cells say nothing of others.
FEWEST_IMAGES = 3
# Cells that come out smaller, or larger, than the common size by more than this factor: their image
# gets its own. Of 47 images of one shape held back from training, with cells of 10 to 20 pixels, AP
# at IoU 0.5 is 0.824 where each is searched, 0.818 with the common size throughout and 0.825 with
# this: cells that are smaller than the network is told suffer first.
SMALLER, LARGER = 1.2, 1.4

Kind = tuple[str, Shape, tuple[float, float, float] | None]


def kind_of(volume: Volume, network: LoadedModel) -> Kind:
    """What images have in common that may share a size: model, shape and size of the pixels."""
    return network.model.card.name, volume.shape, volume.pixel_size_um


def spread(count: int) -> list[int]:
    """Which of so many images are searched: none where all of them would be."""
    if count <= SURVEYED:
        return []
    return [(2 * number + 1) * count // (2 * SURVEYED) for number in range(SURVEYED)]


def own_diameter(
    volume: Volume,
    network: LoadedModel,
    options: Options,
    clock: StageClock,
    near: float | None = None,
) -> float | None:
    """Cell diameter in pixels that one image's cells say; None where they say nothing.

    Parameters
    ----------
    volume : Volume
        Of one slice.
    network : LoadedModel
    options : Options
    clock : StageClock
    near : float, optional
        The diameter that another image of the same kind says, from which the search begins: of 64
        images in four groups of one shape, `nuclei2d` takes 2.0 looks in place of 4.7, and sizes
        are off by 0.034 in place of 0.037 on average (log units).
    """
    image = look_at(volume.image, network.model.card.normalisation)
    decoder, note = check(network, options), clock.progress.note
    guess = None
    if near is not None:
        guess = CellScale(near, (1.0, 1.0, 1.0), "the size in another image of this run", "")
    with network.in_use:
        scale = find_scale(
            volume, image, network, decoder, options, [], note, guess, in_steps=False
        )
    return scale.diameter_pixels if scale.cells else None


def common_sizes(found: Iterable[tuple[Kind, float]], images: int) -> dict[Kind, CellScale]:
    """The size that each kind of images has in common, where enough of them say one.

    Parameters
    ----------
    found : iterable of (kind, float)
        Diameters in pixels of images that were searched.
    images : int
        Of the run, for words.

    Returns
    -------
    dict of kind to CellScale
    """
    diameters: dict[Kind, list[float]] = {}
    for kind, diameter in found:
        diameters.setdefault(kind, []).append(diameter)
    return {
        kind: _common(sorted(each), images)
        for kind, each in diameters.items()
        if len(each) >= FEWEST_IMAGES
    }


def _common(diameters: Sequence[float], images: int) -> CellScale:
    # As it is shown, so that --diameter with what is shown gives the same.
    middle = float(f"{statistics.median(diameters):.3g}")
    origin = (
        f"the median of {len(diameters)} of {counted(images, 'image')} of this run, which say "
        f"{diameters[0]:.3g} to {diameters[-1]:.3g}"
    )
    return CellScale(middle, (1.0, 1.0, 1.0), origin, "", to_confirm=True)


def with_own_size(job: Job, labels: NDArray[np.int32], clock: StageClock) -> Job | None:
    """The job at the image's own cell size, where its cells do not have the one they were told.

    Cells larger than that keep their size, within 4 % on 18 images with cells 1.6 to 2.1 times as
    large: it is taken, to be confirmed once more. For smaller ones the image is searched.

    Parameters
    ----------
    job : Job
        Of an image of one slice, computed at a size that its cells have to confirm.
    labels : ndarray of int32, shape (1, y, x)
        Its cells.
    clock : StageClock

    Returns
    -------
    Job or None
        None where the cells confirm the size, or nothing says another one.
    """
    told, own = job.scale.diameter_pixels, job.scale.cells > 0
    cells, diameter = _typical(labels)
    guess = None
    if cells >= FEWEST_CELLS:
        diameter *= math.sqrt(job.scale.spacing[1])
        if told / SMALLER <= diameter <= told * LARGER:
            return None
        at = f"at {told:.3g} pixels" if own else f"at the common size, {told:.3g}"
        guess = replace(job.scale, diameter_pixels=diameter)
        if diameter > told and not own:
            words = f"the size of {counted(cells, 'cell')} that came out {at}"
            guess = replace(guess, diameter_origin=words, cells=cells).in_steps()
        else:  # smaller ones come out too large, and what is not confirmed is not known
            words = f"cells that were found {at},"
            guess = replace(guess, diameter_origin=words, to_confirm=False)
        clock.progress.note(
            f"cells come out about {diameter:.3g} pixels large {at}: this image gets its own size"
        )
    anew = prepare(job.volume, job.network, job.options, clock, guess)
    apart = abs(math.log(anew.scale.diameter_pixels / told))
    return anew if anew.scale.cells and apart > math.log(STEP) else None


def _typical(labels: NDArray[np.int32]) -> tuple[int, float]:
    """Number of cells, and the diameter of that in which the median pixel of cells lies."""
    areas = np.sort(np.bincount(labels.ravel())[1:])
    areas = areas[areas > 0]
    if not len(areas):
        return 0, math.nan
    share = np.cumsum(areas)
    typical = areas[np.searchsorted(share, share[-1] / 2)]
    radius = equivalent_radius(np.array([typical]), labels.shape)
    return len(areas), 2 * float(radius[0])
