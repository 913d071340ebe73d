"""Where a model becomes an engine: which library, for which GPU, from the cache or built."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellrt._version import __version__
from cellrt.errors import EngineError, UsageError
from cellrt.geometry import Shape
from cellrt.runtime.machine.driver import Gpu, nvidia_gpus
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.gpu_session import LARGEST_BATCH
from cellrt.runtime.network.engines.precision import of_fp32
from cellrt.runtime.network.engines.tensorrt.build import Advance, Profile, build_engine
from cellrt.runtime.network.engines.tensorrt.cache import EngineCache, EngineKey
from cellrt.runtime.network.engines.tensorrt.library import FLAVOURS, TensorRT, open_library

TURING = "sm75"


@dataclass(frozen=True)
class Builder:
    """The library that builds, and the GPU or the GPU families it builds for."""

    library: TensorRT
    gpu: Gpu | None
    targets: tuple[str, ...]

    @property
    def words(self) -> str:
        """For people."""
        if self.gpu is not None:
            return self.gpu.name
        return f"RTX GPUs, {'+'.join(self.targets) or 'any of them'}"

    def refuse(self, precision: str) -> None:
        """Refuse a precision that the library has no kernels for, before anything is built.

        Raises
        ------
        EngineError
        """
        if TURING in self.targets and precision != "fp16":
            raise EngineError(
                f"{self.library.flavour.title} has 3D convolutions only in fp16 for compute "
                f"capability 7.5, and none in {precision}; `cellrt export model.onnx --precision "
                "fp16` makes a file that it takes"
            )


def choose_builder(flavour: str | None = None, targets: Sequence[str] = ()) -> Builder:
    """Decide what to build with, and for what.

    Parameters
    ----------
    flavour : str, optional
        Obeyed or refused. Without it, TensorRT where it loads and a GPU is here, else
        TensorRT-RTX.
    targets : sequence of str
        GPU families to build for ahead of time, which TensorRT-RTX does.

    Raises
    ------
    UsageError
        An unknown flavour or target.
    EngineError
        The flavour asked for, or any, cannot be had here.
    """
    if flavour is not None:
        return _builder(flavour, targets)
    reasons = []
    for name in FLAVOURS:
        if targets and not FLAVOURS[name].ahead_of_time:
            continue
        try:
            return _builder(name, targets)
        except EngineError as error:
            reasons.append(f"{name}: {error.message}")
    raise EngineError(f"no engine can be built here ({'; '.join(reasons)})")


def _builder(flavour: str, targets: Sequence[str]) -> Builder:
    library = open_library(flavour)
    if library.flavour.ahead_of_time:
        for name in targets:
            library.target(name)
        known = list(library.targets)
        chosen = sorted({name.lower() for name in targets}, key=known.index)
        return Builder(library, None, tuple(chosen))
    if targets:
        library.target(targets[0])  # refuses, with the reason
    gpus, reason = nvidia_gpus()  # in the order in which CUDA counts them from now on
    if not gpus:
        raise EngineError(
            f"{flavour} builds for the GPU in this machine, and there is none: {reason}; use "
            "--engine tensorrt-rtx to build for another machine"
        )
    library.refuse_gpu(gpus[0])
    return Builder(library, gpus[0], ())


def computed_in(model: ModelFile, builder: Builder, precision: str) -> str:
    """What an engine of a file computes in: the file's own types, of fp32 see `of_fp32`."""
    if model.card.precision != "fp32":
        return model.card.precision
    gpu = builder.gpu
    return of_fp32(precision, has_tf32=gpu.has_tf32 if gpu else builder.targets != (TURING,))


def this_system() -> str:
    """Operating system and processor architecture."""
    return f"{platform.system()} {platform.machine()}"


def engine_key(model: ModelFile, builder: Builder, profile: Profile, precision: str) -> EngineKey:
    """Everything the engine of a model depends on."""
    gpu = builder.gpu
    return EngineKey(
        model=model.card.name,
        model_sha256=model.sha256,
        cellrt=__version__,
        precision=precision,
        library=f"{builder.library.flavour.name} {builder.library.version}",
        gpu=gpu.name if gpu else "RTX GPUs",
        compute_capability=gpu.compute_capability if gpu else "+".join(builder.targets) or "any",
        multiprocessors=str(gpu.multiprocessors) if gpu else "any",
        driver=gpu.driver if gpu else "any",
        system=this_system() if gpu else "any",
        profile=profile,
    )


def obtain_engine(
    model: ModelFile,
    builder: Builder,
    cache: EngineCache,
    *,
    tile: Shape | None = None,
    precision: str = "auto",
    largest_batch: int = LARGEST_BATCH,
    workspace_bytes: int | None = None,
    lean: bool = False,
    note: Callable[[str], None] = lambda text: None,
    advance: Advance = lambda phase, share: None,
) -> tuple[bytes, EngineKey]:
    """Engine of a model from the cache, built where it is missing.

    Parameters
    ----------
    model : ModelFile
    builder : Builder
    cache : EngineCache
    tile : (int, int, int), optional
        The only one the engine will take; the model card's by default.
    precision : {"auto", "fp32", "tf32"}
        See `computed_in`.
    largest_batch : int
    workspace_bytes : int, optional
    lean : bool
        See :class:`~cellrt.runtime.network.engines.tensorrt.build.Profile`.
    note, advance : callable
        Told what happens, in lines and in shares of phases.

    Returns
    -------
    (bytes, EngineKey)

    Raises
    ------
    UsageError
        `lean` with TensorRT-RTX, which has no lean runtime.
    EngineError
        A precision that the GPU does not have; see `Builder.refuse`.
    CellrtError
        See `build_engine` and `EngineCache.find_or_build`.
    """
    if lean and builder.library.flavour.ahead_of_time:
        raise UsageError(
            f"{builder.library.flavour.name} has no lean runtime; use --engine tensorrt, or leave "
            "--lean out"
        )
    profile = Profile(tile or model.card.tile, largest_batch, workspace_bytes, lean)
    computes = computed_in(model, builder, precision)
    builder.refuse(computes)
    key = engine_key(model, builder, profile, computes)

    def build() -> bytes:
        return build_engine(
            builder.library,
            model.content,
            profile,
            channels=model.card.channels,
            targets=builder.targets,
            tf32=computes != "fp32",
            timings=cache.timings(key),
            advance=advance,
            note=note,
        )

    return cache.find_or_build(key, build, note), key
