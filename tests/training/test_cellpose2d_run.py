"""A planar network from single images to a model file that segments such, and refuses stacks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")

from cellrt.cli.main import _run  # noqa: E402
from cellrt.errors import EngineError, InputError, UsageError  # noqa: E402
from cellrt.evaluation.scores import evaluate  # noqa: E402
from cellrt.export.checkpoint import export  # noqa: E402
from cellrt.models.cellpose2d.network import Cellpose2D  # noqa: E402
from cellrt.runtime.model import file  # noqa: E402
from cellrt.runtime.model.file import ZOO  # noqa: E402
from cellrt.runtime.network.engines.base import EngineSpec  # noqa: E402
from cellrt.runtime.network.engines.choice import EngineChoice  # noqa: E402
from cellrt.runtime.segment import Segmenter, segment  # noqa: E402
from cellrt.training.checkpoint import load_checkpoint  # noqa: E402
from cellrt.training.data.patches import PatchDataset  # noqa: E402
from cellrt.training.data.stacks import load_training_stacks, load_validation_stacks  # noqa: E402
from cellrt.training.loop import train  # noqa: E402
from cellrt.training.recipe import Recipe, load_recipe  # noqa: E402

RECIPE = """
name = "discs"
kind = "nuclei"
[model]
method = "cellpose2d"
widths = [8, 16]
nominal_diameter_voxels = 12
[optim]
patch_voxels = [1, 48, 48]
max_steps = {steps}
batch = 2
learning_rate = 0.01
warmup = 0.0
score_stacks = 1
[augment]
acquisition_probability = 0.3
accidents = {accidents}
[targets]
margin_voxels = 4
[decoder]
radius_range = [2.5, 100.0]
[[data]]
name = "discs"
images = "image.tif"
labels = "labels.tif"
[[validation]]
name = "discs"
images = "{validation}.tif"
labels = "labels{of}.tif"
"""


def discs(shape=(96, 120), diameter=12):
    y, x = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    cells = [(cy, cx) for cy in range(10, shape[0] - 6, 19) for cx in range(9, shape[1] - 6, 17)]
    for index, (cy, cx) in enumerate(cells):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= (diameter / 2) ** 2] = index + 1
    noise = np.random.default_rng(0).normal(0, 5, shape)
    return np.clip(100 + 300 * (labels > 0) + noise, 0, None).astype(np.uint16), labels


def write_recipe(folder: Path, steps=1, *, accidents=1.0, validation="image", of="") -> Recipe:
    image, labels = discs()
    tifffile.imwrite(folder / "image.tif", image)
    tifffile.imwrite(folder / "labels.tif", labels)
    tifffile.imwrite(folder / "stack.tif", np.repeat(image[None], 3, 0))
    tifffile.imwrite(folder / "labels_of_stack.tif", np.repeat(labels[None], 3, 0))
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(steps=steps, accidents=accidents, validation=validation, of=of))
    return load_recipe(path)


def test_patches_of_one_image_stay_in_its_plane(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, accidents=1.0)
    stacks = load_training_stacks(recipe)
    assert all(len(stack.image) == 1 for stack in stacks)
    data = PatchDataset(stacks, recipe)
    for index in range(12):
        image, targets, labels = data[index]
        assert image.shape == (1, 1, 48, 48)
        assert targets.shape == (4, 1, 48, 48)
        assert (targets[0] == 0).all()
        inside = labels > 0
        # As bright as in the image: half of it would be missing beside the plane.
        if inside.any() and index < 3:
            assert image[0][inside].mean() > 0.2
        assert targets[1:3, inside].abs().max() <= 1


def test_planes_of_a_stack_are_looked_at_from_all_sides(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    table = recipe.data[0].model_copy(
        update={"images": "stack.tif", "labels": "labels_of_stack.tif"}
    )
    recipe = recipe.model_copy(update={"data": (table,)})
    image, targets, _ = PatchDataset(load_training_stacks(recipe), recipe)[0]
    assert image.shape == (1, 1, 48, 48)
    assert targets.shape == (4, 1, 48, 48)


def test_a_planar_network_is_not_scored_on_stacks(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, validation="stack", of="_of_stack")
    with pytest.raises(InputError, match="single slices"):
        load_validation_stacks(recipe)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """A model that was trained for some steps, and what was said meanwhile."""
    folder = tmp_path_factory.mktemp("discs")
    lines: list[str] = []
    recipe = write_recipe(folder, 120, accidents=0.0)
    checkpoint = train(recipe, folder / "run", report=lines.append)
    assert any("mean Dice" in line for line in lines)
    net, _ = load_checkpoint(checkpoint)
    assert isinstance(net, Cellpose2D)
    return export(checkpoint, folder / "discs.onnx")


def test_the_cells_of_single_images_are_found(exported) -> None:
    assert exported.card.planar
    assert exported.card.two_dimensional
    assert exported.card.tile[0] == 1

    image, truth = discs()
    whole = segment(image, exported.path, diameter=12)
    assert whole.labels.shape == image.shape
    assert abs(len(whole.table) - truth.max()) <= 0.1 * truth.max()
    assert whole.record["scale"]["model_grid_zyx"][0] == 1
    tiled = segment(image, exported.path, diameter=12, tile=(1, 64, 64))
    assert tiled.record["tiles"]["count"] > 1
    assert abs(len(tiled.table) - len(whole.table)) <= 1
    # A size that nobody gave is found, from areas and not from volumes.
    found = segment(image, exported.path).record["scale"]["diameter_pixels"]
    assert found == pytest.approx(12, rel=0.3)
    # Images that are smaller than the network's stride, or narrower than a tile.
    assert segment(image[:1, :1], exported.path, diameter=12).labels.shape == (1, 1)
    assert segment(image[:, :3], exported.path, diameter=12).labels.shape == (96, 3)
    with pytest.raises(UsageError, match="along y and x"):
        segment(image, exported.path, diameter=12, tile=(1, 63, 64))


def test_one_slice_gets_the_bundled_model_of_single_slices(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    image, _ = discs()
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "nuclei.onnx").symlink_to(ZOO / "nuclei.onnx")
    monkeypatch.setattr(file, "ZOO", zoo)
    assert segment(image, diameter=12).record["model"]["name"] == "nuclei"
    (zoo / "nuclei2d.onnx").symlink_to(exported.path)
    tifffile.imwrite(tmp_path / "dish.tif", image)
    for source in (image, tmp_path / "dish.tif"):
        assert segment(source, diameter=12).record["model"]["name"] == "discs"
    stack = np.repeat(image[None, :32, :32], 12, 0)
    assert segment(stack, diameter=12).record["model"]["name"] == "nuclei"
    assert _run(["segment", str(tmp_path / "dish.tif"), "--diameter", "12"], debug=False) == 0
    told = capfd.readouterr()
    assert "one slice: the model is discs" in told.out + told.err


def test_slices_of_a_stack_are_taken_one_by_one_and_joined_on_request(exported) -> None:
    image, _ = discs()
    stack = np.stack([image, np.roll(image, 2, 1), np.full_like(image, 100), image])
    with pytest.raises(InputError, match="4 slices"):
        segment(stack, exported.path, diameter=12)
    apart = segment(stack, exported.path, diameter=12, slices=True)
    assert apart.labels.shape == stack.shape
    ids = [set(np.unique(plane)) - {0} for plane in apart.labels]
    assert sum(map(len, ids)) == len(set.union(*ids)) == len(apart.table)
    assert abs(len(ids[0]) - len(ids[3])) <= 2
    assert not ids[2]
    assert {"area_voxels", "probability"} <= set(apart.table.columns)
    assert set(apart.table["centroid_z_voxels"]) == {0, 1, 3}
    areas = np.bincount(apart.labels.ravel())[1:]
    assert (apart.table["area_voxels"] == areas).all()
    joined = segment(stack, exported.path, diameter=12, slices=True, stitch=0.25)
    assert len(joined.table) == pytest.approx(2 * len(ids[0]), abs=3)
    assert "volume_voxels" in joined.table.columns
    enlarged = segment(stack, exported.path, diameter=18, slices=True)
    assert enlarged.record["scale"]["model_grid_zyx"][0] == len(stack)
    assert enlarged.labels.shape == stack.shape
    with pytest.raises(UsageError, match="single slices"):
        segment(stack, "nuclei", diameter=12, slices=True)
    with pytest.raises(UsageError, match="single slices"):
        segment(stack, exported.path, diameter=12, stitch=0.5)


def balls(shape=(64, 64, 64), z_step=1, diameter=12):
    """Cells in a stack whose slices are `z_step` pixels apart, and their labels."""
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number, (cz, cy, cx) in enumerate(np.ndindex(*(n // 19 for n in shape)), 1):
        middle = (10 + 19 * cz, 10 + 19 * cy, 10 + 19 * cx)
        far = (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2
        labels[far <= (diameter / 2) ** 2] = number
    labels = labels[::z_step]
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    return np.clip(100 + 300 * (labels > 0) + noise, 0, None).astype(np.uint16), labels


@pytest.mark.parametrize("z_step", [1, 3])
def test_views_of_a_stack_give_whole_cells(exported, z_step: int) -> None:
    image, truth = balls(z_step=z_step)
    found = segment(image, exported.path, diameter=12, voxel_size=(z_step, 1, 1), views=True)
    assert evaluate(found.labels, truth).at(0.5).average_precision > 0.8
    assert "volume_um3" in found.table.columns
    model = found.record["model"]
    assert (model["name"], model["file"]) == ("discs-cellpose2d", "discs.onnx")
    assert model["views"] == pytest.approx({"yx": 1, "zx": 1 / z_step, "zy": 1 / z_step}, rel=0.1)
    tiled = segment(
        image,
        exported.path,
        diameter=12,
        anisotropy=z_step,
        views=True,
        tile=(48, 48, 64),
        engine="onnxruntime",
    )
    assert tiled.record["tiles"]["count"] > 1
    assert evaluate(tiled.labels, found.labels).at(0.7).average_precision > 0.8
    # A size that nobody gave is found with views, too.
    unknown = segment(image, exported.path, anisotropy=z_step, views=True)
    assert unknown.record["scale"]["diameter_pixels"] == pytest.approx(12, rel=0.3)


def test_views_are_decoded_again_without_the_network(exported) -> None:
    image, _ = balls()
    segmenter = Segmenter(exported.path, views=True)
    fields = segmenter.predict(image, diameter=12)
    first = segmenter.decode(fields)
    assert first.record["model"]["views"] is not None
    again = segmenter.decode(fields, {"radius_range": (20.0, 100.0)})
    assert len(first.table) > 0 == len(again.table)


def test_views_are_of_stacks_and_of_planar_networks(exported, tmp_path: Path) -> None:
    image, _ = discs()
    with pytest.raises(InputError, match="one slice and model 'discs-cellpose2d' looks at stacks"):
        segment(image, exported.path, diameter=12, views=True)
    with pytest.raises(UsageError, match="views cannot be asked for: model 'nuclei'"):
        segment(np.zeros((8, 32, 32)), "nuclei", views=True)
    stack = np.repeat(image[None], 4, 0)
    with pytest.raises(UsageError, match="slices cannot be asked for: model 'discs-cellpose2d'"):
        segment(stack, exported.path, diameter=12, views=True, slices=True)
    # Engines that are built for one shape say why they are not taken.
    spec = EngineSpec("one-shape", "no.module", needs="nvidia", fixed_tile=True)
    viewed = file.open_model(exported.path).in_views()
    with pytest.raises(EngineError, match="one-shape takes tiles of one shape"):
        EngineChoice(spec, "", False).refuse(viewed, None, "auto")
    assert viewed.in_views() is viewed


def test_the_bundled_network_serves_stacks_under_another_name(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "nuclei.onnx").symlink_to(ZOO / "nuclei.onnx")
    monkeypatch.setattr(file, "ZOO", zoo)
    stack = tmp_path / "stack.tif"
    image, truth = balls()
    tifffile.imwrite(stack, image)
    asked = ["segment", str(stack), "--model", "nuclei-cellpose2d", "--diameter", "12"]
    assert _run(asked, debug=False) == 3
    assert "no model 'nuclei-cellpose2d'" in capfd.readouterr().err
    # In the zoo file and card have one name.
    shutil.copy(exported.path, zoo / "nuclei2d.onnx")
    named = replace(exported.card, name="nuclei2d")
    monkeypatch.setattr(file.ModelCard, "from_json", lambda text, origin: named)
    assert _run([*asked, "--anisotropy", "1", "--dry-run"], debug=False) == 0
    told = capfd.readouterr().out
    assert "nuclei-cellpose2d (nuclei2d.onnx)" in told
    assert "weights yx 1, zx 1, zy 1" in told
    assert _run([*asked, "--anisotropy", "1"], debug=False) == 0
    labels = tmp_path / "stack.labels.tif"
    assert evaluate(tifffile.imread(labels), truth).at(0.5).average_precision > 0.8
    assert (tmp_path / "stack.preview.png").is_file()
    assert len((tmp_path / "stack.cells.csv").read_text().splitlines()) > 20
    assert _run(["evaluate", str(labels), str(labels)], debug=False) == 0
    assert _run(["models"], debug=False) == 0
    assert "nuclei-cellpose2d" in capfd.readouterr().out
    # Files of another name are seen from three sides on request.
    own = ["segment", str(stack), "--model", str(exported.path), "--views", "--overwrite"]
    assert _run([*own, "--diameter", "12"], debug=False) == 0
    assert _run([*own[:4], "--overwrite"], debug=False) == 3
    assert "--views" in capfd.readouterr().err


def test_a_patch_of_several_planes_is_refused(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text(path.read_text().replace("[1, 48, 48]", "[2, 48, 48]"))
    with pytest.raises(InputError, match="one plane"):
        load_recipe(path)
