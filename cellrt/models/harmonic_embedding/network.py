"""A planar U-Net whose embedding depends on the place: by a turn of its output, or by SinConv.

Every plane of a stack is an image of its own: kernels have one voxel along z.

Seen from a pixel p, the mean over its object of the wave ``exp(2 pi i f . q)`` is the wave at p
times the mean of ``exp(2 pi i f . (q - p))``, which does not depend on where the object lies. So a
network that knows no place can learn the second factor, real and imaginary part, and the embedding
is that complex number turned by the guide's angle at p: exactly, and everywhere in the plane. The
loss turns it here; the exported graph says what was learned, and the decoder turns it.

The paper's network (Kulikov and Lempitsky 2020, figure 2) has no such output. The guides' values
join its features before the first convolution of each level on the way up (SinConv), from which it
has to learn products of waves and features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cellrt.models.harmonic_embedding.guides import guide_maps
from cellrt.models.layers.planar import PlanarConv
from cellrt.models.layers.unet import UNet
from cellrt.runtime.model.guides import turns

Position = Literal["turn", "sinconv", "none"]

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
    position : {"turn", "sinconv", "none"}
        What tells the embedding where it is: a turn of the output, which then are waves as seen
        from each pixel; guides beside the features on the way up; or nothing.
    sinconv_size : int
        Edge of the kernels that see guides.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        frequencies: Sequence[Sequence[float]],
        phases: Sequence[float],
        *,
        position: Position = "turn",
        sinconv_size: int = 7,
    ) -> None:
        dimensions = len(phases)
        parts = 2 if position == "turn" else 1
        super().__init__(widths, parts * dimensions + 1, planar=True)
        self.register_buffer("frequencies", torch.tensor(frequencies, dtype=torch.float32))
        self.register_buffer("phases", torch.tensor(phases, dtype=torch.float32))
        self._position = position
        self.takes_turns = dimensions if position == "sinconv" else 0
        self._reach = sinconv_size // 2 if position == "sinconv" else 1
        if position == "sinconv":
            for block, width in zip(self.decoder, self.widths[-2::-1], strict=True):
                assert isinstance(block, nn.Sequential)
                block[0] = PlanarConv(
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
        """Return the raw output, ``(n, channels, z, y, x)``; image as in `Network.logits`.

        `turned`, ``(n, dimensions)``, says where the tiles lie; see
        `cellrt.runtime.model.guides.turns`. Without it they begin at the origin.
        """
        if turned is None:
            turned = image.new_zeros(image.shape[0], self.phases.shape[0])
        if self._position == "turn":
            return super().logits(image)
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
            if self._position == "sinconv":
                parts.append(self._maps(parts[0], turned, step))
            features = block(torch.cat(parts, dim=1))
        return self.head(features)  # type: ignore[no-any-return]

    def learned(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return embedding and foreground, and the turns of patches that lie anywhere."""
        origin = torch.randint(0, _LARGEST_IMAGE, (len(image), 2))
        turned = torch.from_numpy(turns(origin.numpy(), self.frequencies.cpu().numpy()))
        turned = turned.to(image.device)
        raw = self.logits(image, turned)
        return (self._turned(raw, turned) if self._position == "turn" else raw), turned

    def _turned(self, raw: Tensor, turned: Tensor) -> Tensor:
        """Embeddings from waves as seen from each pixel, real and then imaginary; foreground."""
        count, size = len(self.phases), (raw.shape[-2], raw.shape[-1])
        sine = guide_maps(turned, self.frequencies, self.phases, size, 1)
        cosine = guide_maps(turned, self.frequencies, self.phases + torch.pi / 2, size, 1)
        real, imaginary = raw[:, :count], raw[:, count : 2 * count]
        embedding = real * sine[:, :, None] + imaginary * cosine[:, :, None]
        return torch.cat([embedding, raw[:, 2 * count :]], dim=1)

    def _maps(self, features: Tensor, turned: Tensor, step: int) -> Tensor:
        """The guides beside some features, the same for all planes."""
        depth, height, width = features.shape[2:]
        maps = guide_maps(turned, self.frequencies, self.phases, (height, width), step)
        return maps[:, :, None].expand(-1, -1, depth, -1, -1).to(features.dtype)

    def activate(self, logits: Tensor) -> Tensor:
        """Return the foreground's probability, and all else as it is."""
        return torch.cat([logits[:, :-1], torch.sigmoid(logits[:, -1:])], dim=1)

    def forward(self, image: Tensor, turned: Tensor | None = None) -> Tensor:
        """Return the fields of an image, or of tiles that lie somewhere in one."""
        return self.activate(self.logits(image, turned))
