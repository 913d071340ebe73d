"""What was asked of a run, and what was decided for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cellrt.errors import UsageError
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Decoder
from cellrt.runtime.grid.findings import Findings
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.runtime.grid.model_image import Scale
from cellrt.runtime.grid.scale import CellScale
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.runtime.network.views import NAMES, view_weights
from cellrt.runtime.plan import Plan


@dataclass(frozen=True)
class Options:
    """Choices of one run; ``None`` leaves the decision to file, model card or machine.

    Parameters
    ----------
    diameter : float, optional
        Cell diameter in pixels of the input (x). It is estimated when neither it nor a voxel size
        is known.
    anisotropy : float, optional
        Spacing in z over spacing in x; from the voxel size when that is known.
    intensity : (float, float), optional
        Grey values of background and of a typical cell, instead of what would be measured.
    engine : str, optional
        Obeyed or refused; see :func:`cellrt.runtime.network.engines.ladder.choose_engine`.
    precision : {"auto", "fp32", "tf32", "fp16", "bf16", "int8"}
        Obeyed or refused by the engine; see
        :func:`cellrt.runtime.network.engines.precision.file_for`.
    mode : {"fast", "exact"}
        Decoder mode.
    tile : (int, int, int), optional
        Tile (z, y, x) in voxels of the model's grid.
    halo : int, optional
        Voxels dropped at inner tile faces.
    decoder : str, optional
        Another decoder that fits the model's outputs, with its own default parameters; see
        :func:`cellrt.runtime.decoding.registry.decoder_for`.
    decoder_parameters : mapping of str to Any
        Parameters of the decoder by name, instead of the model card's or the default ones, such as
        ``{"min_area": 40}`` for ``"tascan"``.
    min_confidence : float, optional
        Leave out cells of less confidence, 0 to 1.
    min_size, max_size : int, optional
        Leave out smaller and larger cells, in voxels of the image (pixels where it has one slice).
    slices : bool
        Segment every slice of a stack by itself, with a model of single slices.
    stitch : float, optional
        With ``slices``, join cells of neighbouring slices whose IoU is at least this.
    """

    diameter: float | None = None
    anisotropy: float | None = None
    intensity: tuple[float, float] | None = None
    engine: str | None = None
    precision: str = "auto"
    mode: Literal["fast", "exact"] = "fast"
    tile: tuple[int, int, int] | None = None
    halo: int | None = None
    decoder: str | None = None
    decoder_parameters: Mapping[str, Any] = field(default_factory=dict)
    min_confidence: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    slices: bool = False
    stitch: float | None = None

    def __post_init__(self) -> None:
        """Read numbers as plain ones, so that a record can be written, and refuse what is none."""
        for name, count, kind, least, most in (
            ("diameter", 0, float, 1, math.inf),
            ("anisotropy", 0, float, 0.01, 100),
            ("intensity", 2, float, -math.inf, math.inf),
            ("tile", 3, int, 1, math.inf),
            ("halo", 0, int, 0, math.inf),
            ("min_confidence", 0, float, 0, 1),
            ("min_size", 0, int, 0, math.inf),
            ("max_size", 0, int, 1, math.inf),
            ("stitch", 0, float, 0.01, 1),
        ):
            value = getattr(self, name)
            if value is not None:
                numbers = _numbers(name, value, count, kind)
                _check_range(name, numbers, least, most)
                object.__setattr__(self, name, numbers)
        if self.intensity is not None and not self.intensity[0] < self.intensity[1]:
            low, high = self.intensity
            raise UsageError(
                f"--intensity is {low:g} {high:g}; expected the grey value of the background and "
                "then the larger one of a typical cell"
            )
        if None not in (self.min_size, self.max_size) and self.min_size > self.max_size:  # type: ignore[operator]
            raise UsageError(
                f"--min-size {self.min_size:g} is above --max-size {self.max_size:g}; expected the "
                "smaller one first, or no cell could stay"
            )
        if self.stitch is not None and not self.slices:
            raise UsageError(
                "--stitch joins the cells of single slices; expected --slices beside it"
            )
        if not isinstance(self.decoder_parameters, Mapping):
            raise UsageError(
                f"decoder_parameters is {self.decoder_parameters!r}; expected values by name, "
                'such as {"foreground_threshold": 0.5}'
            )

    def against(self, shape: Shape) -> list[str]:
        """Tell what has no effect on an image of a shape (z, y, x).

        Raises
        ------
        UsageError
            The image is smaller than a cell that would stay.
        """
        voxels = math.prod(shape)
        if self.min_size is not None and self.min_size > voxels:
            raise UsageError(
                f"--min-size is {self.min_size:,} and the image has {voxels:,} voxels: no cell "
                "could stay; give the number of voxels of the smallest cell to keep"
            )
        if shape[0] > 1:
            return []
        return [
            f"--{name} changes nothing: the image has one slice"
            for name in ("anisotropy", "stitch")
            if getattr(self, name) is not None
        ]


def _numbers(name: str, value: Any, count: int, kind: type) -> Any:
    """One plain number, or a tuple of as many as are expected."""
    words = "a number" if kind is float else "a whole number"
    expected = words if not count else f"{count} numbers" if kind is float else f"{count} integers"
    try:
        if any(isinstance(part, bool | np.bool_) for part in (value if count else [value])):
            raise TypeError  # which Python counts as 1 and 0
        if count:
            found = tuple(kind(part) for part in value)
            # What is no number is refused by its range.
            if len(found) == count and all(
                a == b or a != a for a, b in zip(found, value, strict=True)
            ):
                return found
        elif kind(value) == value:
            return kind(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(f"--{name.replace('_', '-')} is {value!r}; expected {expected}")


def _check_range(name: str, numbers: Any, least: float, most: float) -> None:
    """Refuse numbers that are beyond what makes sense, and those that are none, such as NaN."""
    parts = numbers if isinstance(numbers, tuple) else (numbers,)
    if not all(math.isfinite(part) and least <= part <= most for part in parts):
        bounds = [f"of {least:g} or more"] if least > -math.inf else []
        bounds += [f"of {most:g} or less"] if most < math.inf else []
        what = "numbers" if isinstance(numbers, tuple) else "a number"
        shown = " ".join(f"{part:g}" for part in parts)
        expected = f"{what} {' and '.join(bounds)}" if bounds else f"finite {what}"
        raise UsageError(f"--{name.replace('_', '-')} is {shown}; expected {expected}")


@dataclass(frozen=True)
class Job:
    """A run that is planned and can be started: see :mod:`cellrt.runtime.stages`.

    Attributes
    ----------
    volume : Volume
        The input.
    image : MendedImage
        Its channel to segment, as it is read for the network.
    network : LoadedModel
    options : Options
    decoder : Decoder
    scale : CellScale
        From the image's grid to the model's.
    plan : Plan
    intensity : IntensityRange or Brightness
        What the network sees as 0 and 1.
    findings : Findings
        What is known of the intensities.
    warnings : tuple of str
        What the user should know already.
    """

    volume: Volume
    image: MendedImage
    network: LoadedModel
    options: Options
    decoder: Decoder
    scale: CellScale
    plan: Plan
    intensity: Scale
    findings: Findings
    warnings: tuple[str, ...] = ()

    @property
    def view_weights(self) -> dict[str, float] | None:
        """How much each view of the stack counts; None where the model has none."""
        if not self.network.model.card.views:
            return None
        shapes = zip(self.plan.grid.shape, self.image.shape, strict=True)
        return dict(zip(NAMES, view_weights([ours / its for ours, its in shapes]), strict=True))
