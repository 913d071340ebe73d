"""The decoders of class maps, as the pipeline uses them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.geometry import Shape
from cellrt.runtime.decoding.base import Mode, Place

if TYPE_CHECKING:
    from cellrt.runtime.decoding.classes.baselines import DbscanParameters, WatershedParameters
    from cellrt.runtime.decoding.classes.tascan import TascanParameters

CLASS_OUTPUTS = ("background", "membrane", "foreground")


class ClassMapDecoder:
    """What decoders of class maps share; see :mod:`cellrt.runtime.decoding.classes.class_map`.

    The most probable of background, membrane and foreground is kept as one byte per voxel.
    """

    modes: tuple[Mode, ...] = ("fast",)
    kept_bytes = 1
    place = Place("CPU", "class maps are decoded there")
    # On ever coarser grids more is membrane and agreement hardly falls.
    size_weight = 1.0

    def warm_up(self) -> None:
        """Decode two small cells, which compiles every kernel a run needs."""
        from cellrt.runtime.decoding.classes.class_map import class_map_of

        cells = np.zeros((12, 12, 26), np.int32)
        cells[1:11, 1:11, 1:12] = 1
        cells[1:11, 1:11, 12:25] = 2
        kept = class_map_of(cells)
        self.upsample(self.decode(kept, mode="fast"), kept, (13, 13, 27))

    def empty(self, shape: Shape) -> NDArray[np.uint8]:
        """Room for a class map."""
        return np.empty(shape, np.uint8)

    def store(self, kept: NDArray[Any], z: slice, y: slice, fields: NDArray[np.float32]) -> None:
        """Keep the most probable class; of equally probable ones the first."""
        background, membrane, foreground = fields
        classes = kept[z, y]
        np.greater(membrane, background, out=classes, casting="unsafe")
        classes[foreground > np.maximum(background, membrane)] = 2

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Labels on the model's grid."""
        raise NotImplementedError

    def upsample(
        self, labels: NDArray[np.int32], kept: NDArray[Any], shape: Shape
    ) -> NDArray[np.int32]:
        """Interpolate the cells' masks; classes say nothing between voxels."""
        from cellrt.runtime.decoding.labels.upsample import upsample_masks

        return upsample_masks(labels, shape)

    def agreement(self, labels: NDArray[np.int32], kept: NDArray[Any]) -> float:
        """Geometric mean of two Dice coefficients: of membranes and of interiors.

        Both compare what was predicted with what a perfect network would say of the cells.
        Membranes that divide no cells, that are too thick, or that are missing between cells lower
        the first; cells that are nearly all membrane, as specks in noise are, lower the second.
        """
        from cellrt.runtime.decoding.classes.class_map import FOREGROUND, MEMBRANE, class_map_of

        expected = class_map_of(labels)
        product = 1.0
        for kind in (MEMBRANE, FOREGROUND):
            predicted, wanted = kept == kind, expected == kind
            total = np.count_nonzero(predicted) + np.count_nonzero(wanted)
            product *= 2 * np.count_nonzero(predicted & wanted) / total if total else 0.0
        return math.sqrt(product)


class SupervoxelDecoder(ClassMapDecoder):
    """3DCellSeg's decoder TASCAN, see :mod:`cellrt.runtime.decoding.classes.tascan`."""

    name = "tascan"
    working_bytes, promised_bytes = 5, 8

    def __init__(self, parameters: TascanParameters) -> None:
        self.parameters = parameters

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Cluster supervoxels that touch in a large area."""
        from cellrt.runtime.decoding.classes.tascan import decode_supervoxels

        return decode_supervoxels(kept, self.parameters)


class WatershedDecoder(ClassMapDecoder):
    """Seeded watershed, see :func:`~cellrt.runtime.decoding.classes.baselines.decode_watershed`.

    Memory per voxel was measured, see docs/tascan.md.
    """

    name = "watershed"
    working_bytes, promised_bytes = 64, 128

    def __init__(self, parameters: WatershedParameters) -> None:
        self.parameters = parameters

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Flood the distance transform from its maxima."""
        from cellrt.runtime.decoding.classes.baselines import decode_watershed

        return decode_watershed(kept, self.parameters)


class DbscanDecoder(ClassMapDecoder):
    """DBSCAN on voxels, see :func:`~cellrt.runtime.decoding.classes.baselines.decode_dbscan`.

    Memory per voxel was measured, see docs/tascan.md.
    """

    name = "dbscan"
    working_bytes, promised_bytes = 400, 800

    def __init__(self, parameters: DbscanParameters) -> None:
        try:
            import sklearn.cluster  # noqa: F401
        except ImportError as error:
            raise UsageError(
                f"the decoder {self.name} needs packages that are not installed ({error.name}); "
                "install them with: pip install 'cellrt[dbscan]'"
            ) from None
        self.parameters = parameters

    def decode(self, kept: NDArray[Any], *, mode: Mode) -> NDArray[np.int32]:
        """Cluster the coordinates of the foreground's voxels."""
        from cellrt.runtime.decoding.classes.baselines import decode_dbscan

        return decode_dbscan(kept, self.parameters)
