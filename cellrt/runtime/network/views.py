"""A planar network on a stack: asked about planes along all three axes, its answers averaged.

Each plane through a cell shows a disc, whose flow has two components. What two views say of one
component, and three of the foreground, becomes one field as of a 3D network::

    planes    across z (YX)    across y (ZX)    across x (ZY)
    flow z                     x                x
    flow y    x                                 x
    flow x    x                x
    foreground x               x                x

Views are averaged tile by tile: a tile is a box, of which every view takes the planes it needs, and
no view is ever held for a volume. The scheme is Cellpose's (Stringer et al., Nature Methods 2021),
which adds the views up as if all were as sharp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cellrt.geometry import Shape
from cellrt.runtime.network.engines.base import Session

VIEWS: tuple[Shape, ...] = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
"""Axes of a box in the order in which a view has them: across its planes, down and along them."""
NAMES = ("yx", "zx", "zy")
FOREGROUND = 3
# Views that say something of each field: all but the one across it, and all of the foreground.
_SAID_OF = ((1, 2), (0, 2), (0, 1), (0, 1, 2))
VOXELS_AT_ONCE = 400_000
"""Voxels that the network is given at once, at most; all three views are loaded together."""

Weights = tuple[float, float, float]


def view_weights(enlarged: Sequence[float]) -> Weights:
    """How much each view counts, in the order of `VIEWS`; the largest is 1.

    Between slices far apart an image is interpolated, and planes that cut through them are blurred
    along z by as much. They count less by that factor.

    Parameters
    ----------
    enlarged : (float, float, float)
        Voxels of the model's grid per voxel of the image, along (z, y, x).

    Examples
    --------
    >>> view_weights((4.0, 1.0, 1.0))
    (1.0, 0.25, 0.25)
    >>> view_weights((1.0, 0.5, 0.5))  # averaging blurs nothing
    (1.0, 1.0, 1.0)
    """
    blur = [max(1.0, factor) for factor in enlarged]
    sharp = [1 / (blur[down] * blur[along]) for _, down, along in VIEWS]
    yx, zx, zy = (each / max(sharp) for each in sharp)
    return yx, zx, zy


class ViewsSession:
    """A planar network with flows, as a session for boxes.

    Parameters
    ----------
    load : callable
        Loads the network for tiles (planes, down, along).
    tile : (int, int, int)
        Box (z, y, x).
    """

    def __init__(self, load: Callable[[Shape], Session], tile: Shape) -> None:
        shapes = []
        for view in VIEWS:
            across, down, along = (tile[axis] for axis in view)
            shapes.append((_planes_at_once(across, down, along), down, along))
        loaded = {shape: load(shape) for shape in dict.fromkeys(shapes)}
        self._views = [(loaded[shape], shape[0]) for shape in shapes]
        self._sessions = tuple(loaded.values())
        self.device = self._sessions[0].device
        self.precision = self._sessions[0].precision

    def finish(self) -> None:
        """Let sessions keep what they do for the next process."""
        for session in self._sessions:
            if hasattr(session, "finish"):
                session.finish()

    def infer(
        self, image: NDArray[np.float32], weights: Weights = (1.0, 1.0, 1.0)
    ) -> NDArray[np.float32]:
        """Average the views of boxes (n, 1, z, y, x).

        Returns
        -------
        (n, 4, z, y, x) float32 array
            Flow along z, y and x, and foreground.
        """
        fields = np.zeros((len(image), len(_SAID_OF), *image.shape[2:]), np.float32)
        for view, weight, (session, planes) in zip(VIEWS, weights, self._views, strict=True):
            axes = (0, 1, *(2 + axis for axis in view))
            seen, there = image.transpose(axes), fields.transpose(axes)
            for n, run in np.ndindex(len(image), seen.shape[2] // planes):
                part = slice(run * planes, (run + 1) * planes)
                said = session.infer(np.ascontiguousarray(seen[n : n + 1, :, part]))[0]
                # Along its own planes: its flow down them is ours along an axis of the box.
                for ours, its in ((view[1], 1), (view[2], 2), (FOREGROUND, FOREGROUND)):
                    share = weight / sum(weights[v] for v in _SAID_OF[ours])
                    there[n, ours, part] += np.float32(share) * said[its]
        return fields


def _planes_at_once(count: int, down: int, along: int) -> int:
    """The most planes that are few enough at once and of which the count is a multiple."""
    most = min(count, max(1, VOXELS_AT_ONCE // (down * along)))
    return next(planes for planes in range(most, 0, -1) if count % planes == 0)
