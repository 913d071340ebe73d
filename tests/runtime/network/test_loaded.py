"""A model in its engine belongs to one process."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cellrt.runtime.job import Options
from cellrt.runtime.model.file import open_model
from cellrt.runtime.preparation import load

FORKED = """
import multiprocessing
import numpy as np
import cellrt
from cellrt.errors import EngineError

image = np.random.default_rng(0).integers(0, 99, (8, 24, 24)).astype(np.uint8)
cells = cellrt.Segmenter("nuclei")
cells(image, diameter=16)

def again(whom):
    try:
        (cells if whom == "same" else cellrt.Segmenter("nuclei"))(image, diameter=16)
    except EngineError as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1) as pool:
    for whom in ("same", "new"):
        print(pool.apply_async(again, (whom,)).get(60))
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)
def test_a_fork_of_a_process_with_an_engine_is_refused_and_does_not_hang():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all("get_context('spawn')" in line for line in lines)


@pytest.mark.parametrize("model", ["nuclei2d", "cells2d-harmonic"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_several_threads_compute_what_one_does(model, engine):
    shape = (1, 64, 96)
    tiles = np.random.default_rng(0).random((6, 1, 1, *shape), np.float32)
    networks = [load(open_model(model), Options(engine=engine), at_once=n) for n in (1, 3)]

    def fields(network, tile):
        with network.in_use:
            return network.session(shape).infer(tile)

    alone = [fields(networks[0], tile) for tile in tiles]
    with ThreadPoolExecutor(3) as pool:
        several = list(pool.map(lambda tile: fields(networks[1], tile), np.repeat(tiles, 4, 0)))
    for number, found in enumerate(several):
        np.testing.assert_array_equal(found, alone[number // 4])
