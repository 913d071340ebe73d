"""Cellpose's own way from flows to cells, as the baseline runs it."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import torch

# Cellpose's default is 200; the flows compared here arrive within 100, so this is in its favour.
ITERATIONS = 100
# Cellpose divides the flow by 5 before each of its steps, because its networks are trained on flow
# times 5: a unit field is handed to it times 5, so that a voxel moves one voxel a step.
FACTOR = 5.0
SMALLEST_VOXELS = 15


def cellpose_masks(
    flow: np.ndarray, foreground: np.ndarray, threshold: float, device: torch.device
) -> np.ndarray:
    """Run ``compute_masks(do_3D=True)`` of Cellpose.

    Parameters
    ----------
    flow : (3, z, y, x) array
        Voxels per step, (z, y, x).
    foreground : (z, y, x) array
        Probability; cells are above `threshold`.
    """
    probability = np.clip(foreground.astype(np.float32), 1e-6, 1 - 1e-6)
    return np.asarray(
        _dynamics().compute_masks(
            FACTOR * flow.astype(np.float32),
            np.log(probability / (1 - probability)),  # its networks and threshold are logits
            niter=ITERATIONS,
            cellprob_threshold=float(np.log(threshold / (1 - threshold))),
            do_3D=True,
            min_size=SMALLEST_VOXELS,
            device=device,
        )
    )


def cellpose_version() -> str | None:
    """Its version, None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cellpose")
    except PackageNotFoundError:
        return None


def require_cellpose() -> None:
    """End a script that is going to need it before it measures anything."""
    if cellpose_version() is None:
        sys.exit(
            "cellpose is not installed; `pip install --no-deps cellpose` gives what is measured"
        )


def _dynamics() -> ModuleType:
    """Import the dynamics, where need be without torchvision.

    Cellpose imports it for changing images, for which the dynamics have no use; beside a torch that
    it was not built for it cannot be imported.
    """
    stand_ins: dict[str, ModuleType] = {}
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        package, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
        for name in ("functional", "_functional_tensor"):
            setattr(transforms, name, ModuleType(name))
        package.transforms = transforms  # type: ignore[attr-defined]
        stand_ins = {"torchvision": package, "torchvision.transforms": transforms}
    sys.modules |= stand_ins
    try:
        from cellpose import dynamics
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return dynamics
