"""Estimate of the cell diameter from a coarse first pass over part of the image.

The network knows cells of about one size on its grid. A probe shows it a part of the image (see
`places`) at a guessed scale, decodes the result and looks at two things: how large the cells come
out, and how well the fields it predicted agree with those of the cells it makes (flow, or
membranes; see the decoders' ``agreement``). At the right scale both fit; at a wrong one the network
contradicts itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cellrt.compile_ahead import compile_ahead
from cellrt.geometry import Shape
from cellrt.runtime.cell_size.places import PROBE, probe_shape, shown
from cellrt.runtime.decoding.base import Decoder
from cellrt.runtime.decoding.labels.regions import equivalent_radius
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.runtime.grid.model_image import ModelImage, Scale, measure_intensity
from cellrt.runtime.grid.scale import CellScale
from cellrt.runtime.grid.texture import likeness
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import LocalBrightness
from cellrt.runtime.network.engines.base import Session
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.network.tiles import plan_tiles
from cellrt.wording import counted

# Guesses lie a factor of 1.5 apart, about what the network tolerates.
FACTOR = 1.5
# Without any knowledge the search starts at cells of this size, and covers 6 to 68 pixels.
FIRST_PIXELS = 13.5
UNKNOWN_STEPS = range(-2, 5)
# With a voxel size it starts there and goes at most this far, and each step has to gain a little in
# quality. Of guesses that are as good the far one is wrong: on 11 embryos in three fields each, the
# mean error of the size falls from 0.12 to 0.11 (log units), the largest from 1.8 to 0.45.
KNOWN_STEPS = range(-3, 4)
DOUBT = 0.005
FAR = 2.5  # times as large or small as a voxel size says: hardly the typical cells, a warning
FEWEST_CELLS = 3
# A hill lower than this may be a side hill: at the right scale quality is 0.8 to 0.9 for nuclei and
# 0.75 for membranes, and up to 0.75 where fragments of cells agree with themselves.
CONVINCING = 0.75
# Below this there is no hill: class maps of real and simulated tissue reach 0.66 to 0.85, of
# simulated empty wells at most 0.55 (2 of 14 where clouds of stray light look like cells: 0.63).
LEAST = 0.6
# What voxel size and typical cells say is right where at least so many cells come out that large,
# within a factor, and agree.
CONFIRMING_CELLS = 5
CONFIRMING_FACTOR = 1.15
# Where cells come out larger or smaller than the best guess by more than this factor, their own
# size is looked at in turn: fields agree with themselves over a wide range of guesses, within which
# the cells keep their size.
AGREEING_FACTOR = 1.4
MOST_CORRECTIONS = 3
# Cells that come out equally large, within this factor, at three guesses side by side are no
# fragments, whose size follows the guess. Of 35 images of nuclei and bacteria, all get the same
# size by 27 % fewer looks.
STEADY_FACTOR = 1.25
# Correlation of neighbouring pixels below which an image is taken for noise. Cells are several
# pixels wide, and even dim ones make neighbours alike; enlarged, pure noise looks like small cells.
WHITE_NOISE = 0.02
# Cell sizes of which fewer than this many fit into the image need no probe.
LEAST_ROOM = 2.0


@dataclass(frozen=True)
class Probe:
    """What one probe saw at a guessed diameter.

    ``diameter_pixels`` is the diameter, in input pixels, of the cell in which the median voxel
    lies; ``agreement`` (0 to 1) says how far predicted and recomputed fields agree.
    ``size_weight`` is the decoder's; ``doubt`` is taken off the quality, see `DOUBT`.
    """

    guess_pixels: float
    cells: int
    diameter_pixels: float
    agreement: float
    size_weight: float = 0.0
    doubt: float = 0.0

    @property
    def quality(self) -> float:
        """What the search maximises; too few cells say nothing."""
        if not self.tells:
            return -1.0
        fit = math.pow(min(self.ratio, 1 / self.ratio), self.size_weight)
        return self.agreement * fit - self.doubt

    @property
    def tells(self) -> bool:
        """Whether there are enough cells to say anything."""
        return self.cells >= FEWEST_CELLS

    @property
    def ratio(self) -> float:
        """Size of the cells over the guess; not a number where there are too few to say."""
        return self.diameter_pixels / self.guess_pixels if self.tells else math.nan

    @property
    def shrinks(self) -> bool:
        """Whether cells come out so much smaller than guessed that they may be grains of noise.

        Grains agree with themselves, too, and lead the search away from dim cells around them.
        """
        return self.ratio * AGREEING_FACTOR < 1

    def is_like(self, other: Probe) -> bool:
        """Whether another guess shows as many cells as tell, of the same size."""
        apart = abs(math.log(other.diameter_pixels / self.diameter_pixels))
        return min(self.cells, other.cells) >= CONFIRMING_CELLS and apart <= math.log(STEADY_FACTOR)

    @property
    def is_enlarged_noise(self) -> bool:
        """Whether cells as small as any that are looked for come out smaller still, in doubt.

        Enlarged that far, noise has something like cells: of 14 simulated empty wells, 11 for
        `membranes`. Of 88 stacks with cells, none ended so.
        """
        smallest = FIRST_PIXELS * FACTOR ** UNKNOWN_STEPS[0]
        return self.guess_pixels <= smallest and self.shrinks and self.quality < CONVINCING

    @property
    def confirms(self) -> bool:
        """Whether there is nothing more to look for."""
        alike = 1 / CONFIRMING_FACTOR <= self.ratio <= CONFIRMING_FACTOR
        return alike and self.cells >= CONFIRMING_CELLS and self.agreement >= CONVINCING


def refine_scale(
    image: MendedImage,
    start: CellScale | None,
    spacing: tuple[float, float, float],
    spacing_origin: str,
    *,
    network: LoadedModel,
    decoder: Decoder,
    warnings: list[str],
    note: Callable[[str], None] = lambda text: None,
    intensity: Scale | None = None,
) -> CellScale:
    """Check the scale that is known, or find one.

    Parameters
    ----------
    image : MendedImage
    start : CellScale or None
        What voxel size or user say. A diameter given by the user is never changed.
    spacing, spacing_origin
        Relative voxel spacing and where it comes from.
    network, decoder
        What the probes run with.
    warnings : list of str
        Receives what the user should know.
    note : callable
        Told what takes long, such as building an engine.
    intensity : IntensityRange or Brightness, optional
        What becomes 0 and 1 as the user chose it; measured in what each probe sees otherwise.

    Returns
    -------
    CellScale
    """
    if start is not None and start.certain:
        return start
    card = network.model.card
    if _is_constant(image, card, intensity):
        return start or CellScale(card.diameter_voxels, spacing, "a default", spacing_origin)
    if start is None and is_noise(image):
        return _unknown(card, spacing, spacing_origin, warnings)
    tile = network.fixed_tile or probe_shape(card)
    base = start or CellScale(FIRST_PIXELS, spacing, "", spacing_origin)
    seen: dict[int, Probe] = {}

    def look_at(pixels: float) -> Probe:
        guess = replace(base, diameter_pixels=pixels)
        if _room(image.shape, guess) < LEAST_ROOM:
            return Probe(pixels, 0, math.nan, 0.0)
        prepared = shown(image, guess, card, intensity)
        return _probe(prepared, guess, card, session, decoder, tile, ready)

    def look(step: int) -> Probe:
        if step not in seen:
            probe = look_at(base.diameter_pixels * FACTOR**step)
            seen[step] = probe if start is None else replace(probe, doubt=DOUBT * abs(step))
        return seen[step]

    # Kernels load, and on the very first run compile, while the engine loads and computes.
    with compile_ahead(apart=[decoder.warm_up]) as ready:
        session = network.session(tile, note)
        first = seen[_best_step(look, known=start is not None)]
        best = settle(look_at, first) if first.quality >= LEAST else first
    # Enlarged even further, noise comes out as large as it is then taken for.
    noise = start is None and (first.is_enlarged_noise or best.is_enlarged_noise)
    if best.quality < LEAST or noise:
        if start is None:
            return _unknown(card, spacing, spacing_origin, warnings)
        if not card.planar or is_noise(image):
            return start
        # Single images are of anything: of bacteria, where the model's cells have 12 µm.
        anything = refine_scale(
            *(image, None, spacing, spacing_origin),
            network=network, decoder=decoder, warnings=[], note=note, intensity=intensity,
        )  # fmt: skip
        if not anything.cells:
            return start
        origin = f"{anything.diameter_origin}; {start.diameter_origin} shows no cells"
        warnings.append(
            f"the cell diameter is taken as {anything.diameter_pixels:.3g} pixels, {origin}; give "
            "--diameter to be sure"
        )
        return replace(anything, diameter_origin=origin)
    diameter = _size_of(best, planar=card.planar)
    origin = f"estimated from {counted(best.cells, 'cell')} in a coarse first pass"
    if start is not None:
        origin += f", where {start.diameter_origin} would be {start.diameter_pixels:.3g}"
        if abs(math.log(diameter / start.diameter_pixels)) > math.log(FAR):
            taken = f"the cell diameter is taken as {diameter:.3g} pixels, {origin}"
            warnings.append(f"{taken}; give --diameter to be sure")
    else:
        warnings.append(
            f"no voxel size is known: the cell diameter was estimated as {diameter:.3g} pixels; "
            "give --diameter or --voxel-size to be sure"
        )
    return replace(base, diameter_pixels=diameter, diameter_origin=origin, cells=best.cells)


def _size_of(best: Probe, *, planar: bool) -> float:
    """Diameter in pixels that the best of the probes says.

    Over a wide range of guesses cells keep their size, and the best guess may be any of these. In
    single planes that size is right. In stacks cells come out too small (0.91 of the true diameter
    on embryos); the guess errs to both sides, and changes with what else is in the image.
    """
    return best.diameter_pixels if planar else math.sqrt(best.guess_pixels * best.diameter_pixels)


def _best_step(look: Callable[[int], Probe], *, known: bool) -> int:
    """Step at which quality is best.

    What is known already and confirmed by the cells is not searched for.
    """
    if known and look(0).confirms:
        return 0
    step = search(look, KNOWN_STEPS if known else UNKNOWN_STEPS)
    if not known and (look(step).shrinks or not _convinces(look, step)):
        step = max(UNKNOWN_STEPS, key=lambda step: look(step).quality)
        if look(step).is_enlarged_noise:  # which is not all there is where others show cells
            cells = [n for n in UNKNOWN_STEPS if not look(n).shrinks and _convinces(look, n)]
            step = max(cells or [step], key=lambda step: look(step).quality)
    return step


def _convinces(look: Callable[[int], Probe], step: int) -> bool:
    """Whether the top of a hill needs no look at what lies far from it.

    It agrees well, or fairly well and what lies beside it shows cells of the same size.
    """
    best = look(step)
    beside = [look(near) for near in (step - 1, step + 1) if near in UNKNOWN_STEPS]
    return best.quality >= CONVINCING or (best.quality >= LEAST and all(map(best.is_like, beside)))


def _unknown(
    card: ModelCard,
    spacing: tuple[float, float, float],
    spacing_origin: str,
    warnings: list[str],
) -> CellScale:
    """What is taken where nothing tells the cells' size, with a warning."""
    warnings.append(
        f"the cell diameter could not be estimated and is taken as {card.diameter_voxels:.3g} "
        "pixels; give --diameter"
    )
    words = "a default: no voxel size is known, and no cells were found to estimate it from"
    return CellScale(card.diameter_voxels, spacing, words, spacing_origin)


