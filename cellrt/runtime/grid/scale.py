"""How an image's voxels map to the model's grid: from voxel size, cell diameter and anisotropy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cellrt.errors import CellrtError, InputError, UsageError
from cellrt.geometry import Shape
from cellrt.runtime.image.volume import Volume
from cellrt.runtime.model.card import ModelCard
from cellrt.wording import counted

# A change of scale this small costs a resampling and gains nothing the network could notice.
NEGLIGIBLE_CHANGE = 0.05
# Enlarging adds voxels to compute but no detail, so small cells are enlarged only to this share of
# the nominal size. Measured on six stacks of two embryos held back from training: AP at IoU 0.5 of
# 0.81 with both, in about half the time.
ENLARGED_SHARE = 0.75
# Cells of fewer pixels carry hardly any shape, however much they are enlarged: of eight images of
# nuclei that are made smaller, and their diameter given, `nuclei2d` has an AP at IoU 0.5 of 0.84 at
# 5 pixels, 0.76 at 4, 0.58 at 3, 0.44 at 2 and 0.25 at 1.5.
SMALLEST_PIXELS = 4
# Sizes that single images of a run have for themselves are so far apart: each takes a network that
# is compiled for its shape, and networks bear factors of 1.5.
STEP = 1.1
# A doubt of what is beyond a limit is one from here on.
SLIGHTLY = 1.1
# Where slices lie decides what cells look like: this guess is a warning.
UNKNOWN_SPACING = "unknown, taken as isotropic; give --voxel-size or --anisotropy if it is not"

# Cells are no larger than this many times the image along y and x: a crop may be small, and what a
# voxel size says of cells may be off by a few times. Where an image is smaller than a cell on the
# model's grid, that counts: then nothing was scaled away.
LARGEST_SHARE = 4


@dataclass(frozen=True)
class CellScale:
    """Cell size in the input's own voxels, and where that knowledge comes from.

    Parameters
    ----------
    diameter_pixels : float
        Cell diameter in input pixels along x.
    spacing : (float, float, float)
        Distance of neighbouring voxels along (z, y, x) in units of the x spacing.
    diameter_origin, spacing_origin : str
        Words for the user and the run record.
    certain : bool
        Whether the diameter is the user's word, so that nothing may change it.
    remedy : str
        What a user does where the diameter is wrong.
    cells : int
        Cells of this image that the diameter was estimated from; 0 where it was not.
    to_confirm : bool
        Whether this image's cells have to confirm it: it is the size of other images of the run,
        or the one that cells had there.
    """

    diameter_pixels: float
    spacing: tuple[float, float, float]
    diameter_origin: str
    spacing_origin: str
    certain: bool = False
    remedy: str = "give the right --diameter"
    cells: int = 0
    to_confirm: bool = False

    def in_steps(self) -> CellScale:
        """The same with the nearest diameter that is some power of `STEP`."""
        steps = round(math.log(self.diameter_pixels) / math.log(STEP))
        return replace(self, diameter_pixels=float(f"{STEP**steps:.3g}"))

    def words(self) -> str:
        """Where the scale comes from and what to do about it, for errors."""
        words = f"{self.diameter_pixels:.3g} pixels ({self.diameter_origin})"
        if self.spacing != (1, 1, 1):
            shown = ":".join(f"{s:.3g}" for s in self.spacing)
            words += f" and spacing z:y:x {shown} ({self.spacing_origin})"
        return f"{words}; {self.remedy}"

    def doubts(self, shape: Shape, card: ModelCard) -> tuple[str, ...]:
        """Warn of slices too far apart, of cells of a few pixels, of an image of part of a cell.

        The latter two are what a wrong scale makes it seem.

        Parameters
        ----------
        shape : (int, int, int)
            The image's. Stacks are thin more often than they are narrow.
        card : ModelCard
        """
        cells = [n * s / self.diameter_pixels for n, s in zip(shape, self.spacing, strict=True)]
        found = []
        if shape[0] > 1 and cells[0] * LARGEST_SHARE < 1:
            found.append(
                f"all {shape[0]} slices together are {cells[0]:.2g} of a cell thick: check the "
                f"distance between slices ({self.spacing_origin})"
            )
        if self.diameter_pixels < SMALLEST_PIXELS:
            times = self.factors(card)[2]
            found.append(
                f"cells of less than {SMALLEST_PIXELS} pixels show hardly any shape: few may be "
                f"right, and the image is enlarged {times:.2g} times for them; check "
                f"the cell diameter, {self.words()}"
            )
        if min(cells[1:]) < 1:
            found.append(
                f"the image is only {min(cells[1:]):.2g} of a cell wide: check the cell diameter, "
                f"{self.words()}"
            )
        if shape[0] > 1 and self.factors(card)[0] > SLIGHTLY * card.coarsest_slices:
            # Of simulated stacks AP50 falls by a tenth from 4 to 6 voxels of the model's grid.
            seen = card.diameter_voxels / card.coarsest_slices
            found.append(
                f"a cell is {self.diameter_pixels / self.spacing[0]:.2g} slices thick, and the "
                f"model {card.name} was trained on at least {seen:.2g}: expect cells that are "
                "missed, cut or joined; record slices closer to each other, and check the distance "
                f"between slices ({self.spacing_origin})"
            )
        return tuple(found)

    def factors(self, card: ModelCard) -> tuple[float, float, float]:
        """Model voxels per input voxel along (z, y, x)."""
        lateral = card.diameter_voxels / self.diameter_pixels
        if lateral > 1:
            lateral = max(1.0, ENLARGED_SHARE * lateral)
        z, y, x = (lateral * spacing for spacing in self.spacing)
        return z, y, x

    def model_shape(self, shape: Shape, card: ModelCard) -> Shape:
        """Shape of the image on the model's grid; unchanged where it would hardly change."""
        factors = self.factors(card)
        if all(abs(factor - 1) <= NEGLIGIBLE_CHANGE for factor in factors):
            return shape
        z, y, x = (max(1, round(n * f)) for n, f in zip(shape, factors, strict=True))
        return z, y, x


