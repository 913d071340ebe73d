"""Where a model becomes an engine: which library, for which GPU, from the cache or built."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellrt._version import __version__
from cellrt.errors import EngineError, UsageError
from cellrt.geometry import Shape
from cellrt.runtime.machine.driver import Gpu, nvidia_gpus, where_wanted
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.network.engines.gpu_session import LARGEST_BATCH
from cellrt.runtime.network.engines.precision import of_fp32
from cellrt.runtime.network.engines.tensorrt.build import Advance, Profile, build_engine
from cellrt.runtime.network.engines.tensorrt.cache import EngineCache, EngineKey
from cellrt.runtime.network.engines.tensorrt.library import FLAVOURS, TensorRT, open_library
from cellrt.wording import counted

TURING = "sm75"
LARGEST_GPU_BYTES = 300_000_000_000
"""More than the memory of any one GPU."""
_BYTES = {"fp32": 4, "int8": 1}  # of a number in a file's precision; 2 in all others


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

    def refuse(self, model: ModelFile, precision: str) -> None:
        """Refuse a file in a precision that there are no kernels for, before anything is built.

        Parameters
        ----------
        model : ModelFile
        precision : {"auto", "fp32", "tf32"}
            See `computed_in`.

        Raises
        ------
        EngineError
        """
        if TURING in self.targets and model.card.precision != "fp16":
            asked = precision if precision != "auto" else model.card.precision
            advice = (
                "use --precision fp16"
                if model.variant_path("fp16").is_file()
                else f"`cellrt export {model.path} --precision fp16` makes a file that it takes"
            )
            raise EngineError(
                f"{self.library.flavour.title} has 3D convolutions only in fp16 for compute "
                f"capability 7.5, and none in {asked}; {advice}"
            )
        computed_in(model, self, precision)


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
        An unknown flavour or target; names count in capitals, too.
    EngineError
        The flavour asked for, or any, cannot be had here.
    """
    if flavour is not None:
        flavour = flavour.lower()
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
    if targets and flavour in FLAVOURS and not FLAVOURS[flavour].ahead_of_time:
        raise FLAVOURS[flavour].without_targets
    library = open_library(flavour)
    if library.flavour.ahead_of_time:
        for name in targets:
            library.target(name)
        known = list(library.targets)
        chosen = sorted({name.lower() for name in targets}, key=known.index)
        return Builder(library, None, tuple(chosen))
    gpus, reason = nvidia_gpus()  # in the order in which CUDA counts them from now on
    if not gpus:
        raise EngineError(
            f"{flavour} builds for the GPU in this machine, and there is none: "
            f"{where_wanted(reason)}; or use --engine tensorrt-rtx to build for another machine"
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


def usual_profile(tile: Shape) -> Profile:
    """What an engine takes that is built on the way."""
    return Profile(tile, LARGEST_BATCH)


def refuse_build(
    model: ModelFile, builder: Builder, profile: Profile, precision: str = "auto"
) -> None:
    """Refuse an engine that cannot be built, as far as that is clear beforehand.

    Raises
    ------
    UsageError
        An engine for the lean runtime with TensorRT-RTX, which has none; a workspace or tiles that
        no GPU has memory for.
    EngineError
        A precision that the GPU does not have; see `Builder.refuse`.
    """
    if profile.lean and builder.library.flavour.ahead_of_time:
        raise UsageError(
            f"{builder.library.flavour.name} has no lean runtime; use --engine tensorrt, or leave "
            "--lean out"
        )
    workspace, most = profile.workspace_bytes, f"{LARGEST_GPU_BYTES / 1e9:.0f} GB"
    if workspace is not None and not 0 < workspace <= LARGEST_GPU_BYTES:
        raise UsageError(
            f"--workspace is {workspace / 1e9:g} GB; expected more than 0 and at most {most}, more "
            "than any GPU has; leave it out to let a layer use whatever is free"
        )
    # The card counts in fp32.
    per_voxel = model.card.activation_bytes * _BYTES.get(model.card.precision, 2) / 4
    needed = math.prod(profile.tile) * profile.largest_batch * per_voxel
    if needed > LARGEST_GPU_BYTES:
        tiles = f"{counted(profile.largest_batch, 'tile')} of {'x'.join(map(str, profile.tile))}"
        raise UsageError(
            f"{tiles} voxels at once would take about {needed / 1e9:.0f} GB of a GPU's memory, and "
            f"none has more than {most}; give a smaller --tile or --batch"
        )
    builder.refuse(model, precision)


def obtain_engine(
    model: ModelFile,
    builder: Builder,
    cache: EngineCache,
    profile: Profile | None = None,
    *,
    precision: str = "auto",
    note: Callable[[str], None] = lambda text: None,
    advance: Advance = lambda phase, share: None,
) -> tuple[bytes, EngineKey]:
    """Engine of a model from the cache, built where it is missing.

    Parameters
    ----------
    model : ModelFile
    builder : Builder
    cache : EngineCache
    profile : Profile, optional
        `usual_profile` for the model card's tile by default.
    precision : {"auto", "fp32", "tf32"}
        See `computed_in`.
    note, advance : callable
        Told what happens, in lines and in shares of phases.

    Returns
    -------
    (bytes, EngineKey)

    Raises
    ------
    CellrtError
        See `refuse_build`, `build_engine` and `EngineCache.find_or_build`.
    """
    profile = profile or usual_profile(model.card.tile)
    refuse_build(model, builder, profile, precision)
    computes = computed_in(model, builder, precision)
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
