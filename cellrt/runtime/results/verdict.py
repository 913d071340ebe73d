"""A plain warning where a stack may be none of the model's business, with the likely reason."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.cell_size.places import PLANAR_PROBE, PROBE
from cellrt.runtime.grid.findings import SATURATED_WARNING, grey_range
from cellrt.runtime.grid.texture import busiest_part, correlation
from cellrt.runtime.job import Job
from cellrt.runtime.results.confidence import Quality
from cellrt.runtime.results.segmentation import Segmentation
from cellrt.runtime.results.table import CellTable

DOUBTFUL = 0.45
"""Expected average precision (IoU 0.5) below which the user is warned."""

# By so much, about what it is off, expected average precision may exceed the share of right cells.
AGREEING = 0.1
# Correlation of neighbouring pixels below which noise hides what cells look like: of an image that
# is enlarged fourfold it is far above, of one in which noise is twice the contrast it is 0.2.
NOISY = 0.3
# Where the median is above that share of the way from dark to bright, what is rare is dark.
BRIGHT = 0.7
_SAMPLE_PER_AXIS = 64
# Where less of an image than this is in the upper half of the range of grey values, spots set that.
FEW_BRIGHT = 0.005
# Cells so many times as bright as the rest and at most so many times as wide may be dirt.
SPOT_BRIGHT, SPOT_WIDE, FEWEST_SPOTS = 5.0, 0.65, 3
# Of stacks as thin as that, the networks see cells that are cut above and below.
FEW_SLICES = 5
# Correlation at an eighth of a cell's diameter above which edges are lost. Of a sharp ball it is
# 0.84, of one blurred by half a cell 0.98, and 0.92 of a sharp one taken for half as large.
BLURRED = 0.96


def doubts(quality: Quality, table: CellTable, job: Job) -> list[str]:
    """Warn of cells of which few may be right.

    Parameters
    ----------
    quality : Quality
    table : CellTable
        All cells that were found; where there are none, that says enough.
    job : Job

    Returns
    -------
    list of str
        Empty where nothing is wrong, or the model does not say what to expect.
    """
    expected = quality.expected_ap50
    if expected is None or expected >= DOUBTFUL:
        return _spots(table, job)
    return [
        f"few of these cells may be right (expected average precision {expected:.2f} at an IoU of "
        f"0.5): {reason(table, job)}"
    ]


def nothing_found(job: Job) -> str:
    """Warn that no cells were found, and say what they were taken for."""
    scale, card = job.scale, job.network.model.card
    text = (
        f"no cells were found; looked for were cells of {scale.diameter_pixels:.3g} pixels "
        f"({scale.diameter_origin})"
    )
    if cause := _in_the_image(job, _busiest_part(job)):
        return f"{text}: {cause}"
    remedy = scale.remedy if not scale.certain else "check the size"
    return f"{text}; {remedy}, or another --model if the stain is not what {card.name} knows"


def likely_right(result: Segmentation) -> str:
    """One line on how many cells are likely right, or that nobody knows.

    The confidence of single cells and the expected average precision are fitted apart. Of n cells
    of which a share p is right, average precision is at most p, and less where cells were missed,
    though hardly less than a quarter of it. Beyond, one of the two is wrong, and neither is told.
    """
    expected = result.record["quality"]["expected_ap50"]
    if not len(result.table):
        return ""
    if expected is None:
        return "how many of them are right, this model does not know here: look at the preview"
    right = float(result.table["confidence"].sum())
    told = f"about {round(right)} of them are likely right"
    if any(result.record["left_out"].values()):
        return told  # what is expected is of all cells
    share = right / len(result.table)
    least = share / 4 if round(right) else 0.0
    if least <= expected <= share + AGREEING:
        return f"{told} (expected average precision at an IoU of 0.5: {expected:.2f})"
    return (
        "how many of them are right is unclear, as the cells one by one and the stack as a whole "
        "speak for different numbers: look at the preview"
    )


def reason(table: CellTable, job: Job) -> str:
    """What is most likely wrong with an image, and what to do about it."""
    card = job.network.model.card
    part = _busiest_part(job)
    if cause := _in_the_image(job, part):
        return cause
    pixels = max(1, round(job.scale.diameter_pixels / 8))
    slices = job.image.shape[0]
    thickness = slices * job.scale.spacing[0]
    if not card.planar and slices <= FEW_SLICES and thickness < job.scale.diameter_pixels:
        return (
            f"its {slices} slices show no cell as a whole; record more of them, or give a --model "
            "of single slices with --slices"
        )
    if 8 * pixels > min(n for n in _probe(job) if n > 1):
        part = _busiest_part(job, 8 * pixels)
    if correlation(part, pixels)[0] > BLURRED:
        return (
            f"it has no edges at the scale of cells as {card.name} knows them: it is out of focus, "
            "or of another stain, or the voxel size or diameter is wrong"
        )
    ratio = _typical_size(table, job) / job.scale.diameter_pixels
    smallest, largest = card.diameter_range
    if not smallest <= ratio <= largest:
        return (
            f"cells came out {ratio:.2g} times as large as they were taken for "
            f"({job.scale.diameter_pixels:.3g} pixels, {job.scale.diameter_origin}); check "
            "voxel size and diameter, or whether the model knows this stain"
        )
    return (
        f"they do not look like the cells that the model {card.name} knows; check stain, channel "
        "and focus, voxel size and diameter, or try another model"
    )


def _probe(job: Job) -> Shape:
    """Voxels that tell what an image looks like."""
    return PLANAR_PROBE if job.network.model.card.planar else PROBE


def _busiest_part(job: Job, least: int = 0) -> NDArray[np.float64]:
    """The busiest part of an image, of a probe's size, or of so many voxels along each axis."""
    z, y, x = (max(n, least) for n in _probe(job))
    return busiest_part(job.image, (z, y, x))


