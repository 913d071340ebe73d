"""Decode, merge and draw the same things again, with others in between: what moves is a race."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from fields import EVERY_STEP, noisy_field, shapes
from numba import config, cuda
from numpy.typing import NDArray

from cellrt.runtime.decoding.flows.cells import decode_packed
from cellrt.runtime.decoding.flows.cuda.steps import CudaSteps
from cellrt.runtime.decoding.flows.steps import HOST
from cellrt.runtime.decoding.star import rasterise, rasterise_cuda
from cellrt.runtime.decoding.star.directions import directions
from cellrt.runtime.decoding.star.harmonics import radius_ranges
from cellrt.runtime.machine.gpu import open_device
from cellrt.runtime.network.merge import merge
from cellrt.runtime.network.merge_cuda import DeviceSums
from cellrt.runtime.network.tiles import Tile, TileGrid, plan_tiles

SMALL = bool(config.ENABLE_CUDASIM)
SHAPE = (9, 10, 20) if SMALL else (96, 192, 192)
TILE = (16, 16, 16) if SMALL else (48, 96, 96)
FIELDS = 2 if SMALL else 10


def main() -> None:
    steps, gpu = CudaSteps(), open_device()
    stream = gpu.stream()
    grid = plan_tiles(SHAPE, halo=0, blend=2, tile=TILE)
    fields = [noisy_field(SHAPE, seed) for seed in range(FIELDS)]
    tiles = np.random.default_rng(0).random((len(grid), 4, *TILE), dtype=np.float32)
    wrong = 0
    expected = []
    for packed in fields:
        begin = time.perf_counter()
        labels = decode_packed(packed, EVERY_STEP).labels
        shape = tuple(n + n // 2 for n in SHAPE)
        options = {"step": 4.0, "threshold": 0.5, "walls": True}
        finer = HOST.upsample(labels, packed, shape, **options)
        expected.append((labels, finer, time.perf_counter() - begin))
    merged = _merged(grid, tiles, None)
    for turn in range(2):
        for number, packed in enumerate(fields):
            labels, finer, on_cpu = expected[number]
            begin = time.perf_counter()
            found = decode_packed(packed, EVERY_STEP, steps=steps).labels
            other = steps.upsample(found, packed, shape, **options)
            seconds = time.perf_counter() - begin
            same = np.array_equal(found, labels), np.array_equal(other, finer)
            sums = _merged(grid, tiles, DeviceSums(gpu, stream), stream)
            off = float(np.abs(sums - merged).max())
            wrong += not (all(same) and off <= 1e-5)  # which NaN is not
            print(
                f"turn {turn}, field {number}: {labels.max()} cells, labels and finer labels the "
                f"CPU's: {same}, merge differs by {off:.1g}; {seconds:.3f} s (CPU {on_cpu:.3f} s)"
            )
    wrong += _draw_again()
    if wrong:
        raise SystemExit(f"{wrong} results moved")
    print("nothing moved")


def _draw_again() -> int:
    """Draw shapes of both kinds by both rules, twice; returns how often the CPU did otherwise."""
    wrong = 0
    for turn in range(2):
        for kind in ("harmonics", "rays"):
            centres, values = shapes(kind, SHAPE, seed=0, diameter=6 if SMALL else 18)
            reach = radius_ranges(values)[:, 1] if kind == "harmonics" else None
            for first, limit in ((True, 1.0), (False, 1.3)):
                options = {"first": first, "limit": limit}
                seconds, found = [], []
                for draw in (rasterise, rasterise_cuda):
                    given = (SHAPE, (1.0, 0.9, 1.1), centres, values)
                    begin = time.perf_counter()
                    if reach is None:
                        labels = draw.rasterise_rays(*given, directions(96), **options)
                    else:
                        labels = draw.rasterise_harmonics(*given, reach, **options)
                    seconds.append(time.perf_counter() - begin)
                    found.append([labels])
                    if reach is not None and first:
                        masks = draw.harmonic_masks(SHAPE, centres, values, reach)
                        found[-1] += [masks.voxels, masks.volumes]
                off = [int((a != b).sum()) for a, b in zip(*found, strict=True)]
                wrong += any(off)
                print(
                    f"turn {turn}, {len(centres)} {kind}, first {first}: {off} voxels are not the "
                    f"CPU's; {seconds[1]:.3f} s (CPU {seconds[0]:.3f} s)"
                )
    return wrong


def _merged(
    grid: TileGrid, tiles: NDArray[np.float32], sums: DeviceSums | None, stream: Any = 0
) -> NDArray[np.float32]:
    """All tiles merged, on the host or in a stream of the device."""
    merged = np.full((tiles.shape[1], *grid.shape), np.nan, np.float32)

    def predictions() -> Iterator[tuple[Tile, Any]]:
        for there, tile in zip(tiles, grid, strict=True):
            yield tile, there if sums is None else cuda.to_device(there, stream=stream)

    for block in merge(grid, predictions(), sums):
        fields = block.fields
        if sums is not None:
            shape = (tiles.shape[1], *fields.shape)
            packed = cuda.device_array(math.prod(shape), np.float32, stream=stream)
            sums.pack(fields, 0, shape[1], packed)
            fields = packed.copy_to_host(stream=stream).reshape(shape)
            stream.synchronize()
        merged[:, block.z, block.y] = fields
    return merged


if __name__ == "__main__":
    main()
