"""The labelled stacks of the accuracy benchmark, and which of them a model has seen."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from report import DATA, ROOT

EMBRYO_VOXEL_UM = (1.75, 0.8, 0.8)
# The last columns of plant_patch.h5, which the recipe of the bundled model leaves out.
PLANT_HELD_BACK_FROM_X = 140
# Far from the seeds of the recipes, so that no simulated stack is one that a model was trained on.
SIMULATION_SEED = 900_000


@dataclass(frozen=True)
class LabelledStack:
    """One image with ground truth.

    Parameters
    ----------
    name, group : str
        Stacks of one group share a row of the table (one embryo at five times).
    model : {"nuclei", "membranes"}
    load : callable
        Returns image and labels, both (z, y, x), or (y, x) of a single image.
    anisotropy : float
        Voxel size along z over voxel size along x.
    voxel_size_um : tuple of float, optional
        As the microscope's file states it; what the model is told.
    files : tuple of Path
        What it is read from, for telling whether a model saw it. Empty for simulations.
    box : tuple of (start, stop), optional
        Part of the file, (z, y, x), whose ground truth is used.
    scored : tuple of slice, optional
        Part of what `load` returns where scores are taken, when the rest is only context.
    sparse : bool
        Not all visible cells are annotated: scored with ``ignore_unlabelled``.
    smoke : bool
        Too small or too incomplete to say anything about accuracy.
    layers : callable, optional
        Returns the truth, (layers, y, x), where cells overlap.
    stained : bool
        Whether cells are bright, as the baseline takes them.
    """

    name: str
    group: str
    model: str
    load: Callable[[], tuple[NDArray[Any], NDArray[Any]]]
    anisotropy: float = 1.0
    voxel_size_um: tuple[float, float, float] | None = None
    files: tuple[Path, ...] = ()
    box: tuple[tuple[int, int], ...] | None = None
    scored: tuple[slice, ...] = (slice(None),)
    sparse: bool = False
    smoke: bool = False
    layers: Callable[[], NDArray[Any]] | None = None
    stained: bool = True


def stacks() -> list[LabelledStack]:
    """Return all stacks whose data are here, real ones first."""
    return _present([*_embryos(), *_other_nuclei(), *_plant(), *_simulated()])


def images() -> list[LabelledStack]:
    """Return all single images whose data are here."""
    return _present([*_images(), *_simulated_images()])


def _present(found: Iterable[LabelledStack]) -> list[LabelledStack]:
    return [stack for stack in found if all(file.exists() for file in stack.files)]


def median_diameter(labels: NDArray[Any], anisotropy: float) -> float:
    """Diameter in voxels along x of the ball, or disc, that is as large as the median cell."""
    sizes = np.unique(labels[labels > 0], return_counts=True)[1]
    if labels.ndim == 2 or len(labels) == 1:
        return float((4 / np.pi * np.median(sizes)) ** 0.5)
    return float((6 / np.pi * np.median(sizes) * anisotropy) ** (1 / 3))


class TrainingRecord:
    """What a model was trained on: the data sets of its card, file by file from its recipe."""

    def __init__(self, card: Any) -> None:
        self.target = card.target
        self.planar = card.planar
        self._trained: list[tuple[Path, tuple[tuple[int, int], ...] | None]] = []
        self._checked: list[tuple[Path, tuple[tuple[int, int], ...] | None]] = []
        recipe_file = ROOT / card.recipe
        self._complete = recipe_file.is_file()
        if not self._complete:
            return
        recipe = _read_toml(recipe_file)
        named = {entry["name"] for entry in recipe.get("data", [])}
        # A card that names data its recipe does not have was made from another recipe.
        self._complete = all(
            entry.name in named or entry.source == "cellrt.simulation"
            for entry in card.training_data
        )
        for key, files in (("data", self._trained), ("validation", self._checked)):
            for entry in recipe.get(key, []):
                box = tuple(map(tuple, entry["crop"])) if "crop" in entry else None
                files.extend((path, box) for path in _files(recipe_file.parent, entry))

    def status(self, stack: LabelledStack) -> str:
        """Return "unseen", "seen" (trained on), "checked" (watched in training) or "unknown"."""
        if not stack.files:
            return "unseen"
        if not self._complete:
            return "unknown"
        if any(_shares(stack, path, box) for path, box in self._trained):
            return "seen"
        if any(_shares(stack, path, box) for path, box in self._checked):
            return "checked"
        return "unseen"


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    with path.open("rb") as file:
        return tomllib.load(file)


def _files(folder: Path, entry: dict[str, Any]) -> Iterator[Path]:
    for key in ("images", "labels"):
        if key not in entry:
            continue
        pattern = Path(entry[key].partition(":")[0])
        for path in (folder / pattern.parent).resolve().glob(pattern.name):
            if not any(part in path.name for part in entry.get("exclude", [])):
                yield path


def _shares(stack: LabelledStack, path: Path, box: tuple[tuple[int, int], ...] | None) -> bool:
    if path not in {file.resolve() for file in stack.files}:
        return False
    if box is None or stack.box is None:
        return True
    return all(a < d and c < b for (a, b), (c, d) in zip(box, stack.box, strict=True))


def _embryos() -> Iterator[LabelledStack]:
    folder = DATA / "nuclei" / "embryos"
    for image in sorted((folder / "images").glob("Emb*.ome.tif")):
        labels = folder / "labels" / image.name
        yield LabelledStack(
            name=image.name.removesuffix(".ome.tif"),
            group=image.name.partition("_")[0],
            model="nuclei",
            load=_tiff_pair(image, labels),
            anisotropy=EMBRYO_VOXEL_UM[0] / EMBRYO_VOXEL_UM[2],
            voxel_size_um=EMBRYO_VOXEL_UM,
            files=(image, labels),
        )


def _other_nuclei() -> Iterator[LabelledStack]:
    folder = DATA / "nuclei"
    ovule = folder / "ovule_1135.h5"
    yield LabelledStack(
        "ovule_1135",
        "ovule_1135",
        "nuclei",
        _hdf5_pair(ovule, "raw", "label"),
        anisotropy=0.28371837 / 0.12678642,
        voxel_size_um=(0.28371837, 0.12678642, 0.12678642),
        files=(ovule,),
    )
    for name, smoke in (("nuclei_75", False), ("small_31", True)):
        image, labels = folder / f"{name}.tif", folder / f"{name}_labels.tif"
        yield LabelledStack(
            name,
            name,
            "nuclei",
            _tiff_pair(image, labels),
            files=(image, labels),
            sparse=True,
            smoke=smoke,
        )


def _images() -> Iterator[LabelledStack]:
    for group, image_files, truth in (
        ("DSB 2018, names 0 and 1", "dsb2018/images/[01]*.tif", "dsb2018/masks"),
        ("DSB 2018, names with 2", "dsb2018/images/2*.tif", "dsb2018/masks"),
        # Trained on: what a network has not learned, beside what nobody could.
        ("DSB 2018, names 3 and 4", "dsb2018/images/[34]*.tif", "dsb2018/masks"),
        ("tissue sections", "tissue_dapi/images/*_2.tif", "tissue_dapi/masks"),
    ):
        yield from _labelled_images(group, image_files, truth)


def tissue_trained_on() -> Iterator[LabelledStack]:
    """Return the sections that no table scores, as the models have seen them."""
    yield from _labelled_images(
        "tissue sections, trained on", "tissue_dapi/images/*_[!2].tif", "tissue_dapi/masks"
    )


def _labelled_images(group: str, image_files: str, truth: str) -> Iterator[LabelledStack]:
    folder = DATA / "cells2d"
    for image in sorted(folder.glob(image_files)):
        labels = folder / truth / image.name
        yield LabelledStack(
            name=image.stem[:24],
            group=group,
            model="nuclei",
            load=_tiff_pair(image, labels),
            files=(image, labels),
        )


def _plant() -> Iterator[LabelledStack]:
    file = DATA / "membranes" / "plant_patch.h5"
    start = PLANT_HELD_BACK_FROM_X
    held_back = ((0, 64), (0, 200), (start, 200))
    whole, cut = np.s_[:, :, :], np.s_[:, :, start:]
    # What is read of the file, which part of that is scored, and whether labels are mended.
    cases = (
        ("plant_patch x < 140", np.s_[:, :, :start], whole, True),
        ("plant_patch x >= 140", whole, cut, True),
        ("plant_patch x >= 140, cut out", cut, whole, True),
        ("plant_patch x >= 140, labels as stored", whole, cut, False),
    )
    for name, part, scored, mended in cases:
        seen = name.endswith("x < 140")
        held = np.s_[:, :, :start] if seen else cut
        yield LabelledStack(
            name,
            name,
            "membranes",
            _plant_patch(file, part, held, mended=mended),
            files=(file,),
            box=((0, 64), (0, 200), (0, start)) if seen else held_back,
            scored=scored,
            sparse=mended,
        )


def _plant_patch(
    file: Path, seen: tuple[slice, ...], part: tuple[slice, ...], *, mended: bool
) -> Callable[[], tuple[NDArray[Any], NDArray[Any]]]:
    """Read what the model sees of plant_patch.h5, whose `big_label` has two defects.

    Its label 1 is no cell but all small cells thrown together, and so is the whole slice z = 31,
    which cuts every cell in two. Mended, label 1 is unlabelled, slice 31 has the labels on which
    both its neighbours agree, and only cells that lie mostly in the scored part are labelled: of
    the others training saw more than the score would.
    """

    def load() -> tuple[NDArray[Any], NDArray[Any]]:
        import h5py

        with h5py.File(file, "r") as data:
            image, labels = data["raw"][()], data["big_label"][()]
        if mended:
            labels[labels == 1] = 0
            labels[31] = np.where(labels[30] == labels[32], labels[30], 0)
            whole = np.bincount(labels.ravel())
            here = np.bincount(labels[part].ravel(), minlength=whole.size)
            labels[(here < 0.5 * whole)[labels]] = 0
        return image[seen], labels[seen]

    return load


def _simulated() -> Iterator[LabelledStack]:
    def paper_nuclei() -> tuple[NDArray[Any], NDArray[Any]]:
        from cellrt.simulation import simulate_paper_nuclei

        stack = simulate_paper_nuclei("psf2", seed=SIMULATION_SEED)
        return stack.image, stack.labels

    yield LabelledStack("paper nuclei", "simulated nuclei (paper)", "nuclei", paper_nuclei)
    for kind, styles in (
        ("nuclei", ("typical", "random")),
        ("membranes", ("typical", "random", "clumped")),
    ):
        for style in styles:
            for number, z_step in enumerate((1.0, 1.0, 2.0, 2.0, 3.0)):
                yield simulated_stack(kind, style, SIMULATION_SEED + number, z_step)


def simulated_stack(kind: str, style: str, seed: int, z_step: float) -> LabelledStack:
    """Return one stack of a style that `cellrt simulate` offers, sampled coarser along z."""

    def load() -> tuple[NDArray[Any], NDArray[Any]]:
        from cellrt.simulation.styles import simulate_style

        stack = simulate_style(
            kind,
            style,
            seed=seed,
            shape=(round(160 / z_step), 160, 160),
            voxel_size_um=(z_step, 1.0, 1.0),
        )
        return stack.image, stack.labels

    group = f"simulated {kind} ({style})"
    return LabelledStack(f"{kind} {style} {seed}", group, kind, load, anisotropy=z_step)


def _simulated_images() -> Iterator[LabelledStack]:
    """Images that `cellrt simulate` makes unless it is told otherwise; then worms in a well."""
    for kind, contrast, words, shape, more in (
        ("bacteria", "fluorescence", "fluorescence", (256, 256), {}),
        ("bacteria", "phase", "phase contrast", (256, 256), {}),
        ("bacteria", "dic", "DIC", (256, 256), {}),
        ("worms", "brightfield", "bright field", (384, 384), {}),
        ("worms", "brightfield", "bright field, a few", (520, 696), {"filling": 0.06}),
    ):
        few = ("few",) if more else ()
        for seed in range(SIMULATION_SEED, SIMULATION_SEED + 10):
            name = " ".join((kind, contrast, *few, str(seed)))
            options = {"contrast": contrast, "seed": seed, **more}
            yield _simulated_image(name, f"simulated {kind} ({words})", kind, shape, options)


def simulated_image(kind: str, contrast: str, shape: tuple[int, int], seed: int) -> LabelledStack:
    """Return one image that `cellrt simulate` makes unless it is told otherwise."""
    options = {"contrast": contrast, "seed": seed}
    return _simulated_image(
        f"{kind} {contrast} {seed}", f"simulated {kind} ({contrast})", kind, shape, options
    )


def _simulated_image(
    name: str, group: str, kind: str, shape: tuple[int, int], options: dict[str, Any]
) -> LabelledStack:
    @functools.cache
    def drawn() -> Any:
        from cellrt import simulation

        draw = {"bacteria": simulation.simulate_bacteria, "worms": simulation.simulate_worms}[kind]
        return draw(shape, **options)

    def layers() -> NDArray[Any]:
        found: NDArray[Any] = drawn().layers
        return found

    return LabelledStack(
        name,
        group,
        "nuclei",
        lambda: (drawn().image[0], drawn().labels[0]),
        layers=layers if kind == "worms" else None,
        stained=options["contrast"] == "fluorescence",
    )


def _tiff_pair(image: Path, labels: Path) -> Callable[[], tuple[NDArray[Any], NDArray[Any]]]:
    return lambda: (tifffile.imread(image), tifffile.imread(labels))


def _hdf5_pair(
    file: Path, raw: str, labels: str
) -> Callable[[], tuple[NDArray[Any], NDArray[Any]]]:
    def load() -> tuple[NDArray[Any], NDArray[Any]]:
        import h5py

        with h5py.File(file, "r") as data:
            return data[raw][()], data[labels][()]

    return load
