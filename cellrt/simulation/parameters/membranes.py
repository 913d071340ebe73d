"""What a tissue with stained membranes looks like, and how to draw it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellrt.simulation.parameters.imaging import log_uniform

OUTLINES = ("none", "ball", "cylinder", "half", "sheet", "shell")


@dataclass(frozen=True)
class MembraneParameters:
    """What the tissue looks like before the microscope sees it.

    Intensities are relative to the typical wall, 1. Lengths named `_diameters`
    are in mean cell diameters.

    Attributes
    ----------
    relaxation : int
        Rounds of Lloyd relaxation; more make cells more alike.
    size_spread : float
        Spread of the power diagram's weights, 0 gives a Voronoi diagram.
    elongation : float
        Ratio of the long to the short axis of the cells.
    divided_share : float
        Share of cells that are freshly divided in two.
    curvature : float
        Standard deviation of the warp that curves the walls, in diameters.
    curvature_scale_diameters : float
        Length over which the warp changes.
    outline : str
        ``"none"`` (tissue everywhere), ``"ball"``, ``"cylinder"``, ``"half"``,
        ``"sheet"`` (epithelium) or ``"shell"`` (hollow ball).
    bulge : float
        How much the outermost cells bulge, 0 to 1.
    gap_share : float
        Share of cells turned into air spaces (label 0).
    thickness_voxels : float
        Width of a wall, 1 or more.
    wall_spread : float
        Standard deviation of the logarithm of the strength per pair of cells.
    missing_walls : float
        Share of walls that are nearly unstained.
    weak_share : float
        Depth of staining gaps along walls, 0 to 1.
    outer_strength : float
        Strength of walls towards the outside.
    cytoplasm : float
        Level of signal inside cells.
    cytoplasm_spread : float
        Standard deviation of its logarithm between cells.
    cytoplasm_texture : float
        Relative standard deviation of its texture.
    nuclei : float
        Brightness of nuclei that glimmer through, 0 for none.
    spots_per_cell : float
        Mean number of bright puncta per cell.
    core_fade_diameters : float
        Depth below the tissue's surface at which the signal has fallen to 1/e; 0 for no fall-off.
    haze : float
        Level of light outside of the tissue and everywhere.
    """

    relaxation: int = 3
    size_spread: float = 0.3
    elongation: float = 1.3
    divided_share: float = 0.2
    curvature: float = 0.08
    curvature_scale_diameters: float = 0.8
    outline: str = "none"
    bulge: float = 0.4
    gap_share: float = 0.0
    thickness_voxels: float = 2.0
    wall_spread: float = 0.3
    missing_walls: float = 0.0
    weak_share: float = 0.3
    outer_strength: float = 1.2
    cytoplasm: float = 0.1
    cytoplasm_spread: float = 0.4
    cytoplasm_texture: float = 0.3
    nuclei: float = 0.0
    spots_per_cell: float = 0.5
    core_fade_diameters: float = 0.0
    haze: float = 0.03

    @classmethod
    def random(cls, rng: np.random.Generator) -> MembraneParameters:
        """Draw tissue and stain from a wide but realistic range."""
        return cls(
            relaxation=int(rng.integers(0, 6)),
            size_spread=rng.uniform(0.0, 0.6),
            elongation=math.exp(abs(rng.normal(0, 0.4))),
            divided_share=rng.uniform(0.0, 0.5),
            curvature=rng.uniform(0.0, 0.14),
            curvature_scale_diameters=rng.uniform(0.4, 1.5),
            outline=str(rng.choice(OUTLINES, p=[0.36, 0.18, 0.1, 0.14, 0.14, 0.08])),
            bulge=float(rng.uniform(0.0, 1.0)),
            gap_share=rng.uniform(0.0, 0.06) if rng.uniform() < 0.2 else 0.0,
            thickness_voxels=rng.uniform(1.0, 3.0),
            wall_spread=rng.uniform(0.05, 0.6),
            missing_walls=rng.uniform(0.0, 0.08) if rng.uniform() < 0.3 else 0.0,
            weak_share=rng.uniform(0.0, 0.8),
            outer_strength=rng.uniform(0.6, 2.0),
            cytoplasm=log_uniform(rng, 0.01, 0.35),
            cytoplasm_spread=rng.uniform(0.0, 0.6),
            cytoplasm_texture=rng.uniform(0.1, 0.6),
            nuclei=rng.uniform(0.05, 0.5) if rng.uniform() < 0.25 else 0.0,
            spots_per_cell=rng.uniform(0, 6) if rng.uniform() < 0.35 else 0.0,
            core_fade_diameters=rng.uniform(1.5, 6) if rng.uniform() < 0.4 else 0.0,
            haze=log_uniform(rng, 0.003, 0.15),
        )
