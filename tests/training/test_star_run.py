"""HarmonicNet and StarDist 3D through the training loop and the export, on a few tiny balls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from cellrt.errors import InputError  # noqa: E402
from cellrt.export.gate.compare import onnxruntime_infer, openvino_infer  # noqa: E402
from cellrt.export.trace import build_graph  # noqa: E402
from cellrt.graph.activations import activation_bytes  # noqa: E402
from cellrt.graph.file import embed_card, write_graph  # noqa: E402
from cellrt.graph.fp16_weights import store_as_fp16  # noqa: E402
from cellrt.models.layers.fold import fold_batch_norm  # noqa: E402
from cellrt.models.layers.network import Network  # noqa: E402
from cellrt.training.card import make_card  # noqa: E402
from cellrt.training.checkpoint import load_checkpoint  # noqa: E402
from cellrt.training.data.patches import PatchDataset  # noqa: E402
from cellrt.training.data.stacks import load_training_stacks  # noqa: E402
from cellrt.training.initial_weights import folded_network, initial_network  # noqa: E402
from cellrt.training.loop import train  # noqa: E402
from cellrt.training.recipe import Recipe, load_recipe  # noqa: E402

RECIPE = """
name = "balls"
kind = "nuclei"
{init}
[model]
{model}
nominal_diameter_voxels = 10
[optim]
patch_voxels = [16, 16, 24]
max_steps = {steps}
score_stacks = 0
[targets]
margin_voxels = {margin}
[[data]]
name = "balls"
images = "image.tif"
labels = "labels.tif"
[[validation]]
name = "balls"
images = "image.tif"
labels = "labels.tif"
"""
HARMONIC = "method = 'harmonicnet'\nwidths = [4, 6, 8, 8]\nhead_width = 8\norder = 2"
STAR = "method = 'stardist3d'\nwidths = [4, 6, 8]\nfeatures = 16"
BOTH = pytest.mark.parametrize("model", [HARMONIC, STAR])


def write_recipe(
    folder: Path, model: str, steps: int = 1, *, init: str = "", margin: int = 8
) -> Recipe:
    """Bright balls of two sizes on a lattice."""
    z, y, x = np.indices((36, 36, 36))
    cell = 1 + x // 12 + 3 * (y // 12) + 9 * (z // 12)
    radius = np.where(cell % 2, 5.5, 4.0)
    inside = sum((c % 12 - 5.7) ** 2 for c in (z, y, x)) < radius**2
    noise = np.random.default_rng(0).normal(0, 5, cell.shape)
    image = np.clip(40 + 200 * inside + noise, 0, 999).astype(np.uint16)
    tifffile.imwrite(folder / "image.tif", image)
    tifffile.imwrite(folder / "labels.tif", np.where(inside, cell, 0).astype(np.int32))
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=model, steps=steps, init=init, margin=margin))
    return load_recipe(path)


def exported(net: Network, recipe: Recipe, path: Path, *, fp16: bool = False) -> Path:
    """Write a model file without the gate, which needs a decoder."""
    graph = build_graph(fold_batch_norm(net), net.size_multiples)
    if fp16:
        store_as_fp16(graph)
    embed_card(graph, make_card(net, recipe, path.stem))
    write_graph(graph, path)
    return path


def trained_like(net: Network) -> Network:
    """A network whose norms, slopes and last layers are what training could make of them."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.weight.data.uniform_(0.5, 1.5)
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(0, 0.3)
        if isinstance(module, torch.nn.PReLU):
            module.weight.data.uniform_(0.05, 0.5)
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size == (1, 1, 1):
            module.weight.data.normal_(0, 0.1)
    return net.eval()


@BOTH
def test_a_run_reports_its_losses_and_goes_on(tmp_path: Path, model: str) -> None:
    lines: list[str] = []
    train(write_recipe(tmp_path, model, 20), tmp_path / "run", report=lines.append)
    parts = ("distance 0.", "harmonics ") if model is HARMONIC else ("probability 0.", "radii ")
    assert any(all(part in line for part in parts) for line in lines)
    assert any("validation: loss" in line for line in lines)
    checkpoint = train(write_recipe(tmp_path, model, 21), tmp_path / "run", report=lines.append)
    assert "going on from step 20" in lines
    net, recipe = load_checkpoint(checkpoint)
    card = make_card(net, recipe, "balls")
    assert card.output_stride == 2
    assert card.decoder == "star"
    with torch.no_grad():
        assert net(torch.rand(1, 1, 16, 16, 16)).shape[1] == len(card.outputs[0].channels)


@BOTH
def test_the_network_of_a_model_file_says_what_the_exported_one_did(
    tmp_path: Path, model: str
) -> None:
    recipe = write_recipe(tmp_path, model)
    net = trained_like(recipe.method().network())
    path = exported(net, recipe, tmp_path / "balls.onnx")
    again = folded_network(path, recipe.method().network())
    image = torch.rand(1, 1, 16, 24, 16)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(image), net(image), atol=1e-4, rtol=1e-4)


