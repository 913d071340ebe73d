"""Training recipes: TOML files, validated, with errors that name the key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from cellrt.errors import InputError
from cellrt.files import refuse_special
from cellrt.geometry import across_planes
from cellrt.models.base import Method
from cellrt.models.tables import Positive, Table
from cellrt.training.methods import METHODS, LossTable, ModelTable, TargetTable, make_method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found]

Triple = tuple[Positive, Positive, Positive]
Range = tuple[float, float]
Probability = Annotated[float, Field(ge=0, le=1)]


class DataTable(Table):
    """``[[data]]``: labelled stacks from files; ``[[validation]]`` has the same keys.

    ``images`` and ``labels`` are glob patterns relative to the recipe; matches are paired in
    sorted order. ``file.h5:dataset`` and ``store.zarr:array`` address an array inside a file.
    """

    name: str
    images: str | None = None
    labels: str
    exclude: tuple[str, ...] = ()
    """Files whose name contains one of these strings are left out."""
    voxel_size_um: Triple = (1.0, 1.0, 1.0)
    diameter_um: Positive | None = None
    """Median cell diameter; measured from each label image when absent."""
    crop: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    """Part of each stack to use, [start, stop] per axis in voxels of the file."""
    weight: Positive = 1.0
    ignore_background: bool = False
    """Voxels without a label are unknown (sparse ground truth), not background."""
    min_object_voxels: Annotated[int, Field(ge=0)] = 0
    """Objects with fewer voxels in the file become unknown."""
    unknown_labels: tuple[int, ...] = ()
    """Labels in the file that are no cells and not known background either."""
    lost_planes: tuple[int, ...] = ()
    """Planes (z) of the file without ground truth: they get the labels on which both neighbours
    agree, and are unknown elsewhere."""
    simulate: dict[str, Any] | None = None
    """With no ``images``: options of the membrane simulation that draws images on the labels."""
    count: Annotated[int, Field(gt=0)] = 1
    """Images simulated per label stack."""
    source: str = ""
    licence: str = ""

    @model_validator(mode="after")
    def _images_or_simulation(self) -> DataTable:
        if (self.images is None) == (self.simulate is None):
            raise ValueError("give either 'images' or 'simulate'")
        return self


class SimulateTable(Table):
    """``[[simulate]]``: stacks or images drawn once into the cache folder."""

    name: str
    kind: Literal["nuclei", "membranes", "empty", "bacteria", "worms"]
    count: Annotated[int, Field(gt=0)]
    seed: int = 0
    shape: tuple[int, int, int] = (96, 96, 96)
    options: dict[str, Any] = Field(default_factory=dict)
    weight: Positive = 1.0


class AugmentTable(Table):
    """``[augment]``: ranges and probabilities; ranges are drawn uniformly, zooms log-uniformly."""

    zoom: Range = (0.6, 1.6)
    anisotropy: Range = (0.85, 1.18)
    rotation_degrees: float = 12.0
    elastic_voxels: float = 3.0
    elastic_probability: Probability = 0.3
    permute_probability: Probability = 0.25
    acquisition_probability: Probability = 0.7
    """Share of patches that are blurred, sampled coarsely and made noisy."""
    contrast_probability: Probability = 0.7
    """Share of patches whose gamma, gain and offset change."""
    gamma: Range = (0.65, 1.5)
    gain: Range = (0.6, 1.5)
    offset: Range = (-0.08, 0.15)
    blur_voxels: Range = (0.3, 1.5)
    blur_probability: Probability = 0.25
    blur_z_voxels: Range = (0.5, 3.0)
    blur_z_probability: Probability = 0.3
    coarse_z: Range = (1.0, 4.5)
    coarse_z_probability: Probability = 0.4
    coarse_xy: Range = (1.0, 1.8)
    coarse_xy_probability: Probability = 0.3
    photons: Range = (8.0, 300.0)
    """Photons at intensity 1, drawn log-uniformly: fewer means more shot noise."""
    read_noise: Range = (0.0, 0.06)
    noise_probability: Probability = 0.6
    falloff: float = 0.7
    """Largest share of the intensity lost from one end of a random axis to the other."""
    falloff_probability: Probability = 0.3
    uneven: float = 0.5
    uneven_probability: Probability = 0.3
    accidents: Probability = 1.0
    """Factor on the probabilities of `cellrt.training.data.accidents`."""


class OptimTable(Table):
    """``[optim]``: steps, batch and schedule."""

    patch_voxels: tuple[int, int, int] = (48, 48, 48)
    anywhere: Probability = 0.1
    """Share of patches drawn anywhere in the stack; the others have a cell near their middle."""
    batch: Annotated[int, Field(gt=0)] = 2
    uses: Annotated[int, Field(gt=0)] = 1
    """Steps that see each batch; more than 1 where a GPU waits for patches to be made."""
    learning_rate: Positive = 2e-3
    final_learning_rate: Positive = 2e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Probability = 0.04
    """Share of the run in which the learning rate rises."""
    gradient_clip: Positive = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.997
    freeze_norm_from: Probability = 0.85
    """Share of the run after which batch norm uses its running statistics, as at inference."""
    max_steps: Annotated[int, Field(gt=0)] | None = None
    max_minutes: Positive | None = None
    checkpoint_minutes: Positive = 4.0
    score_minutes: Positive = 8.0
    score_stacks: Annotated[int, Field(ge=0)] = 2
    workers: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    seed: int = 0

    @model_validator(mode="after")
    def _bounded(self) -> OptimTable:
        if self.max_steps is None and self.max_minutes is None:
            raise ValueError("give 'max_steps', 'max_minutes' or both")
        return self


class Recipe(Table):
    """A whole recipe; see `load_recipe`."""

    name: str
    kind: Literal["nuclei", "membranes"]
    description: str = ""
    init: str | None = None
    """Bundled model name, checkpoint or ONNX file to start from."""
    cache: str = "cache"
    """Folder for simulated stacks, relative to the recipe."""
    model: ModelTable
    targets: TargetTable
    loss: LossTable
    augment: AugmentTable = AugmentTable()
    optim: OptimTable
    data: tuple[DataTable, ...] = ()
    validation: tuple[DataTable, ...] = ()
    simulate: tuple[SimulateTable, ...] = ()
    decoder: dict[str, Any] = Field(default_factory=dict)
    """Decoder parameters that go into the model card."""
    folder: Path = Path(".")
    """Where the recipe lies; filled in by `load_recipe`."""

    def method(self) -> Method:
        """Return the method of ``[model]`` with the settings of this recipe."""
        return make_method(self.model, self.targets, self.loss, self.decoder)

    @model_validator(mode="before")
    @classmethod
    def _tables_of_the_method(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """The method is named once, in ``[model]``, and decides the keys of three tables."""
        tables = {key: recipe.get(key, {}) for key in ("model", "targets", "loss")}
        model = tables["model"]
        named = model.get("method") if isinstance(model, dict) else getattr(model, "method", None)
        method = next(iter(METHODS)) if named is None else named
        return recipe | {
            key: {"method": method, **table} if isinstance(table, dict) else table
            for key, table in tables.items()
        }

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not name or any(c in name for c in "/\\ :"):
            raise ValueError("must be a plain file name")
        return name

    @model_validator(mode="after")
    def _something_to_learn(self) -> Recipe:
        if not self.data and not self.simulate:
            raise ValueError("no [[data]] and no [[simulate]]: nothing to train on")
        if {self.targets.method, self.loss.method} != {self.model.method}:
            raise ValueError("'method' belongs into [model] only; remove it elsewhere")
        multiple = self.model.patch_multiple
        planar = self.model.planar
        multiples = across_planes(multiple, planar, 1)
        shape = self.optim.patch_voxels
        if any(size % step for size, step in zip(shape, multiples, strict=True)):
            where = " along y and x" if planar else ""
            raise ValueError(f"optim.patch_voxels must be multiples of {multiple}{where}")
        if planar and shape[0] != 1:
            raise ValueError("optim.patch_voxels must have one plane for a planar network")
        return self


def load_recipe(path: str | Path) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    path : str or Path
        A TOML file. Paths inside it are relative to its folder.

    Returns
    -------
    Recipe

    Raises
    ------
    InputError
        When the file is missing, is no TOML, or a key is unknown, missing or has a bad value; the
        message names the key.
    """
    path = Path(path)
    refuse_special(path, "give a TOML file")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot read the recipe ({error.strerror})") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    if "folder" in table:
        raise InputError(f"{path}: key 'folder' is not known; remove it")
    try:
        return Recipe(**table, folder=path.resolve().parent)
    except ValidationError as error:
        raise InputError(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    first = problems[0]
    # pydantic names the method as if it were a table: model.cellpose3d.widths.
    place = [str(part) for i, part in enumerate(first["loc"]) if i != 1 or part not in METHODS]
    key = ".".join(place) or "recipe"
    message = {
        "extra_forbidden": "is not a known key; check the spelling",
        "missing": "is missing; add it",
    }.get(first["type"], first["msg"].removeprefix("Value error, "))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"key '{key}': {message}{more}"
