"""What an engine says of itself, what it offers, and what it makes of a model.

Every engine is declared by an `EngineSpec`. It offers ``available()`` and ``load()``; what ``load``
returns has ``infer``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import UsageError
from cellrt.geometry import Shape
from cellrt.runtime.model.file import ModelFile

COPIES_BYTES_PER_VOXEL = 64
"""What an engine on the CPU takes per voxel of a tile besides activations: image, fields, copies.

With what `tile_bytes` of OpenVINO and ONNX Runtime say, and `plan.BASE_BYTES`, the peaks of 32 runs
with tiles of 1.0 to 3.5 million voxels are met within 9 %.
"""

PRECISIONS = ("auto", "fp32", "tf32", "fp16", "bf16", "int8")


def check_precision(name: str) -> None:
    """Refuse what is none of `PRECISIONS`.

    Raises
    ------
    UsageError
    """
    if name not in PRECISIONS:
        raise UsageError(f"no precision {name!r}; choose one of {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class EngineSpec:
    """What is known of an engine before it is imported.

    Parameters
    ----------
    name : str
        As ``--engine`` takes it.
    module : str
        Where the `Engine` is: a module that is one, or ``module:attribute``.
    needs : {"", "nvidia", "intel"}
        The GPU that it needs; none for engines that run on the CPU.
    fixed_tile : bool
        It takes tiles of one shape, that of the model's card.
    own_precisions : frozenset of str
        Those besides ``fp32`` in which it computes an fp32 file, or of which it says itself why it
        does not.
    file_precisions : frozenset of str
        Those in which it computes what a file in that precision says. It takes the fp16 file beside
        an fp32 one by itself if fp16 is among them. Files in others it computes as if they were
        fp32.
    """

    name: str
    module: str
    needs: Literal["", "nvidia", "intel"] = ""
    fixed_tile: bool = False
    own_precisions: frozenset[str] = frozenset()
    file_precisions: frozenset[str] = frozenset()

    def declares(self, precision: str) -> bool:
        """Whether it computes in a precision at all, with the file and the hardware for it."""
        always = {"auto", "fp32"}
        return precision in always | self.own_precisions | self.file_precisions


@dataclass(frozen=True)
class LayerTime:
    """What an engine tells of one of its layers, which may be several of the model's.

    Parameters
    ----------
    name : str
        The engine's own.
    kind : str
        What it computes, as "Convolution"; empty where the engine does not say.
    implementation : str
        What computes it, with the precision; empty where the engine does not say.
    milliseconds : float
        Of one run, the mean of several.
    """

    name: str
    kind: str
    implementation: str
    milliseconds: float


class Session(Protocol):
    """A network that is loaded and ready for tiles of one shape.

    One that keeps something for the next process also has ``finish()``, called after each image.
    One whose network has to know where a tile lies has ``takes_place``, true, and its ``infer``
    takes the tile's first voxel (z, y, x) as well; without it tiles lie at the image's corner.
    """

    device: str
    precision: str

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network: (n, 1, z, y, x) float32 -> (n, channels, z, y, x) float32.

        There are as many times fewer voxels along each axis as the card's ``output_stride`` says.
        """
        ...


def takes_place(session: Session) -> bool:
    """Whether a session wants to know where tiles lie."""
    return bool(getattr(session, "takes_place", False))


class Engine(Protocol):
    """What the module of an engine offers.

    What an engine may have besides is asked for only where it has it:

    - ``check(model, tile, precision)`` raises EngineError where it is clear, without any work, that
      `load` would refuse this model;
    - ``tile(model, precision)``, of one that takes tiles of one shape, is the shape where it is not
      that of the model's card, or None;
    - ``build_seconds(model, tile, precision)``, of one whose engines are built once and kept, says
      how long that took for the engine `load` would take, or None;
    - ``device_voxels(model)``, of one that computes in the memory of a GPU, is the size of the
      largest tile for that;
    - ``tile_bytes(model, precision)``, of one that computes in the CPU's memory, is what it takes
      of that per voxel of a tile;
    - ``several_at_once``, true of one whose ``load`` also takes ``at_once``: how many threads may
      call ``infer`` of the session at a time;
    - ``layers(model, image, precision, runs)`` runs the network on tiles (n, 1, z, y, x) and says
      how long each layer took, as a list of `LayerTime` in the order of execution.
    """

    def available(self, *, asked: bool) -> str:
        """Return library, version and device, or raise EngineError with the reason why not.

        ``asked`` says that the user named this engine.
        """
        ...

    def load(
        self, model: ModelFile, tile: Shape, *, precision: str, note: Callable[[str], None]
    ) -> Session:
        """Load a model for tiles (z, y, x).

        ``precision`` is ``auto``, ``fp32`` or one of its ``own_precisions``, and ``auto`` for files
        in one of its ``file_precisions``. The session says what it really computes in.
        ``note`` is told what takes long.
        """
        ...
