from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pydantic", reason="pydantic is not installed")

from cellrt.errors import InputError
from cellrt.training.recipe import Recipe, load_recipe

GOOD = """
name = "try"
kind = "nuclei"
[optim]
max_steps = 10
[[simulate]]
name = "s"
kind = "nuclei"
count = 2
"""


def load_recipe_at(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return load_recipe(path)


def test_a_good_recipe_fills_in_defaults(tmp_path: Path) -> None:
    recipe = load_recipe_at(tmp_path, GOOD)
    assert recipe.model.widths == (16, 32, 64, 128)
    assert recipe.folder == tmp_path.resolve()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("max_steps = 10", "max_stepps = 10", "optim.max_stepps"),
        ("max_steps = 10", "max_steps = -1", "optim.max_steps"),
        ("max_steps = 10", "batch = 2", "max_steps"),
        ("max_steps = 10", "max_steps = 1\npatch_voxels = [9, 8, 8]", "optim.patch_voxels"),
        ('kind = "nuclei"\n[optim]', 'kind = "nucleus"\n[optim]', "kind"),
        ('name = "try"\n', "", "name"),
        ("count = 2", 'count = "many"', "simulate.0.count"),
        ("count = 2", "count = 2\n[[data]]\nname='d'\nlabels='l.tif'", "images"),
        ("count = 2", "count = 2\n[augment]\ngama = [1, 2]", "augment.gama"),
        ("count = 2", "count = 2\n[model]\nmethod = 'cellseg'", "model"),
        ("count = 2", "count = 2\n[targets]\nmethod = 'cellseg3d'", "belongs into [model]"),
        ('name = "try"', 'name = "try"\nmodel = 3', "model"),
        ("count = 2", "count = 2\n[model]\nmethod = 'cellseg3d'\nwidths = [8]", "model.widths"),
        ("count = 2", "count = 2\n[targets]\nmembrane_voxels = 1.5", "targets.membrane_voxels"),
        (
            "count = 2",
            "count = 2\n[model]\nmethod = 'cellseg3d'\n[loss]\nkind = 'focal'",
            "loss.kind",
        ),
    ],
)
def test_errors_name_the_key_in_one_line(tmp_path: Path, old: str, new: str, key: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe_at(tmp_path, GOOD.replace(old, new, 1))
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_method_decides_what_targets_and_loss_are(tmp_path: Path) -> None:
    text = GOOD + "[model]\nmethod = 'cellseg3d'\n[targets]\nmembrane_voxels = 2.0\n"
    recipe = load_recipe_at(tmp_path, text)
    assert recipe.targets.membrane_voxels == 2.0
    assert recipe.loss.kind == "3dcellseg"
    assert recipe.loss.alpha == 0.1
    # As a checkpoint remembers it.
    assert Recipe(**recipe.model_dump(mode="json")) == recipe


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match="not a TOML"):
        load_recipe_at(tmp_path, "name = ")
    with pytest.raises(InputError, match="nothing to train on"):
        load_recipe_at(tmp_path, GOOD.split("[[simulate]]")[0])


@pytest.mark.parametrize("name", ["nuclei", "membranes", "membranes-3dcellseg", "cells2d-harmonic"])
def test_committed_recipes_are_valid_and_hold_back_test_data(name: str) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.toml")
    assert recipe.name == name
    for table in recipe.data:
        assert table.licence
        assert table.source
        if "embryos" in table.labels:
            assert {"Emb04", "Emb06", "Emb09"} <= set(table.exclude)
        if "plant_patch" in table.labels:
            assert table.crop is not None
            assert table.crop[2][1] <= 140
        assert not any(f in table.labels for f in ("ovule_1135", "nuclei_75", "small_31"))
