"""Harmonic embeddings through the training loop, on a few tiny images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")

from cellrt.claim import claim  # noqa: E402
from cellrt.errors import InputError  # noqa: E402
from cellrt.export.checkpoint import export  # noqa: E402
from cellrt.training.card import make_card  # noqa: E402
from cellrt.training.checkpoint import load_checkpoint  # noqa: E402
from cellrt.training.loop import train  # noqa: E402
from cellrt.training.recipe import load_recipe  # noqa: E402

RECIPE = """
name = "squares"
kind = "nuclei"
[model]
method = "harmonic_embedding"
widths = [4, 8]
nominal_diameter_voxels = 9
dimensions = {dimensions}
{model}
[optim]
patch_voxels = [1, 16, 16]
max_steps = {steps}
score_stacks = 1
[targets]
margin_voxels = 4
[[data]]
name = "squares"
images = "image.tif"
labels = "labels.tif"
[[validation]]
name = "squares"
images = "image.tif"
labels = "labels.tif"
"""


def write_recipe(folder: Path, steps: int, *, dimensions: int = 5, model: str = ""):
    """Squares of seven pixels in rows of eight."""
    y, x = np.indices((48, 48)) // 8
    labels = (1 + x + 6 * y).astype(np.int32)
    labels[(np.indices(labels.shape) % 8 == 7).any(0)] = 0
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    image = np.clip(50 + 200 * (labels > 0) + noise, 0, 999).astype("u2")
    tifffile.imwrite(folder / "image.tif", image)
    tifffile.imwrite(folder / "labels.tif", labels)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(steps=steps, dimensions=dimensions, model=model))
    return load_recipe(path)


def test_guides_are_fitted_first_and_stay_the_same_when_a_run_goes_on(tmp_path: Path) -> None:
    lines: list[str] = []
    checkpoint = train(write_recipe(tmp_path, 6), tmp_path / "run", report=lines.append)
    assert sum(line.startswith("guides: hinge loss") for line in lines) == 1
    assert any("mean Dice" in line for line in lines)
    net, recipe = load_checkpoint(checkpoint)
    guides = recipe.model.guides
    assert len(guides.phases) == 5
    np.testing.assert_allclose(net.frequencies.numpy(), guides.frequencies, rtol=1e-6)
    card = make_card(net, recipe, "squares")
    assert card.planar
    assert card.guides.frequencies == guides.frequencies
    assert card.guides.smallest_l1 == guides.smallest_l1
    assert card.decoder_parameters == {"bandwidth": 0.5}
    assert type(card).from_json(card.to_json()) == card

    lines.clear()
    checkpoint = train(write_recipe(tmp_path, 8), tmp_path / "run", report=lines.append)
    assert "going on from step 6" in lines
    assert not any(line.startswith("guides") for line in lines)
    assert load_checkpoint(checkpoint)[1].model.guides == guides


def test_objects_that_no_guides_tell_apart_are_a_warning(tmp_path: Path) -> None:
    lines: list[str] = []
    train(write_recipe(tmp_path, 1, dimensions=1), tmp_path / "run", report=lines.append)
    assert any(line.startswith("warning:") and "model.dimensions" in line for line in lines)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("sinconv_size = 4", "must be odd"),
        (
            "guides = { frequencies = [[0.1, 0.1]], phases = [0.0], margin = 0.5 }",
            "'guides' has 1 guides, 'dimensions' is 5",
        ),
        (
            "guides = { frequencies = [[0.1, 0.1]], phases = [], margin = 0.5 }",
            "as many phases as frequencies",
        ),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, model: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        write_recipe(tmp_path, 1, model=model)


def test_a_run_that_starts_from_a_checkpoint_keeps_the_guides_its_weights_have_learned(
    tmp_path: Path,
) -> None:
    first = train(write_recipe(tmp_path, 1), tmp_path / "first", report=lambda line: None)
    again = write_recipe(tmp_path, 1)
    # Another seed would fit other guides.
    again = again.model_copy(
        update={"init": str(first), "optim": again.optim.model_copy(update={"seed": 7})}
    )
    second = train(again, tmp_path / "second", report=lambda line: None)
    before, after = (load_checkpoint(file) for file in (first, second))
    assert after[1].model.guides == before[1].model.guides
    assert torch.equal(after[0].frequencies, before[0].frequencies)


def test_a_run_that_starts_from_an_exported_model_keeps_its_guides_too(tmp_path: Path) -> None:
    first = train(write_recipe(tmp_path, 1), tmp_path / "first", report=lambda line: None)
    exported = tmp_path / "first.onnx"
    recipe = tmp_path / "without cells.toml"
    # What a network says that has learned nothing is other cells when it is rounded.
    words = RECIPE.format(steps=1, dimensions=5, model="")
    recipe.write_text(f"{words}[decoder]\nforeground_threshold = 1.0\n")
    export(first, exported, recipe_path=recipe)
    again = write_recipe(tmp_path, 1)
    again = again.model_copy(
        update={"init": str(exported), "optim": again.optim.model_copy(update={"seed": 7})}
    )
    lines: list[str] = []
    second = train(again, tmp_path / "second", report=lines.append)
    assert not any(line.startswith("guides") for line in lines)
    before, after = (load_checkpoint(file)[1].model.guides for file in (first, second))
    assert after.frequencies == before.frequencies
    assert after.phases == before.phases


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with claim([folder / "last.ckpt"]), pytest.raises(InputError, match="another run is writing"):
        train(write_recipe(tmp_path, 1), folder, report=lambda line: None)
    assert not list(folder.iterdir())
