"""What is computed in: which file an engine takes, and what an NVIDIA GPU makes of fp32."""

from __future__ import annotations

from collections.abc import Callable

from cellrt.errors import EngineError
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.base import EngineSpec

# What engines that compute in the types of a file take by themselves: GPUs have twice as many
# products of fp16 as of TF32 in a second, it needs half the memory, and the gate has shown that
# cells stay the same.
PREFERRED = "fp16"


def file_for(
    model: ModelFile,
    spec: EngineSpec,
    precision: str,
    note: Callable[[str], None] = lambda text: None,
) -> ModelFile:
    """Choose between a model's file and those beside it in other precisions.

    Parameters
    ----------
    model : ModelFile
    spec : EngineSpec
    precision : str
        One of :data:`cellrt.runtime.network.engines.base.PRECISIONS`. ``auto`` takes the fp16 file
        beside an fp32 one, where the engine computes in the types of a file and there is one.
    note : callable
        Told in one line what to do where ``auto`` finds none.

    Raises
    ------
    EngineError
        The engine does not compute this model in this precision; or does with another file, which
        is not there.
    InputError
        The file beside this one cannot be read, or was made of another one.
    """
    own = model.card.precision
    wanted = PREFERRED if precision == "auto" else precision
    if own == "fp32" and wanted in spec.file_precisions:
        variant = model.variant(wanted)
        if variant is not None:
            return variant
        if precision != "auto":
            raise EngineError(
                f"{spec.name} computes in {precision} where the file is in {precision}, and there "
                f"is no {model.variant_path(precision).name} beside {model.path.name}; "
                f"{_how_to_make(model, precision)}, or use --precision auto"
            )
        note(f"no {PREFERRED} file of {model.path.name} for GPUs; {_how_to_make(model, PREFERRED)}")
        return model
    if own in spec.file_precisions:
        if precision in ("auto", own):
            return model
        raise EngineError(
            f"{model.path.name} is {own}, and {spec.name} computes it in nothing else; give the "
            "fp32 model it was made of, or use --precision auto"
        )
    if precision in ("auto", "fp32") or precision in spec.own_precisions:
        return model
    raise EngineError(
        f"{spec.name} does not compute {model.path.name} in {precision}; use --precision auto"
    )


def _how_to_make(model: ModelFile, precision: str) -> str:
    """The command that makes a model's file in another precision."""
    if model.is_bundled:
        made = f"{model.card.name}-{precision}.onnx"
        return (
            f"run `cellrt export {model.card.name} --precision {precision} -o {made}` and give "
            f"{made} as the model"
        )
    return f"run `cellrt export {model.path} --precision {precision}`"


def of_fp32(precision: str, *, has_tf32: bool) -> str:
    """What an NVIDIA GPU computes the products of an fp32 file in.

    Parameters
    ----------
    precision : {"auto", "fp32", "tf32"}
        As asked for; ``auto`` is TF32 where the GPU has it, as it is for PyTorch's convolutions.
    has_tf32 : bool
        Whether the GPU does.

    Returns
    -------
    {"fp32", "tf32"}
        In TF32 a product keeps 10 bits of each factor, as many as fp16, with the range of fp32.

    Raises
    ------
    EngineError
        TF32 is asked for and the GPU has none.
    """
    if precision == "tf32" and not has_tf32:
        raise EngineError("GPUs below compute capability 8.0 have no TF32; use --precision auto")
    return "tf32" if has_tf32 and precision != "fp32" else "fp32"
