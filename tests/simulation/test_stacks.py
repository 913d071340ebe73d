"""Whole simulated stacks: reproducible, connected, of the asked size and density."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellrt.errors import InputError, UsageError
from cellrt.simulation import (
    ImagingParameters,
    MembraneParameters,
    NucleiParameters,
    simulate_membranes,
    simulate_membranes_from_labels,
    simulate_nuclei,
    simulate_paper_nuclei,
)

SIMULATORS = {
    "nuclei": simulate_nuclei,
    "membranes": simulate_membranes,
    "from labels": lambda *args, **options: simulate_membranes_from_labels(
        blocks(), *args, **options
    ),
}


def blocks():
    """Cells of 10 x 10 x 10 voxels with background on one side."""
    z, y, x = np.indices((40, 40, 40)) // 10
    labels = 1 + x + 4 * y + 16 * z
    labels[:, :, :10] = 0
    return labels.astype(np.uint16)


def whole_cells(labels):
    """Sizes of the cells that touch no face."""
    faces = [labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[..., 0], labels[..., -1]]
    cut = np.unique(np.concatenate([face.ravel() for face in faces]))
    sizes = np.bincount(labels.ravel())
    sizes[np.union1d(cut, [0])] = 0
    return sizes[sizes > 0]


def diameter(sizes):
    return (6 / np.pi * np.mean(sizes)) ** (1 / 3)


@pytest.mark.parametrize("kind", SIMULATORS)
def test_same_seed_same_bytes(kind):
    first, second, other = (
        SIMULATORS[kind]((20, 40, 40), diameter_voxels=12, seed=seed) for seed in (5, 5, 6)
    )
    assert first.image.tobytes() == second.image.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.parameters == second.parameters
    assert first.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("kind", ["nuclei", "membranes"])
def test_recorded_parameters_rebuild_the_stack(kind):
    stack = SIMULATORS[kind]((16, 32, 32), diameter_voxels=12, voxel_size_um=(1, 0.5, 0.5), seed=9)
    record = json.loads(json.dumps(stack.parameters))
    assert record["seed"] == 9
    assert record["shape"] == [16, 32, 32]
    assert ImagingParameters(**record["imaging"]).photons > 0
    owner = {"nuclei": NucleiParameters, "membranes": MembraneParameters}[kind]
    assert owner(**record[kind]) == owner.random(np.random.default_rng(9))


@settings(max_examples=15)
@given(
    st.sampled_from(sorted(SIMULATORS)),
    st.tuples(st.integers(1, 20), st.integers(8, 40), st.integers(8, 40)),
    st.sampled_from([0.7, 1.0, 2.2, 4.0]),
    st.integers(0, 10**6),
)
def test_stacks_hold_what_they_promise(kind, shape, z_size, seed):
    stack = SIMULATORS[kind](shape, diameter_voxels=10, voxel_size_um=(z_size, 1, 1), seed=seed)
    assert stack.image.shape == stack.labels.shape == shape
    assert stack.image.dtype == np.uint16
    assert stack.labels.dtype == np.int32
    assert stack.voxel_size_um == (z_size, 1, 1)
    present = np.unique(stack.labels[stack.labels > 0])
    assert present.tolist() == list(range(1, stack.cell_count + 1))
    for label, box in enumerate(ndimage.find_objects(stack.labels), start=1):
        assert ndimage.label(stack.labels[box] == label)[1] == 1
    json.dumps(stack.parameters)


@pytest.mark.parametrize("wanted", [10.0, 16.0])
def test_nuclei_have_the_asked_diameter(wanted):
    parameters = NucleiParameters(mitotic_share=0, diameter_cv=0.1, contact=1.0)
    stack = simulate_nuclei((80, 80, 80), diameter_voxels=wanted, nuclei=parameters, seed=1)
    assert diameter(whole_cells(stack.labels)) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("wanted", [12.0, 20.0])
def test_cells_have_the_asked_diameter(wanted):
    parameters = MembraneParameters(outline="none", divided_share=0.3)
    stack = simulate_membranes((80, 80, 80), diameter_voxels=wanted, membranes=parameters, seed=2)
    assert (stack.labels > 0).all()
    # Cells that touch no face are the smaller ones, so the mean is a little low.
    assert diameter(whole_cells(stack.labels)) == pytest.approx(wanted, rel=0.12)


def test_real_labels_are_resampled_to_the_asked_diameter():
    wanted = 12.4  # the sphere of 1000 voxels; the cells are cubes
    stack = simulate_membranes_from_labels(
        blocks(),
        (40, 40, 40),
        diameter_voxels=wanted,
        membranes=MembraneParameters(curvature=0.0),
        seed=3,
    )
    assert set(whole_cells(stack.labels)) <= set(range(900, 1100))
    assert 0.1 < (stack.labels == 0).mean() < 0.4


def test_density_follows_the_filling():
    covered = [
        (
            simulate_nuclei(
                (64, 64, 64),
                diameter_voxels=12,
                nuclei=NucleiParameters(arrangement="dense", filling=filling),
                seed=4,
            ).labels
            > 0
        ).mean()
        for filling in (0.1, 0.4)
    ]
    assert covered[0] == pytest.approx(0.1, abs=0.05)
    assert covered[1] == pytest.approx(0.4, abs=0.1)


def test_nuclei_are_brighter_than_background_and_walls_than_cells():
    stack = simulate_nuclei((48, 64, 64), seed=6, nuclei=NucleiParameters(), imaging=CLEAN)
    inside = stack.image[ndimage.binary_erosion(stack.labels > 0, iterations=2)]
    outside = stack.image[~ndimage.binary_dilation(stack.labels > 0, iterations=3)]
    assert inside.mean() > 3 * (outside.mean() - CLEAN.offset) + CLEAN.offset

    stack = simulate_membranes((48, 64, 64), seed=7, membranes=MembraneParameters(), imaging=CLEAN)
    wall = np.zeros(stack.labels.shape, bool)
    wall[..., 1:] |= stack.labels[..., 1:] != stack.labels[..., :-1]
    core = ~ndimage.binary_dilation(wall, np.ones((3, 3, 3)), iterations=3)
    assert stack.image[wall].mean() > 2 * stack.image[core].mean()


CLEAN = replace(
    ImagingParameters(), photons=400.0, read_noise=1.0, background=0.0, tail_weight=0.0, offset=10.0
)


def test_anisotropic_nuclei_are_flat_in_voxels_and_round_in_um():
    parameters = NucleiParameters(
        arrangement="scattered", elongation=1.0, roughness=0.0, mitotic_share=0.0
    )
    stack = simulate_nuclei(
        (20, 80, 80), diameter_voxels=20, voxel_size_um=(4, 1, 1), nuclei=parameters, seed=8
    )
    heights = [
        (box[0].stop - box[0].start) / (box[2].stop - box[2].start)
        for box in ndimage.find_objects(stack.labels)
        if box[0].start > 0 and box[0].stop < 20 and box[2].start > 0 and box[2].stop < 80
    ]
    assert np.median(heights) == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_random_draws_contain_cells(seed):
    for kind in ("nuclei", "membranes"):
        stack = SIMULATORS[kind]((48, 64, 64), diameter_voxels=12, seed=seed)
        assert stack.cell_count > 2
        assert stack.image.std() > 0


def test_paper_stack_has_the_papers_noise_and_density():
    stack = simulate_paper_nuclei("noise", (70, 70, 200), seed=1)
    assert stack.cell_count == pytest.approx(350 / 20, abs=2)
    core = ndimage.binary_erosion(stack.labels > 0, iterations=2)
    outside = ~ndimage.binary_dilation(stack.labels > 0, iterations=2)
    signal = stack.image.astype(float) / 1000 - 1
    assert signal[core].mean() == pytest.approx(1.0, abs=0.01)
    assert signal[core].std() == pytest.approx(0.1, abs=0.005)
    assert signal[outside].mean() == pytest.approx(0.0, abs=0.01)
    assert signal[outside].std() == pytest.approx(0.1, abs=0.005)


def test_paper_variants_share_their_cells_and_differ_in_blur():
    stacks = [simulate_paper_nuclei(v, (50, 60, 70), seed=2) for v in ("noise", "psf1", "psf2")]
    assert len({stack.labels.tobytes() for stack in stacks}) == 1
    inside = stacks[0].labels > 0
    contrast = [s.image[inside].mean() - s.image[~inside].mean() for s in stacks]
    assert contrast[0] > contrast[1] > contrast[2]


def test_paper_style_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="choose from noise"):
        simulate_paper_nuclei("psf3")
    with pytest.raises(UsageError, match="isotropic"):
        simulate_paper_nuclei("noise", (20, 20, 20), voxel_size_um=(2.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((4, 4, 4), np.int32), "no cells"),
        (np.ones((4, 4)), "three dimensions"),
        (np.ones((4, 4, 4), np.float32), "whole numbers"),
        (np.full((4, 4, 4), -1), "negative"),
    ],
)
def test_unusable_label_volumes_are_refused(source, words):
    with pytest.raises(InputError, match=words):
        simulate_membranes_from_labels(source, (8, 8, 8))


def test_walls_on_a_real_label_volume(pytestconfig):
    file = pytestconfig.rootpath / "../shared/data/labels_only/plant_tissue_labels.h5"
    if not file.exists():
        pytest.skip("the shared data folder with plant_tissue_labels.h5 is not here")
    with h5py.File(file) as opened:
        source = opened["label"][:80, :200, :240]
    stack = simulate_membranes_from_labels(source, (64, 80, 80), diameter_voxels=20, seed=1)
    assert stack.cell_count > 10
    assert diameter(whole_cells(stack.labels)) == pytest.approx(20, rel=0.3)
