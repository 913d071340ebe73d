"""What was found about an image's intensities, for the record, the plan and the preview."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellrt.geometry import Shape
from cellrt.runtime.grid.brightness import Brightness
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.runtime.grid.model_image import Scale, clipped_share

# So much at the largest grey value hides what cells look like inside.
SATURATED_WARNING = 0.01


@dataclass(frozen=True)
class Findings:
    """Intensities of one image.

    Attributes
    ----------
    rule : str
        What decided: percentiles, local brightness, or the user.
    low, high : float
        Grey values that become 0 and 1; where they are followed through the image, the medians.
    contrast_range : (float, float)
        Least and most grey values from 0 to 1 anywhere in the image.
    fill, fill_share
        Grey value of voxels that are no image (None: there are none), and their share.
    clipped, saturated : float
        Share of voxels above 1, and at the camera's largest value.
    mended : tuple of (int, float)
        Slices, counted from 1, whose brightness was corrected, and by which factor it was off.
    lost : tuple of int
        Slices, counted from 1, for which their neighbours stand in.
    """

    rule: str
    low: float
    high: float
    contrast_range: tuple[float, float]
    fill: float | None
    fill_share: float
    clipped: float
    saturated: float
    mended: tuple[tuple[int, float], ...]
    lost: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """JSON-ready, numbers rounded to what they are worth."""
        return {
            "line": self.line(),
            "rule": self.rule,
            "low": _short(self.low, _shared_digits(self.low, self.high)),
            "high": _short(self.high, _shared_digits(self.low, self.high)),
            "contrast_range": [_short(value) for value in self.contrast_range],
            "fill": self.fill,
            "fill_share": round(self.fill_share, 4),
            "clipped_share": round(self.clipped, 4),
            "saturated_share": round(self.saturated, 4),
            "corrected_slices": [
                {"slice": z, "factor": round(factor, 3)} for z, factor in self.mended
            ],
            "lost_slices": list(self.lost),
        }

    def line(self) -> str:
        """One line for the plan and the preview."""
        low, high = grey_range(self.low, self.high)
        parts = [f"{low} to {high} ({self.rule})"]
        if self.fill is not None:
            parts.append(f"{self.fill_share:.1%} is no image (value {self.fill:g})")
        parts.append(f"{self.clipped:.1%} clipped")
        if self.saturated:
            parts.append(f"{self.saturated:.2%} saturated")
        return ", ".join(parts)

    def warnings(self) -> tuple[str, ...]:
        """What a user should know."""
        found = []
        if self.mended:
            worst = max(self.mended, key=lambda item: abs(np.log(item[1])))
            found.append(
                f"{_slices([z for z, _ in self.mended])} differed in brightness from all around, "
                f"by a factor of {worst[1]:.2g}, and was corrected"
                if len(self.mended) == 1
                else f"{_slices([z for z, _ in self.mended])} differed in brightness from all "
                f"around, by factors up to {worst[1]:.2g}, and were corrected"
            )
        if self.lost:
            verb = "holds" if len(self.lost) == 1 else "hold"
            found.append(f"{_slices(self.lost)} {verb} no image; the neighbours stand in")
        if SATURATED_WARNING < self.saturated < 1:
            found.append(
                f"{self.saturated:.1%} of the image is saturated: what cells look like inside is "
                "lost there; record it with less light or gain"
            )
        return tuple(found)


def findings(image: MendedImage, shape: Shape, scale: Scale, rule: str) -> Findings:
    """Collect what is known of an image's intensities on the model's grid ``shape``."""
    defects = image.defects
    if isinstance(scale, Brightness):
        low = float(np.median(scale.background))
        high = low + float(np.median(scale.contrast))
        spread = (float(scale.contrast.min()), float(scale.contrast.max()))
    else:
        low, high = scale.low, scale.high
        spread = (high - low, high - low)
    return Findings(
        rule=rule,
        low=low + defects.base,
        high=high + defects.base,
        contrast_range=spread,
        fill=None if defects.fill is None else defects.fill + defects.base,
        fill_share=defects.fill_share,
        clipped=clipped_share(image, shape, scale),
        saturated=defects.saturated,
        mended=tuple((z + 1, float(defects.gains[z])) for z in defects.mended),
        lost=tuple(z + 1 for z in defects.lost),
    )


def grey_range(low: float, high: float) -> tuple[str, str]:
    """Two grey values with as many digits as tell them apart, as `--intensity` takes them."""
    digits = 4 + _shared_digits(low, high)
    return f"{low:.{digits}g}", f"{high:.{digits}g}"


def _shared_digits(low: float, high: float) -> int:
    """Leading digits that say nothing, as both grey values have them: those of an offset."""
    span, largest = high - low, max(abs(low), abs(high))
    return max(0, math.floor(math.log10(largest / span))) if largest > span > 0 else 0


def _slices(numbers: tuple[int, ...] | list[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:5]) + (", ..." if len(numbers) > 5 else "")
    return f"slice {shown}" if len(numbers) == 1 else f"slices {shown}"


def _short(value: float, more_digits: int = 0) -> float:
    return float(f"{value:.{6 + more_digits}g}")
