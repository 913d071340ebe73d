"""The decoders of class maps, as the stages use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.geometry import LabelArray, Shape
from cellrt.runtime.decoding.base import (
    Decoded,
    Decoder,
    Evidence,
    Family,
    Merging,
    Mode,
    Outputs,
    Place,
    Reduction,
    WholeCollector,
)
from cellrt.runtime.decoding.classes.baselines import (
    DbscanParameters,
    WatershedParameters,
    decode_dbscan,
    decode_watershed,
)
from cellrt.runtime.decoding.classes.class_map import (
    FOREGROUND,
    MEMBRANE,
    ClassMap,
    class_map_from,
    class_map_of,
    class_matches,
)
from cellrt.runtime.decoding.classes.clean_up import CleanUpParameters
from cellrt.runtime.decoding.classes.tascan import TascanParameters, decode_supervoxels
from cellrt.runtime.decoding.labels.upsample import upsample_masks

CLASS_OUTPUTS = ("background", "membrane", "foreground")

HERE = Place("CPU", "class maps are decoded there")


@dataclass(frozen=True)
class ClassMapDecoder:
    """What turns class maps into cells; see :mod:`cellrt.runtime.decoding.classes.class_map`.

    The most probable of background, membrane and foreground is kept as one byte per voxel.

    Parameters
    ----------
    name : str
    parameters : CleanUpParameters
        Those of `find`.
    find : callable
        Turns a class map and the parameters into labels.
    working_bytes, promised_bytes : int
        Memory per voxel; that of the baselines was measured, see docs/tascan.md.
    """

    name: str
    parameters: CleanUpParameters
    find: Callable[[ClassMap, Any], NDArray[np.int32]]
    working_bytes: int
    promised_bytes: int

    modes: ClassVar[tuple[Mode, ...]] = ("fast",)
    merging: ClassVar[Merging] = "weighted"
    merged: ClassVar[slice] = slice(None)
    kept_bytes: ClassVar[int] = 1
    # On ever coarser grids more is membrane and agreement hardly falls.
    size_weight: ClassVar[float] = 1.0

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        cells = np.zeros((12, 12, 26), np.int32)
        cells[1:11, 1:11, 1:12] = 1
        cells[1:11, 1:11, 12:25] = 2
        kept = class_map_of(cells)
        class_map_from(np.zeros((3, *kept.shape), np.float32), np.empty_like(kept))
        self.to_grid(self.decode(kept, mode="fast"), kept, (13, 13, 27))

    def collector(self, shape: Shape) -> WholeCollector:
        """Keep the most probable class of each voxel in a uint8 array (z, y, x)."""
        return WholeCollector(
            np.empty(shape, np.uint8),
            lambda kept, fields: class_map_from(fields, kept),
            Reduction(np.dtype(np.uint8), _kernel),
        )

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> Decoded:
        """Labels on the model's grid, each judged by the classes that its voxels should have."""
        labels = self.find(kept, self.parameters)
        return Decoded(labels, HERE, self._evidence(labels, kept))

    def _evidence(self, labels: LabelArray, kept: NDArray[Any]) -> Evidence:
        found = class_matches(labels, kept, class_map_of(labels), int(labels.max(initial=0)))
        voxels = np.maximum(found[:, 0], 1)
        claimed = max(int(found[1:, 0].sum()), 1)
        return Evidence(
            {"class_match": found[:, 1] / voxels, "interior_share": found[:, 2] / voxels},
            {
                "class_mismatch": 1 - int(found[1:, 1].sum()) / claimed,
                "missed": int(found[0, 2]) / claimed,
            },
        )

    def to_grid(self, decoded: Decoded, kept: NDArray[Any], shape: Shape) -> Decoded:
        """Interpolate the cells' masks; classes say nothing between voxels."""
        return replace(decoded, labels=upsample_masks(decoded.labels, shape))

    def agreement(self, decoded: Decoded, kept: NDArray[Any]) -> float:
        """Geometric mean of two Dice coefficients: of membranes and of interiors.

        Both compare what was predicted with what a perfect network would say of the cells.
        Membranes that divide no cells, that are too thick, or that are missing between cells lower
        the first; cells that are nearly all membrane, as specks in noise are, lower the second.
        """
        expected = class_map_of(decoded.labels)
        product = 1.0
        for kind in (MEMBRANE, FOREGROUND):
            predicted, wanted = kept == kind, expected == kind
            total = np.count_nonzero(predicted) + np.count_nonzero(wanted)
            product *= 2 * np.count_nonzero(predicted & wanted) / total if total else 0.0
        return math.sqrt(product)


def _kernel() -> Any:
    # Only here, because it needs a package for GPUs.
    from cellrt.runtime.decoding.classes.most_probable_cuda import keep_most_probable

    return keep_most_probable


def _tascan(parameters: TascanParameters, outputs: Outputs, keep_to_cpu: str) -> Decoder:
    return ClassMapDecoder("tascan", parameters, decode_supervoxels, 5, 8)


def _watershed(parameters: WatershedParameters, outputs: Outputs, keep_to_cpu: str) -> Decoder:
    return ClassMapDecoder("watershed", parameters, decode_watershed, 64, 128)


def _dbscan(parameters: DbscanParameters, outputs: Outputs, keep_to_cpu: str) -> Decoder:
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the decoder dbscan needs packages that are not installed ({error.name}); "
            "install them with: pip install 'cellrt[dbscan]'"
        ) from None
    return ClassMapDecoder("dbscan", parameters, decode_dbscan, 400, 800)


_NEEDS, _FITS = ", ".join(CLASS_OUTPUTS), CLASS_OUTPUTS.__eq__

TASCAN = Family("tascan", _NEEDS, _FITS, TascanParameters, _tascan)
WATERSHED = Family("watershed", _NEEDS, _FITS, WatershedParameters, _watershed)
DBSCAN = Family("dbscan", _NEEDS, _FITS, DbscanParameters, _dbscan)
