"""Whether a GPU gives the CPU's cells, and what is said where it does not or fails meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numba import config
from numpy.typing import NDArray

from cellrt.errors import first_line
from cellrt.runtime.decoding.base import Place
from cellrt.runtime.machine.driver import install, nvidia_driver, nvidia_gpus
from cellrt.runtime.machine.gpu import kernel_trouble

T = TypeVar("T")
R = TypeVar("R")


def try_gpu(
    load: Callable[[], T],
    host: T,
    sample: Callable[[T], Sequence[NDArray[Any]]],
    task: str,
) -> tuple[T | None, Place]:
    """Look for a GPU that does a small task as the CPU does.

    The first time on a machine compiles the kernels.

    Parameters
    ----------
    load : callable
        Imports and gives what works on a GPU; only called where there is one, as it needs a package
        that need not be installed.
    host
        What does the same on the CPU.
    sample : callable
        Results of the task, done by one of the two; all of its kernels take part.
    task : str
        What that is: "it ..." and "a GPU ..." before it make a sentence.

    Returns
    -------
    what was loaded, or None
    place : Place
        The GPU, or the CPU with the reason why not the GPU.
    """
    if config.ENABLE_CUDASIM:
        return None, Place("CPU", "numba simulates CUDA, which is for tests")
    gpus, reason = nvidia_gpus()
    if not gpus:
        return None, Place("CPU", reason)
    trouble = kernel_trouble()
    if trouble:
        return None, Place("CPU", trouble)
    try:
        device = load()
        # Only here, because it is slow to load.
        from cellrt.runtime.machine.kernels import device_name

        name = device_name()
        agree = all(map(np.array_equal, sample(device), sample(host)))
    except Exception as error:  # numba's, the driver's and the compiler's have no common base
        advice = f"run `{install(nvidia_driver().extra or 'cu13')}`"
        return None, Place("CPU", f"numba cannot use the GPU ({first_line(error)}); {advice}")
    if not agree:
        return None, Place("CPU", f"{name} {task} otherwise than the CPU")
    return device, Place(name, f"it {task} as the CPU does")


def somewhere(
    find: Callable[[], tuple[T | None, Place]],
    host: T,
    work: Callable[[T], R],
    place: Place | None,
) -> tuple[R, Place]:
    """Do some work at a place on the CPU; without one on the GPU, if there is one that can.

    Parameters
    ----------
    find : callable
        What `try_gpu` found.
    host
        What the work takes on the CPU.
    work : callable
        Given `host`, or what does the same on the GPU.
    place : Place or None

    Returns
    -------
    result
        Of the work.
    place : Place
        Where it was done.
    """
    if place is None:
        device, place = find()
        if device is not None:
            try:
                return work(device), place
            except Exception as error:  # the driver's own untyped errors too
                reason = (
                    f"{place.device} could not decode ({first_line(error)}); "
                    "the CPU did, with the same result"
                )
                place = Place("CPU", reason, fell_back=True)
    return work(host), place
