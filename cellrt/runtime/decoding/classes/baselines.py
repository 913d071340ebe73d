"""The decoders that TASCAN is compared with: a seeded watershed, and DBSCAN on voxels.

Both take the same class map and end in the same clean-up, so that only the clustering differs. They
are here for comparison, not for speed: scikit-image's flooding takes a queue of all voxels, and
DBSCAN the neighbours of each voxel at once.

References
----------
Wang et al., Scientific Reports 12:342, 2022 (table 3: U-Net and seeded watershed; table 4: DBSCAN).
Ester et al., "A density-based algorithm for discovering clusters in large spatial databases with
noise", KDD 1996.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError
from cellrt.runtime.decoding.classes.class_map import FOREGROUND, ClassMap
from cellrt.runtime.decoding.classes.clean_up import CleanUpParameters, check_class_map, clean_up


@dataclass(frozen=True)
class WatershedParameters(CleanUpParameters):
    """How a class map is flooded, besides the clean-up; lengths are in voxels.

    Attributes
    ----------
    smoothing : float
        Standard deviation of the Gaussian on the distance transform.
    seed_distance : int
        A seed is the highest voxel of the box that reaches this far to all sides.

    Raises
    ------
    InputError
        A value outside of its range; the message names it.
    """

    smoothing: float = 1.0
    seed_distance: int = 2

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise InputError(f"smoothing is {self.smoothing}; expected a number of at least 0")
        if self.seed_distance != int(self.seed_distance) or self.seed_distance < 1:
            raise InputError(
                f"seed_distance is {self.seed_distance}; expected a whole number of at least 1"
            )
        super().__post_init__()


@dataclass(frozen=True)
class DbscanParameters(CleanUpParameters):
    """How foreground voxels are clustered, besides the clean-up; lengths are in voxels.

    Attributes
    ----------
    radius : float
        Voxels within this distance are neighbours (DBSCAN's eps).
    min_neighbours : int
        A voxel with at least this many neighbours, itself included, is the core of a cluster
        (DBSCAN's min_samples). The ball of radius 2 holds 33 voxels.

    Raises
    ------
    InputError
        A value outside of its range; the message names it.
    """

    radius: float = 2.0
    min_neighbours: int = 30

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not 1 <= self.radius <= 16:
            raise InputError(f"radius is {self.radius}; expected a number from 1 to 16")
        if self.min_neighbours != int(self.min_neighbours) or self.min_neighbours < 1:
            raise InputError(
                f"min_neighbours is {self.min_neighbours}; expected a whole number of at least 1"
            )
        super().__post_init__()


def decode_watershed(classes: ClassMap, parameters: WatershedParameters) -> npt.NDArray[np.int32]:
    """Flood the distance transform of the foreground from the maxima of its smoothed self.

    Parameters and result as in :func:`~cellrt.runtime.decoding.classes.tascan.decode_supervoxels`.
    """
    from scipy import ndimage
    from skimage.segmentation import watershed

    check_class_map(classes)
    inside = classes == FOREGROUND
    if not inside.any():
        return np.zeros(classes.shape, np.int32)
    # Where all is foreground there is no distance: one cell.
    distance = (
        np.ones(classes.shape, np.float32)
        if inside.all()
        else ndimage.distance_transform_edt(inside).astype(np.float32)
    )
    distance = ndimage.gaussian_filter(distance, parameters.smoothing)
    highest = ndimage.maximum_filter(distance, 2 * parameters.seed_distance + 1)
    seeds, _ = ndimage.label((distance == highest) & inside, np.ones((3, 3, 3)))
    labels: npt.NDArray[np.int32] = watershed(-distance, seeds.astype(np.int32), mask=inside)
    clean_up(labels, classes, parameters)
    return labels


def decode_dbscan(classes: ClassMap, parameters: DbscanParameters) -> npt.NDArray[np.int32]:
    """Cluster the coordinates of the foreground's voxels; noise is leftover foreground.

    Parameters and result as in :func:`~cellrt.runtime.decoding.classes.tascan.decode_supervoxels`.
    """
    from sklearn.cluster import dbscan

    check_class_map(classes)
    labels = np.zeros(classes.shape, np.int32)
    inside = classes == FOREGROUND
    if inside.any():
        _, clusters = dbscan(
            np.argwhere(inside).astype(np.float32),
            eps=parameters.radius,
            min_samples=int(parameters.min_neighbours),
            algorithm="kd_tree",
            n_jobs=-1,
        )
        labels[inside] = clusters + 1
        clean_up(labels, classes, parameters)
    return labels
