"""Segment stacks and an image with every engine that loads; cells against fp32 on the CPU.

Of all bundled models, or of those named.
"""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any

import numpy as np
from numba import config

import cellrt
from cellrt.evaluation.engine_runs import working_engines
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.simulation import (
    ImagingParameters,
    MembraneParameters,
    NucleiParameters,
    simulate_bacteria,
    simulate_membranes,
    simulate_nuclei,
)

SMALL = bool(config.ENABLE_CUDASIM)
LEAST = 0.98
IOU = 0.75


def main() -> None:
    shape = (24, 48, 48) if SMALL else (72, 160, 160)
    # Typical ones: where half of what is found is doubtful, a last bit decides about cells.
    typical: dict[str, Any] = {"diameter_voxels": 20, "imaging": ImagingParameters(), "seed": 9}
    stacks = {
        "nuclei": simulate_nuclei(shape, nuclei=NucleiParameters(), **typical).image,
        "membranes": simulate_membranes(shape, membranes=MembraneParameters(), **typical).image,
    }
    stacks["membranes-3dcellseg"] = stacks["membranes-harmonicnet"] = stacks["membranes"]
    stacks["nuclei-stardist"] = stacks["nuclei-harmonicnet"] = stacks["nuclei"]
    cells = simulate_bacteria((48, 64) if SMALL else (384, 512), contrast="fluorescence", seed=9)
    stacks["nuclei2d"] = stacks["cells2d-harmonic"] = cells.image
    engines, failed = working_engines(), 0
    on_gpu = [name for name in engines if choose_engine(name).spec.needs == "nvidia"]
    engines = on_gpu or engines
    print("engines:", ", ".join(engines))
    for model in sys.argv[1:] or stacks:
        image = stacks[model]
        diameter = cells.parameters["diameter_voxels"] if image is cells.image else 20.0
        settings: dict[str, Any] = {"diameter": diameter, "voxel_size": (1.0, 1.0, 1.0)}
        expected = cellrt.segment(
            image, model=model, engine="openvino", precision="fp32", **settings
        ).labels
        for engine in engines:
            segmenter = cellrt.Segmenter(model, engine=engine)
            for turn in range(2):
                begin = time.perf_counter()
                try:
                    result = segmenter(image, **settings)
                except Exception:  # the next engine is to be tried, whatever ails this one
                    failed += 1
                    traceback.print_exc()
                    break
                seconds = time.perf_counter() - begin
                ap = cellrt.evaluate(result.labels, expected, thresholds=(IOU,)).at(IOU)
                agreement = ap.average_precision if np.any(expected) else 1.0
                failed += not agreement >= LEAST
                record = result.record
                print(
                    f"{model}, {engine}, turn {turn}: AP75 {agreement:.3f}, {len(result.table)} "
                    f"cells, {seconds:.2f} s, {record['seconds']}"
                )
                for warning in record.get("warnings", ()):
                    print("   ", warning)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