def known_scale(
    volume: Volume,
    card: ModelCard,
    *,
    diameter: float | None = None,
    anisotropy: float | None = None,
) -> tuple[CellScale | None, tuple[float, float, float], str]:
    """Collect what file and user say about the scale.

    Parameters
    ----------
    volume : Volume
    card : ModelCard
    diameter : float, optional
        Cell diameter in pixels, as Cellpose's users know it. Overrides the voxel size.
    anisotropy : float, optional
        Spacing in z divided by spacing in xy. Overrides the voxel size.

    Returns
    -------
    scale : CellScale or None
        None when neither a diameter nor a voxel size is known: it must be estimated.
    spacing : (float, float, float)
        Relative voxel spacing along (z, y, x), 1 for x.
    spacing_origin : str

    Raises
    ------
    UsageError, InputError
        A diameter that no cell in this image has; what the user said of it, or the file.
    """
    z, y, x = volume.voxel_size_um or (None, None, None)
    lateral = 1.0 if y is None or x is None else y / x
    if volume.is_2d:
        spacing, origin = (1.0, lateral, 1.0), "one slice: z does not matter"
    elif anisotropy is not None:
        spacing, origin = (anisotropy, lateral, 1.0), "anisotropy given by the user"
    elif z is not None and x is not None:
        spacing, origin = (z / x, lateral, 1.0), f"voxel size, {volume.voxel_size_source}"
    else:
        spacing, origin = (1.0, lateral, 1.0), UNKNOWN_SPACING
    by_user = volume.voxel_size_source.origin == "user"
    if diameter is not None:
        words, remedy = "given by the user", "give another --diameter"
        scale = CellScale(diameter, spacing, words, origin, certain=True, remedy=remedy)
    elif x is not None:
        said = _shown(volume) if by_user else volume.voxel_size_source.text
        words = f"a typical {card.diameter_um:.3g} µm at {x:.3g} µm per pixel"
        remedy = (
            f"check --voxel-size {said}"
            if by_user
            else f"give --voxel-size, if that of the file ({said}) is wrong"
        )
        remedy += ", or give --diameter"
        scale = CellScale(card.diameter_um / x, spacing, words, origin, remedy=remedy)
    else:
        return None, spacing, origin
    _check_room(scale, volume.shape, card, UsageError if scale.certain or by_user else InputError)
    return scale, spacing, origin


def _check_room(scale: CellScale, shape: Shape, card: ModelCard, error: type[CellrtError]) -> None:
    """Refuse cells of which the image shows next to nothing."""
    for axis, pixels, spacing in zip("yx", shape[1:], scale.spacing[1:], strict=True):
        cell = scale.diameter_pixels / spacing
        if cell > LARGEST_SHARE * max(pixels, card.diameter_voxels):
            raise error(
                f"a cell would be {cell:.3g} pixels long along {axis}, where the image has "
                f"{counted(pixels, 'pixel')}: its diameter is {scale.words()}"
            )


def _shown(volume: Volume) -> str:
    return " ".join("?" if v is None else f"{v:g}" for v in volume.voxel_size_um or ())


def slice_planes(card: ModelCard) -> int:
    """As how many planes a model sees a single slice: as one, or as a slab of equal ones."""
    return 1 if card.planar else slab_planes(card.diameter_voxels)


def slab_planes(diameter_voxels: float) -> int:
    """Planes of the slab of equal slices, about a cell thick, that stands for a single slice."""
    return math.ceil(diameter_voxels / 8) * 8
