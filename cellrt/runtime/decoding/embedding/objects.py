"""From clusters to objects: what of one cluster is one object, where it lies apart in the image.

Pixels of one cluster are of one object where their parts lie within a given distance of each other,
as those of a worm do that another one crosses; farther parts are different objects, whose places in
the embedding space coincide by chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import label

from cellrt.compiled import compiled


def objects_of(clusters: npt.NDArray[np.int32], join_distance: float) -> npt.NDArray[np.int32]:
    """Part clusters into objects.

    Parameters
    ----------
    clusters : (y, x) int32 array
        Clusters from 1, background 0.
    join_distance : float
        In pixels, between the nearest pixels of two parts of a cluster; parts that touch, also by
        a corner, are one in any case.

    Returns
    -------
    (y, x) int32 array
        Objects from 1.
    """
    parts, count = label(clusters, connectivity=2, background=0, return_num=True)
    parts = np.ascontiguousarray(parts, np.int32)
    group = np.arange(count + 1, dtype=np.int32)
    clusters = np.ascontiguousarray(clusters)
    _join(clusters, parts, _in_parts(clusters, parts, count), _offsets(join_distance), group)
    numbers = np.unique(group, return_inverse=True)[1].astype(np.int32)
    objects: npt.NDArray[np.int32] = numbers[parts]
    return objects


def _in_parts(
    clusters: npt.NDArray[np.int32], parts: npt.NDArray[np.int32], count: int
) -> npt.NDArray[np.bool_]:
    """Which clusters lie in several parts; most do not, and have nothing to join."""
    cluster_of = np.zeros(count + 1, np.int32)
    cluster_of[parts.ravel()] = clusters.ravel()
    return np.bincount(cluster_of[1:], minlength=int(cluster_of.max()) + 1) > 1


def _offsets(distance: float) -> npt.NDArray[np.int64]:
    """Pixels within a distance, one of each pair that lies opposite, without direct neighbours."""
    reach = int(distance)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squares = y * y + x * x
    chosen = (squares <= distance * distance) & (squares > 2) & ((y > 0) | ((y == 0) & (x > 0)))
    return np.ascontiguousarray(np.stack([y[chosen], x[chosen]], axis=1), np.int64)


@compiled
def _join(clusters: Any, parts: Any, in_parts: Any, offsets: Any, group: Any) -> None:
    """Make parts of one cluster one group where pixels lie within the offsets of each other."""
    ny, nx = clusters.shape
    for y in range(ny):
        for x in range(nx):
            cluster = clusters[y, x]
            if cluster == 0 or not in_parts[cluster]:
                continue
            inner = 0 < y < ny - 1 and 0 < x < nx - 1
            if inner and (
                clusters[y - 1, x] == cluster
                and clusters[y + 1, x] == cluster
                and clusters[y, x - 1] == cluster
                and clusters[y, x + 1] == cluster
            ):
                continue  # what is near lies nearer to one at the border
            for k in range(offsets.shape[0]):
                v, u = y + offsets[k, 0], x + offsets[k, 1]
                if v >= ny or u < 0 or u >= nx or clusters[v, u] != cluster:
                    continue
                a, b = _first(group, parts[y, x]), _first(group, parts[v, u])
                group[max(a, b)] = min(a, b)
    for part in range(group.size):
        group[part] = _first(group, part)


@compiled
def _first(group: Any, part: Any) -> Any:
    while group[part] != part:
        group[part] = group[group[part]]
        part = group[part]
    return part
