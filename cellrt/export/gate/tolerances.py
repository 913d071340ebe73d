"""How far a graph may be from what it was made of, per precision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from the reference.

    Attributes
    ----------
    voxel : float
        Difference beyond which a voxel counts as deviating.
    share : float
        Largest share of deviating voxels.
    mean : float
        Largest mean absolute difference.
    instances : float
        Smallest AP between the label images decoded from both, over the cells of all tiles.
    iou : float
        IoU from which two cells count as the same.
    radius : float
        Where networks predict shapes, how far those may be off in 99 of 100 voxels inside of cells,
        in voxels of radius. Other tolerances do not regard shapes: a coefficient may be 30.
    """

    voxel: float = 1e-3
    share: float = 0.0
    mean: float = 1e-4
    instances: float = 0.99
    iou: float = 0.9
    radius: float = 0.01


FP32 = Tolerance()
# Also for a file whose weights were rounded to fp16.
FP16 = Tolerance(voxel=0.02, share=0.001, mean=0.002, instances=0.98, iou=0.75, radius=0.1)
# What OpenVINO makes of an fp32 file on a CPU that computes in bf16.
BF16_ENGINE = Tolerance(voxel=0.1, share=0.02, mean=0.02, instances=0.9, radius=0.5)
TOLERANCES = {
    "fp16": FP16,
    "bf16": Tolerance(voxel=0.1, share=0.02, mean=0.02, instances=0.98, iou=0.75, radius=0.5),
    "int8": Tolerance(voxel=0.2, share=0.02, mean=0.03, instances=0.95, iou=0.75, radius=0.5),
}
"""Of a file in another precision, against the fp32 file it was made of."""

# Engines round at different places, and a mean over a small golden image does not average that out.
GOLDEN_TOLERANCE = {"fp16": 1e-3, "bf16": 1e-2, "int8": 1e-2}
