"""The cell size found in a coarse first pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import downscale_local_mean

import cellrt
from cellrt.runtime.cell_size import search as size_search
from cellrt.runtime.cell_size.search import (
    CONVINCING,
    KNOWN_STEPS,
    UNKNOWN_STEPS,
    Probe,
    _best_step,
    _steady,
    is_noise,
    search,
    settle,
)
from cellrt.runtime.grid.mended_image import as_it_is
from cellrt.simulation import (
    ImagingParameters,
    NucleiParameters,
    simulate_bacteria,
    simulate_membranes,
    simulate_nuclei,
    simulate_worms,
)
from cellrt.simulation.styles import simulate_style


def found_diameter(stack, **options):
    return cellrt.segment(stack, **options).record["scale"]


@pytest.mark.parametrize("diameter", [10.0, 16.0, 26.0])
def test_the_size_is_found_without_any_metadata(diameter):
    stack = simulate_nuclei(
        (64, 96, 96),
        diameter_voxels=diameter,
        nuclei=NucleiParameters(filling=0.15),
        imaging=ImagingParameters(),
        seed=3,
    )
    result = cellrt.segment(stack.image)
    assert result.record["scale"]["diameter_pixels"] == pytest.approx(diameter, rel=0.4)
    assert any("estimated" in text for text in result.warnings)


@pytest.mark.parametrize("model", ["membranes", "membranes-3dcellseg"])
def test_the_size_of_cells_between_membranes_is_found(model):
    stack = simulate_membranes(
        (64, 112, 112), diameter_voxels=28, imaging=ImagingParameters(), seed=3
    )
    scale = found_diameter(stack.image, model=model)
    assert scale["diameter_pixels"] == pytest.approx(28, rel=0.25)


def test_the_size_of_cells_in_one_slice_follows_from_their_areas():
    y, x = np.indices((200, 240))
    discs = np.zeros(y.shape, np.float32)
    for cy in range(20, 190, 36):
        for cx in range(20, 230, 40):
            discs[(y - cy) ** 2 + (x - cx) ** 2 <= 12**2] = 1
    noise = np.random.default_rng(0).normal(0, 6, y.shape)
    image = (100 + 300 * ndimage.gaussian_filter(discs, 1.5) + noise).astype(np.uint16)
    assert found_diameter(image)["diameter_pixels"] == pytest.approx(24, rel=0.25)


@pytest.mark.parametrize("model", ["nuclei2d", "cells2d-harmonic"])
@pytest.mark.parametrize("diameter", [16, 26, 34])
def test_of_single_planes_the_size_is_that_of_the_cells_between_guesses_too(model, diameter):
    y, x = np.mod(np.indices((300, 300)), 2 * diameter) - diameter
    inside = (y**2 + x**2 <= (diameter / 2) ** 2).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 6, inside.shape)
    image = (100 + 300 * ndimage.gaussian_filter(inside, 1.5) + noise).astype(np.uint16)
    scale = cellrt.Segmenter(model).prepare(image).scale
    assert scale.diameter_pixels == pytest.approx(diameter, rel=0.07)


def test_a_wrong_voxel_size_is_noticed_and_said():
    stack = simulate_nuclei(
        (48, 96, 96), nuclei=NucleiParameters(filling=0.15), imaging=ImagingParameters(), seed=4
    )
    # Taken at face value nuclei of 16 voxels would be 5 µm in size, half of what is typical.
    result = cellrt.segment(stack.image, voxel_size=(0.3, 0.3, 0.3))
    scale = result.record["scale"]
    assert scale["diameter_pixels"] == pytest.approx(16, rel=0.4)
    assert "coarse first pass" in scale["diameter_origin"]


def test_single_images_whose_typical_cells_are_not_there_are_searched_for_any():
    # Bacteria of 1 µm, where the model's cells have 12.
    stack = simulate_bacteria((192, 192), seed=7)
    options = {"model": "cells2d-harmonic", "voxel_size": stack.voxel_size_um}
    found = cellrt.segment(stack.image, **options)
    assert found.record["scale"]["diameter_pixels"] == pytest.approx(
        stack.parameters["diameter_voxels"], rel=0.3
    )
    assert len(found.table) > 0.8 * stack.labels.max()
    assert any("shows no cells; give diameter to be sure" in text for text in found.warnings)

    noise = np.random.default_rng(0).normal(100, 10, (1, 192, 192)).astype(np.float32)
    nothing = cellrt.segment(noise, **options)
    assert "typical" in nothing.record["scale"]["diameter_origin"]
    if not len(nothing.table):
        assert any("looked for were cells of" in text for text in nothing.warnings)


@pytest.mark.parametrize(("seed", "diameter"), [(20, 32), (22, 32), (41, 20)])
def test_worms_are_found_where_no_size_is_said(seed, diameter):
    # Typical cells would be 1.5 pixels large there, and fields of worms that cross hardly agree.
    stack = simulate_worms((256, 256), seed=seed, diameter_voxels=diameter)
    for voxel_size in (stack.voxel_size_um, None):
        scale = found_diameter(stack.image, model="cells2d-harmonic", voxel_size=voxel_size)
        assert scale["diameter_pixels"] == pytest.approx(diameter, rel=0.1)


def test_fragments_of_large_worms_give_way_to_them():
    stack = simulate_worms((500, 500), contrast="fluorescence", seed=1, diameter_voxels=60)
    scale = found_diameter(stack.image, model="cells2d-harmonic")
    assert scale["diameter_pixels"] == pytest.approx(60, rel=0.15)


@pytest.mark.parametrize(
    ("simulated", "model", "diameter"),
    [(simulate_nuclei, "nuclei", 16), (simulate_membranes, "membranes", 24)],
)
def test_larger_cells_are_looked_for_before_those_of_a_pixel(simulated, model, diameter):
    stack = simulated((48, 96, 96), seed=3)
    found = cellrt.Segmenter(model).prepare(stack.image, voxel_size=(8, 8, 8))
    assert found.scale.diameter_pixels == pytest.approx(diameter, rel=0.25)
    assert any("is taken as" in text for text in found.warnings)


@pytest.mark.parametrize("model", ["nuclei", "nuclei2d", "cells2d-harmonic"])
def test_noise_is_not_enlarged_for_cells_of_a_pixel(model):
    shape = (24, 80, 80) if model == "nuclei" else (160, 160)
    noise = np.random.default_rng(3).poisson(50, shape).astype(np.uint16)
    found = cellrt.Segmenter(model).prepare(noise, voxel_size=(8, 8, 8))
    assert "a default" in found.scale.diameter_origin
    assert "would be" in found.scale.diameter_origin
    assert any("could not be estimated" in text for text in found.warnings)


def test_cells_of_three_pixels_are_not_taken_for_larger_ones():
    large = simulate_nuclei((96, 160, 160), seed=3).image
    small = downscale_local_mean(large.astype(np.float32), (5, 5, 5))
    scale = cellrt.Segmenter("nuclei").prepare(small, voxel_size=(3, 3, 3)).scale
    assert scale.diameter_pixels == pytest.approx(3.2, rel=0.35)


def test_cells_keep_their_size_over_guesses_side_by_side():
    sizes = enumerate((19, 21, 24))
    worms = {step: Probe(10 * 1.5**step, 20, size, 0.5) for step, size in sizes}
    fragments = {step: Probe(10 * 1.5**step, 20, 8 * 1.5**step, 0.5) for step in range(3)}
    assert _steady(worms) == worms[1]
    assert _steady(fragments) is None
    assert _steady({0: worms[0], 1: worms[1]}) is None
    few = {step: replace(probe, cells=4) for step, probe in worms.items()}
    assert _steady(few) is None


def test_a_size_far_from_the_typical_one_is_a_warning():
    stack = simulate_worms((150, 200), seed=3)
    result = cellrt.segment(stack.image, "nuclei2d", voxel_size=(8, 8, 8))
    scale = result.record["scale"]
    assert "where a typical 12 µm at 8 µm per pixel" in scale["diameter_origin"]
    assert scale["diameter_pixels"] > 2.5 * 1.5
    taken = f"the cell diameter is taken as {scale['diameter_pixels']:.3g} pixels"
    (text,) = (text for text in result.warnings if text.startswith(taken))
    assert "give diameter" in text


def test_how_cells_are_drawn_does_not_change_how_large_they_are():
    stack = simulate_nuclei(
        (32, 80, 80), diameter_voxels=14, nuclei=NucleiParameters(filling=0.2), seed=3
    )
    options = {"model": "nuclei-harmonicnet"}
    size = found_diameter(stack.image, **options)
    assert "estimated" in size["diameter_origin"]
    drawn = {"fit": True, "fit_reach": 2}
    assert found_diameter(stack.image, decoder_parameters=drawn, **options) == size


def test_the_users_word_is_never_changed():
    stack = np.random.default_rng(0).integers(0, 255, (16, 32, 32)).astype(np.uint8)
    scale = cellrt.segment(stack, diameter=9.5).record["scale"]
    assert scale["diameter_pixels"] == 9.5
    assert scale["diameter_origin"] == "given by the user"


def test_noise_gives_no_estimate_but_a_result():
    stack = np.random.default_rng(0).normal(100, 5, (16, 48, 48)).astype(np.float32)
    result = cellrt.segment(stack)
    assert result.labels.shape == stack.shape


def probe(step, top, cells=20):
    guess = 10 * 1.5**step
    return Probe(guess, cells, 10 * 1.5**top, 0.9 - 0.05 * abs(step - top))


def test_grains_of_noise_that_agree_do_not_hide_cells():
    # As of a dim image with 13 cells of 50 pixels, at steps -2 to 4.
    found = [
        (176, 3.8, 0.80),
        (116, 3.2, 0.84),
        (21, 5.5, 0.71),
        (7, 8.8, 0.70),
        (14, 48.8, 0.92),
        (13, 48.0, 0.91),
        (11, 49.5, 0.90),
    ]

    def look(step):
        cells, size, agreement = found[step + 2]
        return Probe(13.5 * 1.5**step, cells, size, agreement)

    assert search(look, UNKNOWN_STEPS) == -1
    assert _best_step(look, known=False) == 2


def test_cells_are_looked_for_where_the_best_guess_is_enlarged_noise():
    # As of 13 cells of 46 pixels in 20 grey values, at steps -2 to 4.
    found = [
        (5, 3.1, 0.70),
        (0, np.nan, 0.0),
        (0, np.nan, 0.0),
        (6, 28.2, 0.65),
        (9, 39.5, 0.66),
        (13, 44.9, 0.61),
        (12, 49.5, 0.58),
    ]

    def look_at(found):
        def look(step):
            cells, size, agreement = found[step + 2]
            return Probe(13.5 * 1.5**step, cells, size, agreement)

        return look

    assert _best_step(look_at(found), known=False) == 3
    # Where nothing else convinces either it stays noise.
    nothing = look_at([found[0]] + 6 * [(9, 5.0, 0.5)])
    assert nothing(_best_step(nothing, known=False)).is_enlarged_noise


def test_cells_that_are_equally_large_at_three_guesses_need_no_look_at_all_others():
    # As of nuclei of 38 pixels, at steps -2 to 4; a decoder that counts how well sizes fit.
    looked = set()

    def look_of(sizes, cells=30):
        def look(step):
            looked.add(step)
            return Probe(13.5 * 1.5**step, cells, sizes[step + 2], 0.8, size_weight=1.0)

        return look

    steady = look_of([5.9, 19.9, 32.5, 33.4, 38.0, 38.0, 38.8])
    assert _best_step(steady, known=False) == 3
    assert steady(3).quality < CONVINCING
    assert looked == {0, 1, 2, 3, 4}
    # Fragments, whose size follows the guess, and a few cells leave it in doubt.
    looked.clear()
    follow = look_of([5.0, 8.0, 12.2, 16.0, 38.0, 38.0, 38.8])
    _best_step(follow, known=False)
    assert looked == set(UNKNOWN_STEPS)
    looked.clear()
    _best_step(look_of([5.9, 19.9, 32.5, 33.4, 38.0, 38.0, 38.8], cells=4), known=False)
    assert looked == set(UNKNOWN_STEPS)


def test_a_known_size_is_not_left_for_a_far_one():
    def look(step):
        return Probe(10 * 1.5**step, 20, {0: 6.0, -1: 5.0}.get(step, 10.0), 0.8 + 0.01 * step)

    assert _best_step(look, known=True) == search(look, KNOWN_STEPS)


@pytest.mark.parametrize("top", range(-3, 4))
def test_the_search_finds_the_top_of_a_hill_and_looks_at_few_steps(top):
    looked = set()

    def look(step):
        looked.add(step)
        return probe(step, top)

    assert search(look, range(-3, 4)) == top
    assert len(looked) <= abs(top) + 3
    assert looked <= set(range(-3, 4))


def test_the_search_walks_on_where_cells_are_too_few_to_say():
    assert search(lambda step: probe(step, 3, cells=20 if step > 1 else 1), range(-2, 5)) == 3


def test_the_search_crosses_a_dip_that_the_cells_size_leads_across():
    agreement = {-1: 0.5, 0: 0.7, 1: 0.65, 2: 0.9, 3: 0.8}
    sizes = {-1: 15, 0: 20, 1: 25, 2: 23, 3: 25}

    def look(step):
        return Probe(10 * 1.5**step, 20, sizes[step], agreement[step])

    assert search(look, range(-1, 4)) == 2


def test_cells_of_another_size_than_guessed_count_less_where_the_decoder_says_so():
    specks = Probe(20, 300, 9, agreement=0.85, size_weight=1.0)
    cells = Probe(20, 20, 18, agreement=0.8, size_weight=1.0)
    assert specks.quality == pytest.approx(0.85 * 9 / 20)
    assert cells.quality == pytest.approx(0.8 * 18 / 20)
    assert Probe(10, 20, 20, 0.8, size_weight=1.0).quality == pytest.approx(0.4)
    assert Probe(20, 300, 9, agreement=0.85).quality == 0.85


def test_a_size_that_the_cells_confirm_is_not_probed_further(monkeypatch):
    stack = simulate_nuclei((48, 96, 96), nuclei=NucleiParameters(filling=0.15), seed=4)
    guesses = []
    look = size_search._probe
    monkeypatch.setattr(
        size_search, "_probe", lambda *args: (guesses.append(args[1]), look(*args))[1]
    )
    scale = found_diameter(stack.image, voxel_size=(0.6, 0.6, 0.6))
    assert len(guesses) == 1
    assert scale["diameter_pixels"] == pytest.approx(16, rel=0.15)
    # Where cells convince and say another size, they are asked once more, at that.
    guesses.clear()
    scale = found_diameter(stack.image, voxel_size=(0.45, 0.45, 0.45))
    assert len(guesses) == 2
    assert scale["diameter_pixels"] == pytest.approx(16, rel=0.15)


def is_noise_in(image: np.ndarray) -> bool:
    return is_noise(as_it_is(image))


def test_noise_is_told_from_cells_in_noise():
    rng = np.random.default_rng(5)
    shape = (16, 64, 64)
    assert is_noise_in(rng.poisson(100, shape))
    assert is_noise_in(rng.normal(0, 1, (1, 40, 40)).astype(np.float32))
    # Slices that differ in brightness are still noise; balls that hardly show are not.
    assert is_noise_in(rng.poisson(np.linspace(50, 150, 16)[:, None, None], shape))
    z, y, x = np.indices(shape)
    ball = (z - 8) ** 2 + (y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 20
    assert not is_noise_in(rng.poisson(100 + 12 * ball))
    assert not is_noise_in(np.ones(shape))


def settled(first, sizes):
    """What `settle` makes of a probe where cells come out as a function of the guess."""
    looked = []

    def look_at(pixels):
        looked.append(pixels)
        return Probe(pixels, 20, sizes(pixels), 0.8)

    return settle(look_at, Probe(first, 20, sizes(first), 0.8)).diameter_pixels, looked


@pytest.mark.parametrize("first", [9, 13.5, 45, 68])
def test_cells_that_keep_their_size_are_believed(first):
    found, looked = settled(first, lambda pixels: 24 * (pixels / 24) ** 0.1)
    assert found == pytest.approx(24, rel=0.08)
    assert len(looked) == 1


def test_a_size_that_agrees_takes_no_further_probe():
    assert settled(20, lambda pixels: 1.39 * pixels) == (pytest.approx(20 * 1.39), [])


@pytest.mark.parametrize("sizes", [lambda pixels: 2 * pixels, lambda pixels: 400 / pixels])
def test_sizes_that_never_settle_end_where_they_began(sizes):
    first = Probe(10, 20, sizes(10), 0.8)
    found, looked = settled(10, sizes)
    assert found == first.diameter_pixels
    assert len(looked) == 1


def test_a_look_that_shows_no_cells_changes_nothing():
    first = Probe(10, 20, 20, 0.8)
    assert settle(lambda pixels: Probe(pixels, 1, 40, 0.9), first) == first
    assert settle(lambda pixels: Probe(pixels, 9, 20, 0.5), first) == first


def test_a_flat_hill_does_not_decide_how_large_cells_are(monkeypatch):
    found = []
    for top in (18.0, 23.0):  # as in one embryo, alone and in a wider field

        def look(image, scale, *others, top=top):
            guess = scale.diameter_pixels
            return Probe(guess, 20, 17 * (guess / 17) ** 0.1, 0.8 - 0.02 * abs(np.log(guess / top)))

        monkeypatch.setattr(size_search, "_probe", look)
        image = np.random.default_rng(0).poisson(ndimage.gaussian_filter(np.eye(96) * 1e4, 4))
        cells = cellrt.Segmenter("nuclei")
        job = cells.prepare(np.repeat(image[None], 96, 0).astype(np.uint16), voxel_size=(0.8,) * 3)
        found.append(job.scale.diameter_pixels)
    assert found == pytest.approx([17, 17], rel=0.1)


def test_nuclei_larger_than_the_best_guess_are_found_at_their_size():
    stack = simulate_nuclei(
        (48, 112, 112),
        diameter_voxels=24,
        nuclei=NucleiParameters(filling=0.15),
        imaging=ImagingParameters(),
        seed=1,
    )
    # The network agrees with itself best at 13 pixels, where nuclei of 24 come out.
    scale = found_diameter(stack.image)
    assert scale["diameter_pixels"] == pytest.approx(24, rel=0.15)


@pytest.mark.parametrize("seed", [900001, 900005])
def test_enlarged_noise_of_an_empty_well_is_not_taken_for_tiny_cells(seed):
    well = simulate_style("membranes", "empty", seed=seed).image
    job = cellrt.Segmenter("membranes").prepare(well)
    assert any("could not be estimated" in warning for warning in job.warnings)
    assert job.scale.diameter_pixels == job.network.model.card.diameter_voxels


def test_enlarged_noise_is_not_followed_to_where_it_agrees(monkeypatch):
    def look(image, scale, *others):  # as in tissue of which 20 grey values are left
        guess = scale.diameter_pixels
        size, agreement = (3.8, 0.69) if guess <= 6 else (40, 0.5)
        return Probe(guess, 12, size if guess > 4 else guess, agreement)

    monkeypatch.setattr(size_search, "_probe", look)
    image = np.random.default_rng(0).poisson(ndimage.gaussian_filter(np.eye(96) * 1e4, 4))
    job = cellrt.Segmenter("membranes").prepare(np.repeat(image[None], 96, 0).astype(np.uint16))
    assert any("could not be estimated" in warning for warning in job.warnings)


def test_small_cells_that_convince_or_have_the_size_that_was_guessed_are_no_noise():
    smallest = size_search.FIRST_PIXELS * size_search.FACTOR**-2
    assert Probe(smallest, 15, 0.6 * smallest, 0.68).is_enlarged_noise
    assert not Probe(smallest, 15, 0.6 * smallest, 0.85).is_enlarged_noise
    assert not Probe(smallest, 15, 0.9 * smallest, 0.68).is_enlarged_noise
    assert not Probe(2 * smallest, 15, 1.2 * smallest, 0.68).is_enlarged_noise


@pytest.mark.parametrize("model", ["nuclei2d", "cells2d-harmonic"])
def test_the_grey_values_that_a_user_chose_are_those_in_which_the_size_is_looked_for(model):
    large, small = (np.zeros((400, 400)) for _ in range(2))
    large[24::60, 24::60], small[5::28, 5::28] = 1, 1
    radius = {"cell": 15, "grain": 4}
    y, x = np.ogrid[-15:16, -15:16]
    drawn = {n: y**2 + x**2 <= r**2 for n, r in radius.items()}
    cells = ndimage.grey_dilation(large, footprint=drawn["cell"]) * 200
    grains = ndimage.grey_dilation(small, footprint=drawn["grain"]) * 3000
    image = 100 + ndimage.gaussian_filter(np.maximum(cells, grains), 1)
    image += np.random.default_rng(0).normal(0, 8, image.shape)
    image = image.clip(0).astype(np.uint16)
    segmenter = cellrt.Segmenter(model)
    assert segmenter.prepare(image).scale.diameter_pixels < 15
    chosen = segmenter.prepare(image, intensity=(100, 300)).scale
    assert chosen.diameter_pixels == pytest.approx(30, rel=0.25)
