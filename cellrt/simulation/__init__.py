"""Stacks with known cells, for training, tests, benchmarks and the demo.

No torch here. Seeded: the same parameters and the same seed give the same bytes.
"""

from __future__ import annotations

from cellrt.simulation.bacteria import simulate_bacteria
from cellrt.simulation.empty import simulate_empty
from cellrt.simulation.membranes import simulate_membranes, simulate_membranes_from_labels
from cellrt.simulation.microscope.imaging import degrade
from cellrt.simulation.nuclei import simulate_nuclei
from cellrt.simulation.paper_nuclei import simulate_paper_nuclei
from cellrt.simulation.parameters.imaging import ImagingParameters
from cellrt.simulation.parameters.membranes import MembraneParameters
from cellrt.simulation.parameters.nuclei import NucleiParameters
from cellrt.simulation.stack import SimulatedStack
from cellrt.simulation.worms import simulate_worms

__all__ = [
    "ImagingParameters",
    "MembraneParameters",
    "NucleiParameters",
    "SimulatedStack",
    "degrade",
    "simulate_bacteria",
    "simulate_empty",
    "simulate_membranes",
    "simulate_membranes_from_labels",
    "simulate_nuclei",
    "simulate_paper_nuclei",
    "simulate_worms",
]
