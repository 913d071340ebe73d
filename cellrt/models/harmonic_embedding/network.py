"""A planar U-Net whose way up sees the guides: SinConv layers.

Every plane of a stack is an image of its own: kernels have one voxel along z. Before the first
convolution of each level on the way up the guides' values at the level's pixels join its features
(Kulikov and Lempitsky 2020, figure 2), which spares the network from learning where it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cellrt.models.harmonic_embedding.guides import guide_maps
from cellrt.models.layers.unet import UNet
from cellrt.runtime.model.guides import turns

# Patches lie anywhere in images of so many pixels along an edge.
_LARGEST_IMAGE = 8192


class HarmonicEmbedding(UNet):
    """Embedding of each pixel, and foreground.

    Parameters
    ----------
    widths : sequence of int
        Channels of the levels, finest first. Each deeper level halves y and x.
    frequencies : (dimensions, 2) sequence
        Of the guides along (y, x), in cycles per pixel.
    phases : (dimensions,) sequence
        In radians.
    sinconv : bool
        Whether the way up sees the guides.
    sinconv_size : int
        Edge of the kernels that do.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        frequencies: Sequence[Sequence[float]],
        phases: Sequence[float],
        *,
        sinconv: bool = True,
        sinconv_size: int = 7,
    ) -> None:
        dimensions = len(phases)
        super().__init__(widths, dimensions + 1, planar=True)
        self.register_buffer("frequencies", torch.tensor(frequencies, dtype=torch.float32))
        self.register_buffer("phases", torch.tensor(phases, dtype=torch.float32))
        self.takes_turns = dimensions if sinconv else 0
        self._reach = sinconv_size // 2 if sinconv else 1
        if sinconv:
            for block, width in zip(self.decoder, self.widths[-2::-1], strict=True):
                assert isinstance(block, nn.Sequential)
                block[0] = nn.Conv3d(
                    2 * width + dimensions,
                    width,
                    (1, sinconv_size, sinconv_size),
                    padding=(0, self._reach, self._reach),
                    bias=False,
                )

    @property
    def receptive_radius(self) -> int:
        """Largest distance in pixels at which the input can change an output pixel."""
        wider = sum((self._reach - 1) * 2**level for level in range(len(self.widths) - 1))
        radius: int = super().receptive_radius + wider
        return radius

    def logits(self, image: Tensor, turned: Tensor | None = None) -> Tensor:
        """Return the raw output, ``(n, dimensions + 1, z, y, x)``; image as in `Network.logits`.

        `turned`, ``(n, dimensions)``, says where the tiles lie; see
        `cellrt.runtime.model.guides.turns`. Without it they begin at the origin.
        """
        if turned is None:
            turned = image.new_zeros(image.shape[0], self.phases.shape[0])
        skips = []
        features = image
        for block in self.encoder:
            features = block(features)
            skips.append(features)
        skips.pop()
        step = self.size_multiple
        for up, block in zip(self.up, self.decoder, strict=True):
            step //= 2
            parts = [up(features), skips.pop()]
            if self.takes_turns:
                parts.append(self._maps(parts[0], turned, step))
            features = block(torch.cat(parts, dim=1))
        return self.head(features)  # type: ignore[no-any-return]

    def learned(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw output and the turns of patches that are said to lie anywhere."""
        origin = torch.randint(0, _LARGEST_IMAGE, (len(image), 2))
        turned = torch.from_numpy(turns(origin.numpy(), self.frequencies.cpu().numpy()))
        turned = turned.to(image.device)
        return self.logits(image, turned), turned

    def _maps(self, features: Tensor, turned: Tensor, step: int) -> Tensor:
        """The guides beside some features, the same for all planes."""
        depth, height, width = features.shape[2:]
        maps = guide_maps(turned, self.frequencies, self.phases, (height, width), step)
        return maps[:, :, None].expand(-1, -1, depth, -1, -1).to(features.dtype)

    def activate(self, logits: Tensor) -> Tensor:
        """Return the embedding as it is, and the foreground's probability."""
        return torch.cat([logits[:, :-1], torch.sigmoid(logits[:, -1:])], dim=1)

    def forward(self, image: Tensor, turned: Tensor | None = None) -> Tensor:
        """Return the fields of an image, or of tiles that lie somewhere in one."""
        return self.activate(self.logits(image, turned))