def is_noise(image: MendedImage) -> bool:
    """Whether neighbouring pixels of the busiest part have nothing in common."""
    alike, chance = likeness(image, PROBE)
    return alike < max(WHITE_NOISE, 4 * chance)


def search(look: Callable[[int], Probe], steps: range) -> int:
    """Walk from step 0 to one whose probe is better than both its neighbours'.

    The cells say which way: while they come out larger than the guess, or hardly any come out, the
    guess grows, and while they come out smaller it shrinks. From the best of these, quality alone
    leads on.
    """
    seen = {0: look(0)}
    for direction in (1, -1):
        step = 0
        while step + direction in steps and _points(seen[step].ratio) == direction:
            step += direction
            seen[step] = look(step)
    while True:
        best = max(seen, key=lambda step: seen[step].quality)
        beside = [step for step in (best - 1, best + 1) if step in steps and step not in seen]
        if not beside:
            return best
        seen |= {step: look(step) for step in beside}


def settle(look_at: Callable[[float], Probe], best: Probe) -> Probe:
    """Follow the cells' size to a guess at which they come out about as large as guessed.

    `look_at` probes at a diameter in pixels.

    Returns
    -------
    Probe
        The last one that brought guess and cells closer together; what was given where they agree
        already.
    """
    apart = abs(math.log(best.ratio))
    if apart <= math.log(AGREEING_FACTOR):
        return best
    for _ in range(MOST_CORRECTIONS):
        closer = look_at(best.diameter_pixels)
        if closer.quality < LEAST or abs(math.log(closer.ratio)) >= apart:
            break
        best, apart = closer, abs(math.log(closer.ratio))
        if apart <= math.log(CONFIRMING_FACTOR):
            break
    return best


