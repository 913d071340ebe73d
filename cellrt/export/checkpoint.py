"""From a checkpoint to a model file: fold, trace, check, describe, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cellrt.errors import CellrtError, InputError, UsageError
from cellrt.export.gate.against_torch import check_parity
from cellrt.export.gate.compare import Parity
from cellrt.export.gate.tiles import PLANAR_DEPTH, tile_shape
from cellrt.export.gate.tolerances import FP16, FP32
from cellrt.export.trace import build_graph
from cellrt.files import atomic_outputs, refuse_special
from cellrt.geometry import Shape
from cellrt.graph.activations import activation_bytes
from cellrt.graph.file import embed_card, write_graph
from cellrt.graph.fp16_weights import store_as_fp16
from cellrt.models.layers.fold import fold_batch_norm
from cellrt.models.layers.network import Network
from cellrt.runtime.decoding.base import decode_fields
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Golden, LocalBrightness, Score
from cellrt.runtime.model.golden import golden_input
from cellrt.training.card import make_card
from cellrt.training.checkpoint import load_checkpoint
from cellrt.training.recipe import Recipe, load_recipe

MAX_BYTES = 8_000_000


@dataclass(frozen=True)
class Exported:
    """A model file that passed the gate."""

    path: Path
    card: ModelCard
    parity: tuple[Parity, ...]
    size_bytes: int


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    recipe_path: str | Path | None = None,
    scores: Sequence[Score] = (),
    overwrite: bool = False,
) -> Exported:
    """Export a checkpoint's averaged network to a self-describing ONNX file.

    Parameters
    ----------
    checkpoint : str or Path
        Written by ``cellrt train``.
    output : str or Path
        The ``.onnx`` file to write; its stem becomes the model's name.
    recipe_path : str or Path, optional
        A recipe whose description and decoder parameters replace those the checkpoint remembers.
        Network and targets must be the same.
    scores : sequence of Score
        Measured figures that go into the model card.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Exported

    Raises
    ------
    InputError
        When the checkpoint cannot be read, or the output exists or cannot be written.
    UsageError
        When the output is no ``.onnx`` file.
    CellrtError
        When the parity gate fails or the file would be larger than 8 MB; nothing is written.
    """
    output = Path(output)
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: the output must end in .onnx")
    inputs = [Path(checkpoint), *([] if recipe_path is None else [Path(recipe_path)])]
    with atomic_outputs({"model": output}, overwrite=overwrite, inputs=inputs) as temporary:
        exported = _export(checkpoint, output.stem, recipe_path, scores, temporary["model"])
    return replace(exported, path=output)


def _export(
    checkpoint: str | Path,
    name: str,
    recipe_path: str | Path | None,
    scores: Sequence[Score],
    output: Path,
) -> Exported:
    """Export to a file whose folder exists."""
    net, recipe = load_checkpoint(checkpoint)
    if recipe_path is not None:
        recipe = _replacement(recipe, recipe_path)
    folded = fold_batch_norm(net)
    rounded = recipe.model.stored_weights == "fp16"
    if rounded:
        _round_kernels(folded)
    graph = build_graph(folded, net.size_multiples)
    if rounded:
        store_as_fp16(graph)
    card = make_card(net, recipe, name, scores)
    decoder = decoder_for(card)
    parity = check_parity(
        net,
        graph,
        parity_tiles(recipe),
        partial(decode_fields, decoder=decoder, stride=card.output_stride),
        card.outputs[0].channels,
        FP16 if rounded else FP32,
    )
    card = replace(
        card,
        activation_bytes=activation_bytes(graph, net.size_multiple),
        golden=make_golden(folded, _golden_shape(net)),
    )
    embed_card(graph, ModelCard.from_json(card.to_json()))
    size = graph.ByteSize()
    if size > MAX_BYTES:
        raise CellrtError(
            f"the model would have {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f} MB are "
            "allowed; use smaller widths"
        )
    write_graph(graph, output)
    return Exported(output, card, tuple(parity), size)


def _replacement(trained: Recipe, path: str | Path) -> Recipe:
    """Read the recipe that shall describe a network which another version of it trained."""
    recipe = load_recipe(path)
    for key in ("kind", "targets"):
        if getattr(recipe, key) != getattr(trained, key):
            raise UsageError(f"{path}: '{key}' differs from what the checkpoint was trained with")
    for key in trained.model.network_keys:
        if getattr(recipe.model, key, None) != getattr(trained.model, key):
            raise UsageError(f"{path}: 'model.{key}' differs from what the checkpoint has")
    # The grid may be another one, as long as it has cells of the sizes that were trained on.
    smallest, largest = _sizes(trained)
    if _sizes(recipe) != (smallest, largest):
        raise UsageError(
            f"{path}: 'augment.zoom' of 'model.nominal_diameter_voxels' is not the "
            f"{smallest} to {largest} voxels that the checkpoint was trained on"
        )
    found = {key: getattr(trained.model, key) for key in trained.model.fitted_keys}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=found)})


def _sizes(recipe: Recipe) -> tuple[int, int]:
    """Cell diameters in voxels that training showed to the network."""
    nominal, (low, high) = recipe.model.nominal_diameter_voxels, recipe.augment.zoom
    return round(low * nominal), round(high * nominal)


def _round_kernels(net: Network) -> None:
    """Round kernels in place to what fp16 and bf16 both hold, so that neither loses anything more.

    Eight significant bits are what many a CPU and every GPU computes with; the others would be a
    fifth of the wheel.
    """
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.bfloat16().half().float())


def _golden_shape(net: Network) -> Shape:
    z, y, x = net.size_multiples
    return 2 * z, 3 * y, 4 * x


def make_golden(folded: Network, shape: tuple[int, int, int]) -> Golden:
    """Compute the reproducible input and output that an installed engine is checked with."""
    image = golden_input(shape)
    with torch.inference_mode():
        fields = folded(torch.from_numpy(image)).numpy()
    return Golden(
        shape=shape,
        input_sha256=hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest(),
        output_sha256=hashlib.sha256(np.ascontiguousarray(fields).tobytes()).hexdigest(),
        output_mean=tuple(float(v) for v in fields.mean((0, 2, 3, 4), dtype=np.float64)),
    )


def parity_tiles(recipe: Recipe) -> list[npt.NDArray[np.float32]]:
    """Return tiles for the gate: of validation stacks where the data are here, and simulated."""
    from cellrt.training.data.stacks import load_validation_stacks, normalised

    images = []
    try:
        stacks = load_validation_stacks(recipe)
        nominal = recipe.model.nominal_diameter_voxels
        chosen = stacks[:: max(1, len(stacks) // 2)][:2]
        images = [normalised(stack, nominal) for stack in chosen]
    except InputError:
        pass  # a checkpoint may be exported where its training data are not
    shape = tile_shape(recipe.method().network().size_multiple, recipe.model.planar)
    images.append(_simulated_image(recipe, shape))
    return [_central_tile(image, shape) for image in images]


def read_scores(path: str | Path) -> list[Score]:
    """Read scores for the card: a JSON list of tables with data, metric, value and seen."""
    try:
        refuse_special(Path(path), "give a JSON file")
        table: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        return [Score(**entry) for entry in table]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: not a list of scores ({error}); expected "
            '[{"data": ..., "metric": ..., "value": ..., "seen": false}]'
        ) from error


def _simulated_image(recipe: Recipe, shape: Shape) -> npt.NDArray[Any]:
    from cellrt.runtime.grid.model_image import prepare_image
    from cellrt.simulation import simulate_membranes, simulate_nuclei

    draw: Any = {"nuclei": simulate_nuclei, "membranes": simulate_membranes}[recipe.kind]
    nominal = recipe.model.nominal_diameter_voxels
    depth = PLANAR_DEPTH if recipe.model.planar else shape[0]
    image = draw((depth, *shape[1:]), diameter_voxels=nominal, seed=7).image
    middle = (depth - shape[0]) // 2
    image = image[middle:][: shape[0]]
    rule = LocalBrightness(nominal)
    return prepare_image(image, image.shape, rule).read((0, 0, 0), image.shape)


def _central_tile(image: npt.NDArray[Any], shape: Shape) -> npt.NDArray[np.float32]:
    """Cut the middle voxels, mirrored where the image is smaller."""
    starts = [max(0, (n - edge) // 2) for n, edge in zip(image.shape, shape, strict=True)]
    box = tuple(slice(start, start + edge) for start, edge in zip(starts, shape, strict=True))
    tile = np.asarray(image[box], np.float32)
    missing = [(0, edge - n) for n, edge in zip(tile.shape, shape, strict=True)]
    tile = np.pad(tile, missing, mode="symmetric")
    return np.ascontiguousarray(tile[None, None])
