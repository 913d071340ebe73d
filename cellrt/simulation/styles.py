"""Named styles of simulated stacks, as the command line offers them."""

from __future__ import annotations

from typing import Any

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
from cellrt.simulation.worms import simulate_worms

KINDS = ("nuclei", "membranes", "bacteria", "worms")
NOMINAL_DIAMETER = {"nuclei": 16.0, "membranes": 24.0, "bacteria": 16.0, "worms": 32.0}
"""Cell diameter in voxels for which the bundled models are made; of worms, of a disc of their
area."""

STYLES = {
    "nuclei": ("typical", "random", "paper", "empty", *ARRANGEMENTS),
    "membranes": ("typical", "random", "clumped", "tissue", "empty", *OUTLINES[1:]),
    "bacteria": ("typical", "phase", "dic"),
    "worms": ("typical", "fluorescence"),
}
"""``typical``: a good microscope; ``random``: anything a training set contains; ``paper``: the
HarmonicNet paper's nuclei; ``empty``: no cell, imaged in any way; ``clumped``: weak, uneven stain
and one wall in twenty missing; ``tissue``: cells up to all faces; the rest: where the cells are.
Bacteria are stained (``typical``), or seen by phase contrast or by DIC; worms are seen in bright
field (``typical``), or stained."""

_SHAPE = (64, 128, 128)
_VOXEL_SIZE_UM = (0.5, 0.5, 0.5)
_PLANAR_SHAPE = (1, 256, 256)
# Of kinds that are simulated in one slice: size of a pixel, and what style typical is.
_PLANAR_PIXEL_UM = {"bacteria": 0.065, "worms": 8.0}
_PLANAR_TYPICAL = {"bacteria": "fluorescence", "worms": "brightfield"}


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
        ``"nuclei"``, ``"membranes"``, or ``"bacteria"`` and ``"worms"``, which are images of one
        slice.
    style : str
        One of ``STYLES[kind]``.
    index : int
        Number of the stack in the series; the stack's own seed is ``seed + index``. In
        style ``paper`` the three variants take turns.
    seed : int
    shape : three ints, optional
        (z, y, x); 64 x 128 x 128 by default, the paper's own in style ``paper``, 1 x 256 x 256
        for bacteria and worms.
    diameter_voxels : float, optional
        Mean cell diameter; by default the nominal one of the bundled models.
    voxel_size_um : three floats, optional
        (z, y, x); 0.5 µm by default, 0.065 µm for bacteria, 8 µm for worms.

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
    if kind in _PLANAR_PIXEL_UM:
        return _planar(kind, style, shape, diameter_voxels, voxel_size_um, seed + index)
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


def _planar(
    kind: str,
    style: str,
    shape: tuple[int, int, int] | None,
    diameter_voxels: float | None,
    voxel_size_um: tuple[float, float, float] | None,
    seed: int,
) -> SimulatedStack:
    slices, *plane = shape or _PLANAR_SHAPE
    if slices != 1:
        raise UsageError(f"{kind} are simulated in one slice, not in {slices}; give --shape 1 Y X")
    pixel = _PLANAR_PIXEL_UM[kind]
    z, y, x = voxel_size_um or (pixel, pixel, pixel)
    if y != x or not min(z, y, x) > 0:
        raise UsageError(
            f"the voxel size is {z:g} {y:g} {x:g} µm; expected numbers above 0, the same along y "
            "and x"
        )
    simulate: Any = {"bacteria": simulate_bacteria, "worms": simulate_worms}[kind]
    stack: SimulatedStack = simulate(
        tuple(plane),
        contrast=_PLANAR_TYPICAL[kind] if style == "typical" else style,
        diameter_voxels=NOMINAL_DIAMETER[kind] if diameter_voxels is None else diameter_voxels,
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
