"""Where cells are decoded: on an NVIDIA GPU that gives the CPU's labels, or on the CPU."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError
from cellrt.runtime.decoding.base import Place
from cellrt.runtime.decoding.flows.cells import FlowParameters, decode_packed
from cellrt.runtime.decoding.flows.packed_field import pack_field
from cellrt.runtime.decoding.flows.steps import HOST, Steps
from cellrt.runtime.decoding.flows.targets import tanh_table
from cellrt.runtime.decoding.try_gpu import try_gpu
from cellrt.runtime.machine.apart import call_apart
from cellrt.runtime.machine.driver import nvidia_gpus

# The first time on a machine compiles kernels.
_MOST_SECONDS = 300
_EVERY_STEP = FlowParameters(wall_thickness=3.0, min_probability=0.6)


@functools.cache
def find_gpu() -> tuple[Any, Place]:
    """Look for a GPU that decodes a small field as the CPU does; once per process.

    The first time on a machine compiles the kernels.

    Returns
    -------
    steps : CudaSteps or None
    place : Place
        The GPU, or the CPU with the reason why not the GPU.
    """
    return try_gpu(_cuda_steps, HOST, decode_sample, "decodes a small field")


def _cuda_steps() -> Steps:
    from cellrt.runtime.decoding.flows.cuda.steps import CudaSteps

    return CudaSteps()


def place_to_decode() -> Place:
    """The place of `find_gpu`, found in a process of its own: a driver that crashes is an answer.

    Without a GPU there is nothing to crash.
    """
    if not nvidia_gpus()[0]:
        return _found()
    try:
        return call_apart(_MOST_SECONDS, _found)
    except EngineError as error:
        return Place("CPU", f"numba cannot use the GPU: {error.message}")


def _found() -> Place:
    return find_gpu()[1]


def decode_sample(
    steps: Steps, wanted: FlowParameters = _EVERY_STEP
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Decode two touching cells on two grids, which compiles and tries the kernels.

    Parameters
    ----------
    steps : Steps
    wanted : FlowParameters
        Kernels that these do without are left out; by default none is.

    Returns
    -------
    labels, on the field's grid and on a finer one
    """
    flow = np.zeros((3, 12, 12, 26), np.float32)
    chance = np.full(flow.shape[1:], 0.1, np.float32)
    table = tanh_table(chance.shape)
    for box in (np.s_[1:11, 1:11, 1:12], np.s_[1:11, 1:11, 13:25]):
        chance[box] = 0.9
        for axis, n in enumerate(chance[box].shape):
            run = table[n * (n - 1) // 2 :][:n]
            flow[axis][box] = run.reshape([n if k == axis else 1 for k in range(3)])
    packed = pack_field(flow, chance)
    parameters = replace(wanted, radius_range=(2.0, 100.0))
    labels = decode_packed(packed, parameters, steps=steps).labels
    finer = steps.upsample(
        labels,
        packed,
        (13, 13, 27),
        step=parameters.step,
        threshold=parameters.foreground_threshold,
        walls=True,
    )
    return labels, finer