@BOTH
def test_one_patch_can_be_learnt_by_heart(tmp_path: Path, model: str) -> None:
    torch.manual_seed(0)
    recipe = write_recipe(tmp_path, model)
    method = recipe.method()
    data = PatchDataset(load_training_stacks(recipe), recipe, augmented=False)
    image, targets, labels = (tensor[None] for tensor in data[0])
    assert targets.shape[2:] == (8, 8, 12)
    net = method.network()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = method.losses(net.learned(image), targets, labels)["loss"]
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    # The probability's entropy has a floor, as its target is none of 0 and 1.
    assert losses[-1] < (0.5 if model is HARMONIC else 0.6) * losses[0]
    fields = net(image)[0]
    deep = targets[0, 0] > 0.6
    assert deep.sum() > 5
    size = targets[0, 1:][:, deep] if model is STAR else targets[0, 1:2][:, deep]
    found = fields[1:][:, deep] if model is STAR else fields[1:2][:, deep]
    assert ((found - size).abs() / size.mean()).mean() < 0.15


@BOTH
@pytest.mark.parametrize("fp16", [False, True])
def test_the_exported_graph_computes_the_same_at_half_resolution(
    tmp_path: Path, model: str, fp16: bool
) -> None:
    recipe = write_recipe(tmp_path, model)
    net = trained_like(recipe.method().network())
    if fp16:
        for parameter in net.parameters():
            parameter.data = parameter.data.half().float()
    path = exported(net, recipe, tmp_path / "star.onnx", fp16=fp16)
    image = np.random.default_rng(0).random((1, 1, 16, 24, 32), np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(image)).numpy()
    assert expected.shape[2:] == (8, 12, 16)
    for infer in (onnxruntime_infer(path.read_bytes()), openvino_infer(path.read_bytes(), "f32")):
        # With fp16 the fold's products are rounded once more.
        np.testing.assert_allclose(infer(image), expected, atol=0.05 if fp16 else 1e-3, rtol=1e-4)


def test_memory_is_that_of_activations_that_work_in_place(tmp_path: Path) -> None:
    """At full resolution are the image and two times four channels, of 4 bytes."""
    net = write_recipe(tmp_path, HARMONIC).method().network().eval()
    graph = build_graph(fold_batch_norm(net), net.size_multiples)
    assert "PRelu" in {node.op_type for node in graph.graph.node}
    assert activation_bytes(graph, net.size_multiple) == 4 * (4 + 4)


@BOTH
def test_fine_tuning_from_an_exported_file_keeps_its_function(tmp_path: Path, model: str) -> None:
    recipe = write_recipe(tmp_path, model)
    net = trained_like(recipe.method().network())
    exported(net, recipe, tmp_path / "before.onnx")
    again = write_recipe(tmp_path, model, init='init = "before.onnx"')
    tuned = initial_network(again, load_training_stacks(again)).eval()
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(tuned(image), net(image), atol=1e-3, rtol=1e-3)


@BOTH
def test_a_model_of_another_method_gives_the_layers_that_both_have(
    tmp_path: Path, model: str
) -> None:
    widths = "widths = [4, 6, 8, 8]" if model is HARMONIC else "widths = [4, 6, 8]"
    flows = write_recipe(tmp_path, widths)
    other = trained_like(flows.method().network())
    exported(other, flows, tmp_path / "flows.onnx")
    recipe = write_recipe(tmp_path, model, init='init = "flows.onnx"')
    net = initial_network(recipe, load_training_stacks(recipe)).eval()
    seen: dict[str, Any] = {}
    for name, network in (("mine", net), ("other", other)):
        last = network.decoder[len(network.decoder) - (1 if name == "mine" else 2)]
        last.register_forward_hook(lambda m, i, o, name=name: seen.setdefault(name, o))
        with torch.no_grad():
            torch.manual_seed(2)
            network(torch.rand(1, 1, 16, 16, 16))
    torch.testing.assert_close(seen["mine"], seen["other"], atol=1e-4, rtol=1e-3)


def test_a_model_that_shares_no_layer_is_refused(tmp_path: Path) -> None:
    flows = write_recipe(tmp_path, "widths = [3, 5, 7]")
    exported(flows.method().network().eval(), flows, tmp_path / "flows.onnx")
    recipe = write_recipe(tmp_path, STAR, init='init = "flows.onnx"')
    with pytest.raises(InputError, match=r"flows\.onnx has no layer of the recipe's network"):
        train(recipe, tmp_path / "run", report=lambda line: None)


def test_the_recipes_of_the_bundled_models_are_valid() -> None:
    folder = Path(__file__).parents[2] / "recipes"
    for name, method, base in (
        ("nuclei-harmonicnet", "harmonicnet", "nuclei"),
        ("nuclei-stardist", "stardist3d", "nuclei"),
        ("membranes-harmonicnet", "harmonicnet", "membranes"),
    ):
        recipe, other = load_recipe(folder / f"{name}.toml"), load_recipe(folder / f"{base}.toml")
        assert recipe.model.method == method
        # The same data, accidents and augmentation as the model of flows.
        for key in ("kind", "data", "simulate", "validation", "augment"):
            assert getattr(recipe, key) == getattr(other, key), (name, key)
        assert recipe.optim.patch_voxels == other.optim.patch_voxels
