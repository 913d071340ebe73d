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
from dataclasses import replace

import numpy as np

from cellrt.compile_ahead import compile_ahead
from cellrt.geometry import Shape
from cellrt.runtime.cell_size.places import PROBE, probe_shape, shown
from cellrt.runtime.cell_size.probe import (
    AGREEING_FACTOR,
    CONFIRMING_CELLS,
    CONFIRMING_FACTOR,
    CONVINCING,
    FACTOR,
    FIRST_PIXELS,
    UNKNOWN_STEPS,
    Probe,
)
from cellrt.runtime.decoding.base import Decoder
from cellrt.runtime.decoding.labels.regions import equivalent_radius
from cellrt.runtime.grid.intensity import IntensityRange
from cellrt.runtime.grid.mended_image import MendedImage
from cellrt.runtime.grid.model_image import ModelImage, Scale, measure_intensity
from cellrt.runtime.grid.scale import SMALLEST_PIXELS, CellScale
from cellrt.runtime.grid.texture import likeness
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import LocalBrightness
from cellrt.runtime.network.engines.base import Session
from cellrt.runtime.network.loaded import LoadedModel
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.network.tiles import plan_tiles
from cellrt.wording import counted

# With a voxel size it starts there and goes at most this far, and each step has to gain a little in
# quality. Of guesses that are as good the far one is wrong: on 11 embryos in three fields each, the
# mean error of the size falls from 0.12 to 0.11 (log units), the largest from 1.8 to 0.45.
KNOWN_STEPS = range(-3, 4)
DOUBT = 0.005
FAR = 2.5  # times as large or small as a voxel size says: hardly the typical cells, a warning
# Below this there is no hill: class maps of real and simulated tissue reach 0.66 to 0.85, of
# simulated empty wells at most 0.55 (2 of 14 where clouds of stray light look like cells: 0.63).
LEAST = 0.6
MOST_CORRECTIONS = 3
# In single images, cells that grow by less than a factor of FACTOR where the guess grows by its
# square are there even if their fields hardly agree, as those of worms that cross each other: in 18
# of 18 images of these the size comes out right within 7 % (`cells2d-harmonic`). Fragments that do
# not convince give way to them: in 294 images, of nuclei, bacteria and worms, once, and rightly.
LEAST_STEADY = 0.35
# Correlation of neighbouring pixels below which an image is taken for noise. Cells are several
# pixels wide, and even dim ones make neighbours alike; enlarged, pure noise looks like small cells.
WHITE_NOISE = 0.02
# Cell sizes of which fewer than this many fit into the image need no probe.
LEAST_ROOM = 2.0


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

    def anything() -> CellScale:
        return refine_scale(
            *(image, None, spacing, spacing_origin),
            network=network, decoder=decoder, warnings=[], note=note, intensity=intensity,
        )  # fmt: skip

    def taken(scale: CellScale, origin: str) -> CellScale:
        """What the cells say against what is known, which is a warning."""
        words = f"the cell diameter is taken as {scale.diameter_pixels:.3g} pixels, {origin}"
        warnings.append(f"{words}; give --diameter to be sure")
        return replace(scale, diameter_origin=origin)

    instead = ""
    if start is not None:
        instead = f", where {start.diameter_origin} would be {start.diameter_pixels:.3g}"
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
        there = look(0)
    tiny = start is not None and start.diameter_pixels < SMALLEST_PIXELS
    # Such cells show hardly any shape, and texture of larger ones looks like them.
    if tiny and not there.confirms:
        if (larger := anything()).cells:
            return taken(larger, larger.diameter_origin + instead)
        if card.planar or is_noise(image):
            return _unknown(card, spacing, spacing_origin, warnings, instead)
    agreed = None if start is None else _agreed(look_at, there)
    if agreed is None:
        first = seen[_best_step(look, known=start is not None)]
        best = settle(look_at, first) if first.quality >= LEAST else first
    else:
        first = best = agreed
    # Enlarged even further, noise comes out as large as it is then taken for.
    noise = start is None and (first.is_enlarged_noise or best.is_enlarged_noise)
    # What nobody would look for has to convince.
    found = best.quality >= (CONVINCING if tiny else LEAST) and not noise
    if start is None and card.planar and not (found and best.quality >= CONVINCING):
        steady = _steady(seen)
        if steady is not None and not (found and _about_as_large(steady, best)):
            best, found = steady, True
    if not found:
        if start is None:
            return _unknown(card, spacing, spacing_origin, warnings)
        if not card.planar or is_noise(image):
            return start
        # Single images are of anything: of bacteria, where the model's cells have 12 µm.
        other = anything()
        origin = f"{other.diameter_origin}; {start.diameter_origin} shows no cells"
        return taken(other, origin) if other.cells else start
    diameter = _size_of(best, planar=card.planar)
    origin = f"estimated from {counted(best.cells, 'cell')} in a coarse first pass"
    scale = replace(base, diameter_pixels=diameter, cells=best.cells)
    if start is None:
        warnings.append(
            f"no voxel size is known: the cell diameter was estimated as {diameter:.3g} pixels; "
            "give --diameter or --voxel-size to be sure"
        )
        return replace(scale, diameter_origin=origin)
    origin += instead
    if abs(math.log(diameter / start.diameter_pixels)) > math.log(FAR):
        return taken(scale, origin)
    return replace(scale, diameter_origin=origin)


