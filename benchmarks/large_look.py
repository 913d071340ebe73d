"""Memory of looking at a stack of 4 GB: intensities, plan and preview of one channel of four.

python benchmarks/large_look.py FOLDER           # makes big.tif there, 4.3 GB, and looks at it
python benchmarks/large_look.py FOLDER --zarr    # the same as a Zarr store
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from report import parser

from cellrt.runtime.machine.memory import peak_memory_bytes

SHAPE = (256, 4, 1024, 2048)  # (z, c, y, x)


def main() -> None:
    """Make the stack in a process of its own, look at it in this one."""
    options = parser(__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--zarr", action="store_true")
    options.add_argument("--model", default="nuclei")
    arguments = options.parse_args()
    path = arguments.folder / ("big.zarr" if arguments.zarr else "big.tif")
    if not path.exists():
        from multiprocessing import get_context

        maker = get_context("spawn").Process(target=_make, args=(path,))
        maker.start()
        maker.join()
    from cellrt.runtime.results.preview.page import write_preview
    from cellrt.runtime.segment import Segmenter

    job = Segmenter(arguments.model).prepare(
        path, channel=2, diameter=17, anisotropy=1.0, axes="ZCYX"
    )
    empty = np.broadcast_to(np.zeros((1, 1, 1), np.int32), job.volume.shape)
    write_preview(arguments.folder / "big.png", job.volume.image, empty, title="big", cells=0)
    print(job.findings.line())
    print(f"peak {(peak_memory_bytes() or 0) / 1e6:.0f} MB for {path.name}")


def _make(path: Path) -> None:
    from cellrt.simulation.styles import simulate_style

    cube = simulate_style("nuclei", seed=1, shape=(128, 128, 128)).image
    plane_of = np.tile(cube, (2, 8, 16))
    if path.suffix == ".zarr":
        import zarr

        store = zarr.create_array(
            str(path), shape=SHAPE, chunks=(32, 1, 256, 256), dtype=cube.dtype
        )
        for z in range(0, SHAPE[0], 32):
            store[z : z + 32, 1] = plane_of[z : z + 32]
        return
    stack = tifffile.memmap(
        path, shape=SHAPE, dtype=cube.dtype, bigtiff=True, metadata={"axes": "ZCYX"}
    )
    for z in range(SHAPE[0]):
        stack[z, 1] = plane_of[z]
    stack.flush()


if __name__ == "__main__":
    main()
