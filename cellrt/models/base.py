"""What training, export and scoring ask of a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from cellrt.models.layers.network import Network


class Method(Protocol):
    """Network, targets and loss, and which decoder reads the outputs: with settings of one recipe.

    Attributes
    ----------
    decoder : str
        Decoder of the runtime that turns the outputs into labels.
    outputs : tuple of str
        What the network's channels are.
    decoder_parameters : dict
        The recipe's ``[decoder]``, and what the decoder must know about the targets.
    """

    decoder: str
    outputs: tuple[str, ...]
    decoder_parameters: dict[str, Any]

    def network(self) -> Network:
        """Return a new network."""
        ...

    def targets(self, labels: npt.NDArray[Any], margin: int) -> npt.NDArray[np.float32]:
        """Turn labels (z, y, x), seen some voxels beyond a patch, into targets of the patch.

        Targets are (channels, z, y, x), as fine as the network's output is.
        """
        ...

    def losses(self, learned: Any, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and the parts it is made of, as scalars.

        The first argument is what the network's `learned` returns.
        """
        ...