def _size_of(best: Probe, *, planar: bool) -> float:
    """Diameter in pixels that the best of the probes says.

    Over a wide range of guesses cells keep their size, and the best guess may be any of these. In
    single planes that size is right. In stacks cells come out too small (0.91 of the true diameter
    on embryos); the guess errs to both sides, and changes with what else is in the image.
    """
    return best.diameter_pixels if planar else math.sqrt(best.guess_pixels * best.diameter_pixels)


def _best_step(look: Callable[[int], Probe], *, known: bool) -> int:
    """Step at which quality is best."""
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


def _steady(seen: dict[int, Probe]) -> Probe | None:
    """The best look at cells that keep their size over guesses side by side, if there are any."""
    steady = []
    for step, probe in seen.items():
        near = [probe, *(seen[n] for n in (step - 1, step + 1) if n in seen)]
        sizes = [each.diameter_pixels for each in near if each.cells >= CONFIRMING_CELLS]
        if len(sizes) == 3 and max(sizes) < FACTOR * min(sizes) and probe.quality >= LEAST_STEADY:
            steady.append(probe)
    return max(steady, key=lambda probe: probe.quality, default=None)


def _about_as_large(one: Probe, other: Probe) -> bool:
    """Whether two looks show cells of a size, about."""
    apart = abs(math.log(one.diameter_pixels / other.diameter_pixels))
    return apart <= math.log(AGREEING_FACTOR)


def _unknown(
    card: ModelCard,
    spacing: tuple[float, float, float],
    spacing_origin: str,
    warnings: list[str],
    instead: str = "",
) -> CellScale:
    """What is taken where nothing tells the cells' size, with a warning.

    `instead` says what is known and not believed.
    """
    warnings.append(
        f"the cell diameter could not be estimated and is taken as {card.diameter_voxels:.3g} "
        f"pixels{instead}; give --diameter"
    )
    words = "no cells were found to estimate it from"
    words += instead or ", and no voxel size is known"
    return CellScale(card.diameter_voxels, spacing, f"a default: {words}", spacing_origin)


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


def _agreed(look_at: Callable[[float], Probe], there: Probe) -> Probe | None:
    """Ask cells that convince how large they are once more, at that size; nothing without a yes.

    Compared with a search in all of them, the mean error of the size falls from 0.12 to 0.10 (log
    units) in 32 simulated stacks with voxel sizes 0.5 to 2 times what they should be, and the
    largest from 0.42 to 0.30 in 55 embryos. Asked three times, their scatter is less still, but
    they come out smaller, which costs `nuclei` 0.006 of its AP50 on four embryos.
    """
    if there.shows_cells and not there.confirms:
        there = look_at(there.diameter_pixels)
    return there if there.confirms else None


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