def _points(ratio: float) -> int:
    """Where to look on: 1 for larger cells, which also no cells call for, -1 for smaller ones."""
    return -1 if ratio < 1 else 1


def _room(shape: tuple[int, ...], scale: CellScale) -> float:
    """How many cells side by side fill the image; along an axis thinner than a cell, one."""
    extents = (n * s / scale.diameter_pixels for n, s in zip(shape, scale.spacing, strict=True))
    return math.prod(max(1.0, extent) for extent in extents)


def _probe(
    prepared: ModelImage,
    scale: CellScale,
    card: ModelCard,
    session: Session,
    decoder: Decoder,
    tile: Shape,
    ready: Callable[[], None],
) -> Probe:
    """Segment a part of the image at one scale, once the decoder is ready."""
    grid = plan_tiles(
        prepared.shape,
        halo=0,
        multiple=card.multiple,
        stride=card.output_stride,
        tile=tile,
        planar=card.planar,
    )
    kept, _ = network_fields(prepared, grid, session, decoder)
    ready()
    decoded = decoder.decode(kept, mode="fast")
    volumes = np.sort(np.bincount(decoded.labels.ravel())[1:])
    if not len(volumes):
        return Probe(scale.diameter_pixels, 0, math.nan, 0.0)
    # The cell in which the median voxel lies: debris and fragments hardly count.
    share = np.cumsum(volumes)
    typical = volumes[np.searchsorted(share, share[-1] / 2)]
    diameter = 2 * float(equivalent_radius(np.array([typical]), grid.shape)[0])
    agreement = decoder.agreement(decoded, kept)
    pixels = diameter / card.diameter_voxels * scale.diameter_pixels
    return Probe(scale.diameter_pixels, len(volumes), pixels, agreement, decoder.size_weight)


def _is_constant(image: MendedImage, card: ModelCard, intensity: Scale | None) -> bool:
    if intensity is not None or isinstance(card.normalisation, LocalBrightness):
        return image.defects.constant
    scale = measure_intensity(image, image.shape, card.normalisation)
    return isinstance(scale, IntensityRange) and scale.is_constant
