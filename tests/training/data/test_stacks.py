"""From labelled files to stacks on the model grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("torch", reason="torch is not installed")

from cellrt.errors import InputError
from cellrt.models.ground_truth import UNKNOWN
from cellrt.training.data.patches import PatchDataset
from cellrt.training.data.simulated import _draw, simulated_stacks
from cellrt.training.data.stacks import load_training_stacks
from cellrt.training.recipe import SimulateTable, load_recipe

RECIPE = """
name = "tiny"
kind = "membranes"
[model]
nominal_diameter_voxels = 8
[optim]
patch_voxels = [16, 16, 16]
max_steps = 1
[[data]]
name = "blocks"
images = "image.tif"
labels = "labels.tif"
diameter_um = 8.0
{keys}
"""


def load(folder: Path, labels: np.ndarray, keys: str) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 999, labels.shape).astype(np.uint16)
    tifffile.imwrite(folder / "image.tif", image)
    tifffile.imwrite(folder / "labels.tif", labels)
    (folder / "recipe.toml").write_text(RECIPE.format(keys=keys))
    (stack,) = load_training_stacks(load_recipe(folder / "recipe.toml"))
    return stack.labels


def blocks() -> np.ndarray:
    labels = np.zeros((12, 16, 16), np.int32)
    labels[:, :8, :] = 3
    labels[:6, 8:, :] = 5
    labels[6:, 8:, :] = 7
    return labels


def test_a_plane_without_ground_truth_takes_what_its_neighbours_agree_on(tmp_path: Path) -> None:
    labels = blocks()
    labels[6] = 1
    clean = load(tmp_path, labels, "lost_planes = [6]")
    assert (clean[6, :8] == clean[5, 0, 0]).all()
    assert (clean[6, 8:] == UNKNOWN).all()


def test_planes_are_counted_in_the_file_and_the_last_one_is_unknown(tmp_path: Path) -> None:
    crop = "crop = [[4, 12], [0, 16], [0, 16]]"
    clean = load(tmp_path, blocks(), f"lost_planes = [8, 11, 2]\n{crop}")
    assert clean.shape == (8, 16, 16)
    assert (clean[4] > 0).all()
    assert (clean[7] == UNKNOWN).all()
    assert not (clean[:7] == UNKNOWN).any()


def test_small_and_named_labels_are_unknown(tmp_path: Path) -> None:
    labels = blocks()
    labels[0, 0, :3] = 9
    clean = load(tmp_path, labels, "min_object_voxels = 4\nunknown_labels = [5]")
    assert (clean[0, 0, :3] == UNKNOWN).all()
    assert (clean[labels == 5] == UNKNOWN).all()
    assert (clean[(labels == 3) | (labels == 7)] > 0).all()


def test_a_simulations_fields_are_replaced_by_values_and_drawn_from_ranges() -> None:
    job = {"kind": "membranes", "shape": [16, 24, 24], "seed": 1}
    options = {"diameter_voxels": 12, "membranes": {"outline": "none", "nuclei": [2.0, 3.0]}}
    drawn = _draw({**job, "options": options}).parameters["membranes"]
    assert drawn["outline"] == "none"
    assert 2.0 <= drawn["nuclei"] <= 3.0
    assert _draw({**job, "options": options}).parameters["membranes"] == drawn


def test_stacks_without_cells_are_trained_on_and_patches_of_them_are_background(
    tmp_path: Path,
) -> None:
    text = (
        RECIPE.split("[[data]]")[0]
        + """
[[simulate]]
name = "empty wells"
kind = "empty"
count = 2
shape = [24, 24, 24]
weight = 0.5
options = { diameter_voxels = 8, z_step = 2.0 }
"""
    )
    (tmp_path / "recipe.toml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.toml")
    stacks = load_training_stacks(recipe)
    assert [stack.weight for stack in stacks] == [0.25, 0.25]
    assert [stack.image.shape for stack in stacks] == [(24, 24, 24)] * 2  # on the isotropic grid
    assert not any(stack.labels.any() for stack in stacks)
    _, targets, labels = PatchDataset(stacks, recipe)[0]
    assert (labels <= 0).all()
    assert (targets[3][labels == 0] == 0).all()


def test_images_of_bacteria_and_worms_are_drawn_with_one_of_several_contrasts() -> None:
    job = {"kind": "bacteria", "shape": [1, 96, 80]}
    options = {"contrast": ["phase", "dic"], "diameter_voxels": [10, 14], "filling": 0.3}
    drawn = [_draw({**job, "seed": seed, "options": options}) for seed in range(6)]
    assert {stack.parameters["contrast"] for stack in drawn} == {"phase", "dic"}
    assert all(10 <= stack.parameters["diameter_voxels"] <= 14 for stack in drawn)
    assert all(stack.image.shape == (1, 96, 80) and stack.labels.max() > 2 for stack in drawn)
    worms = _draw({"kind": "worms", "shape": [1, 128, 128], "seed": 1, "options": {}})
    assert worms.voxel_size_um == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [4, 96, 80]}, "lie in one plane"),
        ({"options": {"z_step": 2.0}}, "'z_step'"),
        ({"options": {"contrast": "xray"}}, "xray"),
    ],
)
def test_what_makes_no_image_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    table = {"shape": [1, 64, 64], "options": {}, **change}
    drawn = SimulateTable(name="rods", kind="bacteria", count=1, **table)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(keys=""))
    recipe = load_recipe(tmp_path / "recipe.toml")
    with pytest.raises(InputError, match=words):
        list(simulated_stacks(drawn, recipe))
