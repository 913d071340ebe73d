"""3DCellSeg through the training loop, on a few tiny walls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")

from cellrt.errors import InputError  # noqa: E402
from cellrt.models.cellseg3d.network import CellSeg3D, ClassUNet  # noqa: E402
from cellrt.training.checkpoint import load_checkpoint  # noqa: E402
from cellrt.training.data.patches import PatchDataset  # noqa: E402
from cellrt.training.data.stacks import load_training_stacks  # noqa: E402
from cellrt.training.loop import train  # noqa: E402
from cellrt.training.recipe import Recipe, load_recipe  # noqa: E402

RECIPE = """
name = "walls"
kind = "membranes"
{init}
[model]
{model}
nominal_diameter_voxels = 10
[optim]
patch_voxels = [12, 12, 16]
max_steps = {steps}
score_stacks = 1
[targets]
margin_voxels = 2
[loss]
{loss}
[[data]]
name = "cubes"
images = "image.tif"
labels = "labels.tif"
[[validation]]
name = "cubes"
images = "image.tif"
labels = "labels.tif"
"""


def write_recipe(
    folder: Path, steps: int, *, model: str = "method = 'cellseg3d'", init: str = "", loss: str = ""
) -> Recipe:
    """Cubes of eight voxels with bright walls."""
    z, y, x = np.indices((24, 24, 24)) // 8
    labels = (1 + x + 3 * y + 9 * z).astype(np.int32)
    wall = (np.indices(labels.shape) % 8 % 7 == 0).any(0)
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    tifffile.imwrite(folder / "image.tif", np.clip(50 + 200 * wall + noise, 0, 999).astype("u2"))
    tifffile.imwrite(folder / "labels.tif", labels)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(steps=steps, model=model, init=init, loss=loss))
    return load_recipe(path)


def test_a_run_reports_its_losses_and_scores_and_goes_on(tmp_path: Path) -> None:
    lines: list[str] = []
    train(write_recipe(tmp_path, 20), tmp_path / "run", report=lines.append)
    assert any("foreground 0." in line and "others 0." in line for line in lines)
    assert any("mean Dice" in line for line in lines)
    checkpoint = train(write_recipe(tmp_path, 22), tmp_path / "run", report=lines.append)
    assert "going on from step 20" in lines
    net, recipe = load_checkpoint(checkpoint)
    assert isinstance(net, CellSeg3D)
    assert recipe.model.method == "cellseg3d"

    # The checkpoint of one method is no start for another.
    other = write_recipe(tmp_path, 1, model="widths = [4, 8]", init='init = "run/last.ckpt"')
    with pytest.raises(InputError, match=r"model\.method"):
        train(other, tmp_path / "other", report=lines.append)


@pytest.mark.parametrize("kind", ["3dcellseg", "dice"])
def test_one_patch_can_be_learnt_by_heart(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    recipe = write_recipe(tmp_path, 1, loss=f"kind = '{kind}'")
    method = recipe.method()
    data = PatchDataset(load_training_stacks(recipe), recipe, augmented=False)
    image, targets, labels = (tensor[None] for tensor in data[0])
    assert {1.0, 2.0} <= set(targets[0, 0].unique().tolist())
    net = method.network()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        method.losses(net.learned(image), targets, labels)["loss"].backward()
        optimiser.step()
    known = targets[:, 0] >= 0
    right = net.logits(image).argmax(1) == targets[:, 0]
    assert right[known].float().mean() > 0.9


UNET = "method = 'cellseg3d'\nnetwork = 'unet'\nwidths = [4, 8]"


def test_a_unet_learns_the_same_classes_and_is_exported(tmp_path: Path) -> None:
    from cellrt.export.checkpoint import export
    from cellrt.runtime.segment import segment

    checkpoint = train(write_recipe(tmp_path, 2, model=UNET), tmp_path / "run")
    net, recipe = load_checkpoint(checkpoint)
    assert isinstance(net, ClassUNet)
    assert net.widths == (4, 8)
    assert recipe.model.patch_multiple == net.size_multiple == 2
    fields = net(torch.randn(1, 1, 4, 6, 8))
    torch.testing.assert_close(fields.sum(1), torch.ones(1, 4, 6, 8))

    exported = export(checkpoint, tmp_path / "walls.onnx")
    assert exported.card.decoder == "tascan"
    image = tifffile.imread(tmp_path / "image.tif")
    labels = segment(image, tmp_path / "walls.onnx", diameter=10).labels
    assert labels.shape == image.shape

    # The checkpoint of one network is no start for the other.
    other = write_recipe(tmp_path, 1, init='init = "run/last.ckpt"')
    with pytest.raises(InputError, match=r"model\.network"):
        train(other, tmp_path / "other")