def _in_the_image(job: Job, part: NDArray[np.float64]) -> str:
    """What is wrong with an image, or how it is seen, whatever its cells; empty where unknown."""
    card = job.network.model.card
    if job.options.intensity is not None:
        return (
            "the grey values of background and cells were chosen; leave --intensity out to have "
            "them measured"
        )
    if job.findings.saturated > SATURATED_WARNING:
        return "the image is saturated; record it with less light or gain"
    if correlation(part)[0] < NOISY:
        return "noise hides what cells look like; average or bin the image, or record more light"
    if card.target == "nuclei" and card.decoder != "embedding" and _is_dark_on_bright(job):
        return "most of the image is bright, and dark what is not; if cells are dark, invert it"
    return _set_by_spots(job)


def _spots(table: CellTable, job: Job) -> list[str]:
    """Warn of some cells that are far brighter and smaller than the others."""
    if job.options.intensity is not None or len(table) < 2 * FEWEST_SPOTS:
        return []
    background = job.findings.low
    height = table[f"mean_channel_{job.volume.segmented_channel + 1}"] - background
    width = table[f"equivalent_diameter_{table.unit}"]
    bright = height > SPOT_BRIGHT * float(np.median(height))
    if np.median(height) <= 0 or np.count_nonzero(bright) < FEWEST_SPOTS:
        return []
    typical = float(np.median(height[~bright]))
    share = float(np.median(width[bright]) / np.median(width[~bright]))
    if typical <= 0 or share > SPOT_WIDE:
        return []
    low, high = grey_range(background, background + typical)
    return [
        f"{np.count_nonzero(bright)} of {len(table)} cells are "
        f"{np.median(height[bright]) / typical:.2g} times as bright as the others and {share:.2g} "
        "times as wide; if they are dirt, choose a range of grey values without them, as "
        f"--intensity {low} {high}"
    ]


def _set_by_spots(job: Job) -> str:
    """Whether so little of an image is bright that dirt may have set its range; empty if not."""
    low, high = job.findings.low, job.findings.high
    grey = job.image.sample(_SAMPLE_PER_AXIS) + job.image.defects.base
    if not grey.size:
        return ""
    share, bright = float(np.mean(grey > (low + high) / 2)), float(np.percentile(grey, 99))
    if not 0 < share < FEW_BRIGHT or bright <= low:
        return ""
    return (
        f"only {share:.2%} of the image is near the brightest grey values "
        f"({' to '.join(grey_range(low, high))}); if those are spots of dirt and not cells, choose "
        f"a range, as --intensity {' '.join(grey_range(low, bright))}"
    )


def _is_dark_on_bright(job: Job) -> bool:
    """Whether what is typical of an image is near to its brightest values."""
    sample = job.image.sample(_SAMPLE_PER_AXIS)
    low, middle, high = np.percentile(sample, [1, 50, 99]) if sample.size else (0, 0, 0)
    return bool(middle - low > BRIGHT * (high - low))


def _typical_size(table: CellTable, job: Job) -> float:
    """Median diameter of the cells in pixels along x."""
    diameter = table[f"equivalent_diameter_{table.unit}"]
    voxel = job.volume.full_voxel_size_um
    return float(np.median(diameter)) / (voxel[2] if voxel is not None else 1.0)
