"""Tables of a recipe with method ``harmonic_embedding``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from cellrt.models.harmonic_embedding.guide_table import GuideTable
from cellrt.models.tables import CommonModelTable, CommonTargetTable, Positive, Table
from cellrt.wording import counted

Count = Annotated[int, Field(gt=0)]


class HarmonicModel(CommonModelTable):
    """``[model]`` of method ``harmonic_embedding``."""

    method: Literal["harmonic_embedding"] = "harmonic_embedding"
    two_dimensional: Literal[True] = True
    widths: tuple[Count, ...] = (16, 32, 64, 128, 128)
    """Channels of each level, finest first."""
    width_multiplier: Positive = 1.0
    """Factor on all widths."""
    position: Literal["turn", "sinconv", "none"] = "turn"
    """What tells the embedding where it is: a turn of the output by the guides; guides that the
    first convolution of each level on the way up sees, as published; or nothing."""
    sinconv_size: Annotated[int, Field(ge=1)] = 7
    """Edge of the kernels that see guides."""
    dimensions: Annotated[int, Field(ge=1, le=64)] = 12
    margin: Positive = 0.5
    """L1 distance wanted between objects; mean shift's bandwidth is the same number."""
    highest_frequency: Positive = 0.3
    """Where frequencies begin at most, along each axis, in cycles per nominal diameter."""
    guides: GuideTable | None = None

    network_keys: ClassVar[tuple[str, ...]] = (
        *("method", "widths", "width_multiplier", "position", "sinconv_size", "dimensions"),
    )
    planar: ClassVar[bool] = True
    fitted_keys: ClassVar[tuple[str, ...]] = ("guides",)

    @model_validator(mode="after")
    def _as_many_guides_as_dimensions(self) -> HarmonicModel:
        if self.guides is not None and len(self.guides.phases) != self.dimensions:
            raise ValueError(
                f"'guides' has {len(self.guides.phases)} guides, 'dimensions' is {self.dimensions}"
            )
        if self.sinconv_size % 2 == 0:
            raise ValueError("'sinconv_size' must be odd")
        return self

    @property
    def patch_multiple(self) -> int:
        """Patch sizes are multiples of the network's total stride, along y and x."""
        return int(2 ** (len(self.widths) - 1))

    def fitted(
        self,
        labels: Iterable[npt.NDArray[Any]],
        zoom: tuple[float, float],
        seed: int,
        report: Callable[[str], None],
    ) -> HarmonicModel:
        """Fit the guides where the recipe gives none; see `CommonModelTable.fitted`."""
        if self.guides is not None:
            return self
        from cellrt.models.harmonic_embedding.guides import fit_guides

        planes = (np.asarray(stack[len(stack) // 2]) for stack in labels)
        guides = fit_guides(
            planes,
            dimensions=self.dimensions,
            margin=self.margin,
            highest_frequency=self.highest_frequency / self.nominal_diameter_voxels,
            zoom=zoom,
            seed=seed,
        )
        report(
            f"guides: hinge loss {guides.hinge_loss:.3g} over {counted(guides.pairs, 'pair')}, "
            f"smallest distance {guides.smallest_l1:.2f} (L1, wanted {self.margin:g}), "
            f"{guides.smallest_l2:.2f} (Euclidean)"
        )
        if guides.close_pairs:
            report(
                f"warning: {counted(guides.close_pairs, 'pair')} of objects of one image lie "
                "closer than the margin and may come out as one; more 'model.dimensions' or a "
                "higher 'model.highest_frequency' tell them apart"
            )
        return self.model_copy(update={"guides": guides})


class HarmonicTargets(CommonTargetTable):
    """``[targets]`` of method ``harmonic_embedding``."""

    method: Literal["harmonic_embedding"] = "harmonic_embedding"


class HarmonicLoss(Table):
    """``[loss]`` of method ``harmonic_embedding``: the embedding's weight against foreground."""

    method: Literal["harmonic_embedding"] = "harmonic_embedding"
    kind: Literal["harmonic", "discriminative"] = "harmonic"
    """Whether objects have their places from the guides, or wherever they are apart."""
    embedding_weight: Annotated[float, Field(ge=0)] = 4.0
