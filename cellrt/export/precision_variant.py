"""A model file in another precision: calibrate, convert, gate, describe, write. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from cellrt.errors import CellrtError, InputError, UsageError
from cellrt.export.gate.compare import (
    GateError,
    Infer,
    Parity,
    compare,
    onnxruntime_infer,
    openvino_infer,
    refuse_failures,
    turns_elsewhere,
)
from cellrt.export.gate.tiles import Tile, simulated_tiles, stack_tiles
from cellrt.export.gate.tolerances import GOLDEN_TOLERANCE, TOLERANCES
from cellrt.files import atomic_outputs
from cellrt.graph.file import embed_card, write_graph
from cellrt.graph.fp16_weights import load_exact
from cellrt.graph.precision import Precision, convert, rounded
from cellrt.runtime.decoding.base import decode_fields
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.image.formats import parse_address
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Golden, Score
from cellrt.runtime.model.file import ModelFile, open_model
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.model.guides import turns_at
from cellrt.runtime.network.engines.openvino import has_bf16
from cellrt.wording import counted

CALIBRATION_TILES = 6
GATE_TILES = 4
# With fewer cells than this one lost cell decides about the gate.
FEWEST_CELLS = 20
# Thin walls suffer most in the last block, at full resolution. A model that fails in int8 gets a
# second chance with that block in fp32: the error falls by a quarter, but so does the gain.
LAST_BLOCK = 3
# Tiles that are judged must not be those that set the ranges.
_CALIBRATION_SEED, _GATE_SEED = 1000, 2000


@dataclass(frozen=True)
class Variant:
    """A model in another precision that passed the gate.

    Attributes
    ----------
    graph : onnx.ModelProto
        Complete, with its card.
    card : ModelCard
    parity : tuple of Parity
        Against the float32 graph, one per engine.
    tiles : str
        What calibrated and what judged it, in words.
    """

    graph: onnx.ModelProto
    card: ModelCard
    parity: tuple[Parity, ...]
    tiles: str


def write_variant(
    model: str | Path,
    output: str | Path,
    precision: Precision,
    *,
    stacks: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Variant:
    """Write a model file in another precision.

    Where engines look for it, as ``mine.fp16.onnx`` beside ``mine.onnx``, it keeps the model's
    name, and in fp16 it takes the kernels that the model stores as fp16 from there; elsewhere its
    stem becomes its name, and it needs no other file.

    Parameters
    ----------
    model : str or Path
        Bundled model or exported file, in float32.
    output : str or Path
        The ``.onnx`` file to write.
    precision : {"fp16", "bf16", "int8"}
    stacks : sequence of str or Path
        Real stacks for calibration and gate; simulated ones take part where they are too few.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Variant

    Raises
    ------
    InputError
        Model or stacks cannot be used; the output exists or cannot be written.
    UsageError
        The output is no ``.onnx`` file or is the model itself, or the model is not float32.
    GateError
        The gate fails; nothing is written.
    """
    output = Path(output)
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: the output must end in .onnx")
    source = open_model(model)
    inputs = [source.path, *(parse_address(stack)[0] for stack in stacks)]
    with atomic_outputs({"model": output}, overwrite=overwrite, inputs=inputs) as temporary:
        found = output.resolve() == source.variant_path(precision).resolve()
        name = source.card.name if found else output.stem
        variant = make_variant(source, precision, stacks=stacks, name=name)
        # Where engines look for it, the fp32 file is beside it, and may have its kernels already.
        shared = found and precision == "fp16"
        write_graph(variant.graph, temporary["model"], source.path if shared else None)
    return variant


def make_variant(
    model: ModelFile,
    precision: Precision,
    *,
    stacks: Sequence[str | Path] = (),
    name: str | None = None,
) -> Variant:
    """Convert a model and put it through the gate; see `write_variant`.

    Parameters
    ----------
    model : ModelFile
    precision : {"fp16", "bf16", "int8"}
    stacks : sequence of str or Path
    name : str, optional
        The variant's name; by default the model's.
    """
    if model.card.precision != "fp32":
        raise UsageError(
            f"model {model.card.name!r} is {model.card.precision} already; "
            "convert the fp32 model it was made from"
        )
    if model.card.told is not None and precision != "fp16":
        raise UsageError(
            f"model {model.card.name!r} has to know where tiles lie, and is made for fp32 and fp16 "
            f"only, as its embeddings do not bear {precision}"
        )
    calibration, gate, words = _tiles(model, precision, stacks)
    exact = load_exact(model.path)
    graph = convert(exact, precision, calibration=calibration)
    try:
        parity = check_variant(exact, graph, model.card, precision, gate)
    except GateError:
        if precision != "int8":
            raise
        graph = convert(exact, precision, calibration=calibration, exact_last=LAST_BLOCK)
        parity = check_variant(exact, graph, model.card, precision, gate)
        words = f"the last {LAST_BLOCK} convolutions kept in fp32, {words}"
    card = _describe(model, exact, graph, precision, parity, words, name)
    embed_card(graph, card)
    return Variant(graph, card, tuple(parity), words)


def check_variant(
    exact: onnx.ModelProto,
    graph: onnx.ModelProto,
    card: ModelCard,
    precision: Precision,
    tiles: Sequence[Tile],
) -> list[Parity]:
    """Compare a variant with the float32 graph on the same tiles, in every engine of this machine.

    What this proves: the file loads in OpenVINO and ONNX Runtime (bf16: in OpenVINO), the rounding
    of weights and of every layer's output does no harm, nothing overflows. What it does not: CPUs
    compute a 16-bit graph in float32, so the rounding of activations is put in explicitly (engine
    "rounded"), and sums inside a layer stay in float32, which a GPU may do in fp16. For int8,
    ONNX Runtime computes the quantised values in float32, OpenVINO with this CPU's integer
    instructions; other CPUs have other ones.

    Parameters
    ----------
    exact, graph : onnx.ModelProto
        The float32 graph and its variant.
    card : ModelCard
        Says how fields are decoded.
    precision : {"fp16", "bf16", "int8"}
    tiles : sequence of (1, 1, z, y, x) float32 arrays

    Returns
    -------
    list of Parity

    Raises
    ------
    GateError
        An engine fails its tolerance.
    CellrtError
        The engines pass, but the tiles show too few cells to tell.
    """
    turns = _turns(card)
    reference = onnxruntime_infer(exact.SerializeToString(), turns)
    expected = [reference(tile) for tile in tiles]
    decode = partial(decode_fields, decoder=decoder_for(card), stride=card.output_stride)
    tolerance = TOLERANCES[precision]
    engines = [(n, infer, tolerance) for n, infer in _engines(exact, graph, precision, card)]
    results = compare(engines, tiles, expected, decode, card.outputs[0].channels)
    refuse_failures(results, f"the {precision} variant")
    if results[0].cells < FEWEST_CELLS:
        raise CellrtError(
            f"the fp32 model finds {counted(results[0].cells, 'cell')} in "
            f"{counted(len(tiles), 'tile')} of the parity gate, at least {FEWEST_CELLS} are "
            f"needed to judge the {precision} variant; "
            "give stacks with more cells with --calibrate; nothing was written"
        )
    return results


def unquantised(card: ModelCard) -> str:
    """How the layers of an int8 file of a model are to be computed that are not int8.

    Of a class map the most probable class is kept, and rounding to bf16 on top of int8 tips it over
    where two are nearly as probable. Cells change then by more than the gate lets pass (an AP of
    0.91 at IoU 0.75), while fields that are averaged over a cell hardly do.
    """
    return "fp32" if "membrane" in card.outputs[0].channels else "auto"


def _turns(card: ModelCard) -> NDArray[np.float32] | None:
    return turns_elsewhere(0 if card.told is None else len(card.told.phases))


def _engines(
    exact: onnx.ModelProto, graph: onnx.ModelProto, precision: Precision, card: ModelCard
) -> list[tuple[str, Infer]]:
    serialised, turns = graph.SerializeToString(), _turns(card)
    engines = [("openvino", openvino_infer(serialised, "f32", turns))]
    if precision != "bf16":  # ONNX Runtime's CPU provider has no bf16 convolution
        engines.append(("onnxruntime", onnxruntime_infer(serialised, turns)))
    if precision != "int8":
        emulated = rounded(exact, precision).SerializeToString()
        engines.append((f"{precision} rounded", onnxruntime_infer(emulated, turns)))
    elif has_bf16() and unquantised(card) == "auto":
        # What CPUs with bf16 run the layers in that are not int8.
        engines.append(("openvino int8+bf16", openvino_infer(serialised, "bf16")))
    return engines


def _tiles(
    model: ModelFile, precision: Precision, stacks: Sequence[str | Path]
) -> tuple[list[Tile], list[Tile], str]:
    """Return tiles for calibration, other tiles for the gate, and what they are, in words."""
    real = stack_tiles(stacks, model)
    if stacks and not real:
        raise InputError("the stacks show nothing to calibrate with; give others")
    # A stack of one tile has to serve both.
    gate = real[1::2] or real
    missing = max(0, GATE_TILES - len(gate))
    gate = gate + simulated_tiles(model.card, missing, seed=_GATE_SEED)
    judged = f"judged on {len(gate) - missing} real and {missing} simulated tiles"
    if precision != "int8":
        return [], gate, judged
    calibration = real[::2]
    absent = max(0, CALIBRATION_TILES - len(calibration))
    words = f"calibrated on {len(calibration)} real and {absent} simulated tiles, {judged}"
    calibration += simulated_tiles(model.card, absent, seed=_CALIBRATION_SEED)
    return calibration, gate, words


def _describe(
    model: ModelFile,
    exact: onnx.ModelProto,
    graph: onnx.ModelProto,
    precision: Precision,
    parity: Sequence[Parity],
    words: str,
    name: str | None,
) -> ModelCard:
    """Write the variant's card: its own golden output, and whose scores the others are."""
    card, golden = model.card, None
    if card.golden is not None:
        image = golden_input(card.golden.shape)
        # ONNX Runtime has no bf16, and computes fp16 less like a GPU than the rounded graph does.
        computed = graph if precision == "int8" else rounded(exact, precision)
        corner = None if card.told is None else turns_at(card.told, [(0, 0, 0)])
        fields = onnxruntime_infer(computed.SerializeToString(), corner)(image)
        golden = Golden(
            shape=card.golden.shape,
            input_sha256=card.golden.input_sha256,
            output_sha256=hashlib.sha256(np.ascontiguousarray(fields).tobytes()).hexdigest(),
            output_mean=tuple(float(v) for v in fields.mean((0, 2, 3, 4), dtype=np.float64)),
            tolerance=GOLDEN_TOLERANCE[precision],
        )
    worst = min(row.instance_ap for row in parity)
    own = Score(f"cells of the fp32 model, {words}", "AP at IoU 0.75", round(worst, 3))
    inherited = tuple(replace(s, data=f"{s.data} (measured in fp32)") for s in card.scores)
    return replace(
        card,
        name=name or card.name,
        precision=precision,
        made_from=model.sha256,
        unquantised=unquantised(card) if precision == "int8" else "auto",
        golden=golden,
        scores=(own, *inherited),
    )
