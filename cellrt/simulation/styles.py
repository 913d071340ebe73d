"""Named styles of simulated stacks, as the command line offers them."""

from __future__ import annotations

from cellrt.errors import UsageError
from cellrt.simulation.bacteria import simulate_bacteria
from cellrt.simulation.empty import simulate_empty
from cellrt.simulation.membranes import simulate_membranes
from cellrt.simulation.nuclei import simulate_nuclei
from cellrt.simulation.paper_nuclei import (
    PAPER_DIAMETER,
    PAPER_SHAPE,
    PAPER_VARIANTS,
    simulate_paper_nuclei,
)
from cellrt.simulation.parameters.imaging import ImagingParameters
from cellrt.simulation.parameters.membranes import OUTLINES, MembraneParameters
from cellrt.simulation.parameters.nuclei import NucleiParameters
from cellrt.simulation.stack import SimulatedStack
from cellrt.simulation.structure.packing import ARRANGEMENTS

KINDS = ("nuclei", "membranes", "bacteria")
NOMINAL_DIAMETER = {"nuclei": 16.0, "membranes": 24.0, "bacteria": 16.0}
"""Cell diameter in voxels for which the bundled models are made."""

STYLES = {
    "nuclei": ("typical", "random", "paper", "empty", *ARRANGEMENTS),
    "membranes": ("typical", "random", "clumped", "tissue", "empty", *OUTLINES[1:]),
    "bacteria": ("typical", "phase", "dic"),
}
"""``typical``: a good microscope; ``random``: anything a training set contains; ``paper``: the
HarmonicNet paper's nuclei; ``empty``: no cell, imaged in any way; ``clumped``: weak, uneven stain
and one wall in twenty missing; ``tissue``: cells up to all faces; the rest: where the cells are.
Bacteria are stained (``typical``), or seen by phase contrast or by DIC."""

_SHAPE = (64, 128, 128)
_VOXEL_SIZE_UM = (0.5, 0.5, 0.5)
_FLAT_SHAPE = (1, 256, 256)
_BACTERIA_PIXEL_UM = 0.065


def simulate_style(
    kind: str,
    style: str = "typical",
    *,
    index: int = 0,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
    diameter_voxels: float | None = None,
    voxel_size_um: tuple[float, float, float] | None = None,
) -> SimulatedStack:
    """Simulate one stack of a series.

    Parameters
    ----------
    kind : str
        ``"nuclei"``, ``"membranes"`` or ``"bacteria"``, which are images of one slice.
    style : str
        One of ``STYLES[kind]``.
    index : int
        Number of the stack in the series; the stack's own seed is ``seed + index``. In
        style ``paper`` the three variants take turns.
    seed : int
    shape : three ints, optional
        (z, y, x); 64 x 128 x 128 by default, the paper's own in style ``paper``, 1 x 256 x 256
        for bacteria.
    diameter_voxels : float, optional
        Mean cell diameter; by default the nominal one of the bundled models.
    voxel_size_um : three floats, optional
        (z, y, x); 0.5 µm by default, 0.065 µm for bacteria.

    Returns
    -------
    SimulatedStack

    Raises
    ------
    UsageError
        When kind or style are not known or a number makes no sense.
    """
    if kind not in KINDS:
        raise UsageError(f"'{kind}' cannot be simulated; choose from {', '.join(KINDS)}")
    if style not in STYLES[kind]:
        raise UsageError(
            f"style '{style}' is not known for {kind}; choose from {', '.join(STYLES[kind])}"
        )
    if seed < 0:
        raise UsageError(f"seed is {seed}; give a whole number of 0 or more")
    if kind == "bacteria":
        return _bacteria(style, shape or _FLAT_SHAPE, diameter_voxels, voxel_size_um, seed + index)
    size = shape or (PAPER_SHAPE if style == "paper" else _SHAPE)
    voxel = voxel_size_um or _VOXEL_SIZE_UM
    own_seed = seed + index
    if style == "paper":
        return simulate_paper_nuclei(
            PAPER_VARIANTS[index % len(PAPER_VARIANTS)],
            size,
            diameter_voxels=PAPER_DIAMETER if diameter_voxels is None else diameter_voxels,
            voxel_size_um=voxel,
            seed=own_seed,
        )
    diameter = NOMINAL_DIAMETER[kind] if diameter_voxels is None else diameter_voxels
    imaging = None if style == "random" else ImagingParameters()
    if style == "empty":
        stack = simulate_empty(
            size, kind=kind, diameter_voxels=diameter, voxel_size_um=voxel, seed=own_seed
        )
    elif kind == "nuclei":
        stack = simulate_nuclei(
            size,
            diameter_voxels=diameter,
            voxel_size_um=voxel,
            nuclei=_nuclei_of(style),
            imaging=imaging,
            seed=own_seed,
        )
    else:
        stack = simulate_membranes(
            size,
            diameter_voxels=diameter,
            voxel_size_um=voxel,
            membranes=_membranes_of(style),
            imaging=imaging,
            seed=own_seed,
        )
    stack.parameters["style"] = style
    return stack


def _bacteria(
    style: str,
    shape: tuple[int, int, int],
    diameter_voxels: float | None,
    voxel_size_um: tuple[float, float, float] | None,
    seed: int,
) -> SimulatedStack:
    if shape[0] != 1:
        raise UsageError(
            f"bacteria are simulated in one slice, not in {shape[0]}; give --shape 1 Y X"
        )
    _, y, x = voxel_size_um or (1.0, _BACTERIA_PIXEL_UM, _BACTERIA_PIXEL_UM)
    if y != x:
        raise UsageError(f"pixels are {y:g} x {x:g} µm; expected the same size along y and x")
    stack = simulate_bacteria(
        shape[1:],
        contrast="fluorescence" if style == "typical" else style,  # type: ignore[arg-type]
        diameter_voxels=NOMINAL_DIAMETER["bacteria"]
        if diameter_voxels is None
        else diameter_voxels,
        pixel_um=x,
        seed=seed,
    )
    stack.parameters["style"] = style
    return stack


def _nuclei_of(style: str) -> NucleiParameters | None:
    if style == "random":
        return None
    if style == "typical":
        return NucleiParameters()
    filling = {"scattered": 0.08, "clumps": 0.2}.get(style, 0.4)
    return NucleiParameters(arrangement=style, filling=filling)


def _membranes_of(style: str) -> MembraneParameters | None:
    if style == "random":
        return None
    if style == "clumped":
        return MembraneParameters(
            outline="ball", missing_walls=0.05, weak_share=0.5, wall_spread=0.4
        )
    outline = {"typical": "ball", "tissue": "none"}.get(style, style)
    return MembraneParameters(outline=outline)
