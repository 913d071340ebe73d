"""Simulated stacks of a recipe: drawn once by several processes and kept in its cache folder."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellrt.errors import InputError, UsageError
from cellrt.training.recipe import DataTable, Recipe, SimulateTable

IMAGES = ("bacteria", "worms")
"""Kinds that lie in one plane."""

Drawn = tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[float, float, float]]


def simulated_stacks(table: SimulateTable, recipe: Recipe) -> Iterator[Drawn]:
    """Yield ``(image, labels, voxel_size_um)`` of a ``[[simulate]]`` table; draw what is missing.

    Raises
    ------
    InputError
        When the simulation refuses the table's options.
    """
    jobs = [
        {
            "kind": table.kind,
            "shape": list(table.shape),
            "seed": table.seed + index,
            "options": table.options,
        }
        for index in range(table.count)
    ]
    yield from _cached(jobs, recipe, table.name)


def drawn_from_labels(
    labels: npt.NDArray[np.int32], table: DataTable, recipe: Recipe
) -> Iterator[Drawn]:
    """Yield membrane stacks simulated from a label volume."""
    options = dict(table.simulate or {})
    seed = int(options.pop("seed", 0))
    jobs = [
        {
            "kind": "membranes_from_labels",
            "seed": seed + index,
            "options": options,
            "labels": labels,
            "voxel_size_um": list(table.voxel_size_um),
        }
        for index in range(table.count)
    ]
    yield from _cached(jobs, recipe, table.name)


def _cached(jobs: list[dict[str, Any]], recipe: Recipe, name: str) -> Iterator[Drawn]:
    cache = recipe.folder / recipe.cache
    cache.mkdir(parents=True, exist_ok=True)
    files = [cache / f"{_key(job)}.npz" for job in jobs]
    missing = [(job, file) for job, file in zip(jobs, files, strict=True) if not file.exists()]
    if missing:
        workers = max(1, min(len(missing), recipe.optim.workers or (os.cpu_count() or 1)))
        context = multiprocessing.get_context("spawn")  # numba's threads do not survive a fork
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                for _ in pool.map(_draw_to_file, missing, chunksize=4):
                    pass
            except (TypeError, ValueError, UsageError) as error:
                raise InputError(f"simulate '{name}': {error}; check its options") from error
    for file in files:
        with np.load(file) as stored:
            voxel_size = tuple(float(v) for v in stored["voxel_size_um"])
            yield stored["image"], stored["labels"], voxel_size  # type: ignore[misc]


def _key(job: dict[str, Any]) -> str:
    """Hash of everything that goes into a stack, so that an edited recipe draws new ones."""
    plain = {key: value for key, value in job.items() if key != "labels"}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    if "labels" in job:
        digest.update(np.ascontiguousarray(job["labels"]).tobytes())
    return f"{job['kind']}-{digest.hexdigest()[:16]}"


def _draw_to_file(job_and_file: tuple[dict[str, Any], Path]) -> None:
    job, file = job_and_file
    stack = _draw(job)
    unfinished = file.with_name(f"{file.stem}.{os.getpid()}.partial.npz")
    np.savez(
        unfinished,
        image=stack.image,
        labels=stack.labels.astype(np.int32),
        voxel_size_um=np.array(stack.voxel_size_um),
    )
    unfinished.replace(file)  # a killed run leaves no half-written stack


def _draw(job: dict[str, Any]) -> Any:
    """Call the simulation; ranges in the options are drawn with the stack's own seed."""
    return _draw_image(job) if job["kind"] in IMAGES else _draw_stack(job)


def _draw_image(job: dict[str, Any]) -> Any:
    """Draw an image of one slice.

    Options: ``contrast`` as a word or several of which one is drawn, and ``diameter_voxels``,
    ``filling`` and ``photons`` as a number or as ``[low, high]``.
    """
    from cellrt import simulation

    planes, *shape = job["shape"]
    if planes != 1:
        raise ValueError(f"shape is {job['shape']}, but {job['kind']} lie in one plane: [1, y, x]")
    rng = np.random.default_rng(job["seed"])
    given: dict[str, Any] = {}
    for name, wanted in job["options"].items():
        if name == "contrast":
            given[name] = str(rng.choice(wanted)) if isinstance(wanted, list) else wanted
        elif name in ("diameter_voxels", "filling", "photons"):
            given[name] = _number(wanted, rng)
        else:
            raise ValueError(f"option '{name}' is not known")
    draw = {"bacteria": simulation.simulate_bacteria, "worms": simulation.simulate_worms}
    return draw[job["kind"]](tuple(shape), pixel_um=1.0, seed=rng, **given)


def _draw_stack(job: dict[str, Any]) -> Any:
    """Draw a stack.

    Options: ``diameter_voxels`` and ``z_step`` (slice distance over pixel size) as a number or as
    ``[low, high]``, ``shape`` where labels are given, and ``nuclei``,
    ``membranes`` and ``imaging`` as tables that replace single fields of the randomly drawn
    parameters, by a value or by ``[low, high]``.
    """
    from dataclasses import replace

    from cellrt import simulation

    options = dict(job["options"])
    rng = np.random.default_rng(job["seed"])
    kind = job["kind"]
    parameters: dict[str, Any] = {"imaging": simulation.ImagingParameters.random(rng)}
    if kind == "nuclei":
        parameters["nuclei"] = simulation.NucleiParameters.random(rng)
    elif kind != "empty":
        parameters["membranes"] = simulation.MembraneParameters.random(rng)
    for key, value in parameters.items():
        fields = {
            name: _number(wanted, rng) if isinstance(wanted, list) else wanted
            for name, wanted in options.pop(key, {}).items()
        }
        parameters[key] = replace(value, **fields)
    z_step = _number(options.pop("z_step", 1.0), rng)
    diameter = options.pop("diameter_voxels", None)
    draw: Any = {
        "nuclei": simulation.simulate_nuclei,
        "membranes": simulation.simulate_membranes,
        "empty": simulation.simulate_empty,
    }.get(kind)
    if "labels" in job:
        size = job["voxel_size_um"]
        draw = partial(
            simulation.simulate_membranes_from_labels,
            job["labels"],
            source_anisotropy=float(size[0] / size[2]),
        )
    shape = tuple(options.pop("shape", job.get("shape", (96, 96, 96))))
    if options:
        raise ValueError(f"option '{next(iter(options))}' is not known")
    return draw(
        (max(1, round(shape[0] / z_step)), *shape[1:]),
        voxel_size_um=(z_step, 1.0, 1.0),
        seed=rng,
        **({} if diameter is None else {"diameter_voxels": _number(diameter, rng)}),
        **parameters,
    )


def _number(value: Any, rng: np.random.Generator) -> float:
    if isinstance(value, list):
        low, high = value
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(value)
