from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from cellrt.errors import CellrtError, InputError, UsageError  # noqa: E402
from cellrt.export import checkpoint as module  # noqa: E402
from cellrt.export.trace import OPSET  # noqa: E402
from cellrt.models.cellpose3d.network import Cellpose3D  # noqa: E402
from cellrt.models.layers.network import Network  # noqa: E402
from cellrt.runtime.model.card_parts import Score  # noqa: E402
from cellrt.runtime.model.file import open_model  # noqa: E402
from cellrt.runtime.model.golden import golden_input  # noqa: E402
from cellrt.training.checkpoint import load_checkpoint  # noqa: E402
from cellrt.training.recipe import Recipe  # noqa: E402


def recipe() -> Recipe:
    return Recipe(
        name="tiny",
        kind="nuclei",
        description="a test",
        model={"widths": (4, 8)},
        optim={"max_steps": 1},
        simulate=({"name": "balls", "kind": "nuclei", "count": 1},),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = Cellpose3D((4, 8))
    net.train()
    for _ in range(3):
        net(torch.rand(2, 1, 16, 16, 16))
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    torch.save(
        {
            "cellrt_recipe": recipe().model_dump(mode="json"),
            "state_dict": {f"averaged.{k}": v for k, v in net.state_dict().items()},
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> module.Exported:
    score = Score("some stacks", "AP50", 0.5)
    return module.export(checkpoint, checkpoint.with_name("tiny.onnx"), scores=[score])


def test_the_file_describes_itself(exported: module.Exported) -> None:
    card = open_model(exported.path).card
    assert card == exported.card
    assert card.name == "tiny"
    assert card.target == "nuclei"
    assert card.multiple == 2
    assert card.training_data[0].name.startswith("balls")
    assert card.scores[0].value == 0.5
    graph = onnx.load(str(exported.path))
    assert graph.opset_import[0].version == OPSET
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)


def test_every_axis_but_the_channel_is_free(exported: module.Exported, checkpoint: Path) -> None:
    net, _ = load_checkpoint(checkpoint)
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 8, 8, 8), (3, 1, 4, 10, 6)):
        image = np.random.default_rng(0).random(shape, np.float32)
        fields = session.run(["fields"], {"image": image})[0]
        with torch.no_grad():
            np.testing.assert_allclose(fields, net(torch.from_numpy(image)), atol=1e-5)


def test_golden_output_is_reproduced(exported: module.Exported) -> None:
    golden = exported.card.golden
    assert golden is not None
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    fields = session.run(["fields"], {"image": golden_input(golden.shape)})[0]
    np.testing.assert_allclose(fields.mean((0, 2, 3, 4)), golden.output_mean, atol=golden.tolerance)


def test_the_gate_ran_both_engines(exported: module.Exported) -> None:
    names = [row.engine for row in exported.parity]
    assert "onnxruntime fp32" in names
    assert "openvino fp32" in names
    assert all(row.max_error < 1e-3 for row in exported.parity if row.engine.endswith("fp32"))
    # A CPU that has bf16 computes in it, too, and is judged by what that can do.
    assert set(names) <= {"onnxruntime fp32", "openvino fp32", "openvino bf16"}
    assert not any(row.problems for row in exported.parity)


@pytest.mark.parametrize("damage", ["shift", "nan"])
def test_a_damaged_graph_is_refused_and_nothing_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    original = module.build_graph

    def damaged(*args: object) -> onnx.ModelProto:
        graph = original(*args)
        for tensor in graph.graph.initializer:
            if tensor.name == "head.bias":
                values = onnx.numpy_helper.to_array(tensor) + 0.5
                if damage == "nan":
                    values = values * np.nan
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return graph

    monkeypatch.setattr(module, "build_graph", damaged)
    with pytest.raises(CellrtError, match="parity gate") as caught:
        module.export(checkpoint, tmp_path / "bad.onnx")
    assert "onnxruntime" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(exported: module.Exported, checkpoint: Path) -> None:
    with pytest.raises(InputError, match="exists"):
        module.export(checkpoint, exported.path)
    with pytest.raises(UsageError, match=r"\.onnx"):
        module.export(checkpoint, exported.path.with_suffix(".pt"))


@pytest.mark.parametrize("widths", [(4, 8), (6, 8), (4, 12), (7, 13)])
def test_fine_tuning_from_an_exported_file_keeps_its_function(
    exported: module.Exported, widths: tuple[int, ...]
) -> None:
    net = initial(exported, widths)
    image = np.random.default_rng(1).random((1, 1, 16, 16, 16), np.float32)
    session = ort.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    expected = session.run(["fields"], {"image": image})[0]
    with torch.no_grad():
        np.testing.assert_allclose(net.eval()(torch.from_numpy(image)), expected, atol=1e-4)


def test_new_channels_of_a_wider_network_learn(exported: module.Exported) -> None:
    net = initial(exported, (6, 12)).train()
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):  # the first step opens the way to the new channels' own kernels
        optimiser.zero_grad()
        net.logits(torch.rand(2, 1, 16, 16, 16)).square().mean().backward()
        optimiser.step()
    for name, kernel in ((n, p) for n, p in net.named_parameters() if n.endswith("0.weight")):
        assert kernel.grad is not None
        moves = kernel.grad.abs().flatten(1).amax(1)
        assert (moves > 0).all(), name


def test_a_narrower_network_than_the_exported_one_is_refused(exported: module.Exported) -> None:
    with pytest.raises(InputError, match=r"no layer 'encoder\.1\.0' of shape"):
        initial(exported, (4, 6))


def initial(exported: module.Exported, widths: tuple[int, ...]) -> Network:
    from cellrt.training.data.stacks import to_model_grid
    from cellrt.training.initial_weights import initial_network

    torch.manual_seed(0)
    grid = np.indices((24, 24, 24))
    labels = (np.sqrt(((grid - 12) ** 2).sum(0)) < 8).astype(np.int32)
    start = recipe()
    stack = to_model_grid("ball", labels * 100.0, labels, (1, 1, 1), start)
    assert stack is not None
    changes = {
        "init": str(exported.path),
        "model": start.model.model_copy(update={"widths": widths}),
        "optim": start.optim.model_copy(update={"patch_voxels": (16, 16, 16)}),
    }
    return initial_network(start.model_copy(update=changes), [stack])


def test_scores_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text('[{"data": "a", "metric": "AP50", "value": 0.9}]')
    assert module.read_scores(path) == [Score("a", "AP50", 0.9)]
    path.write_text("[1]")
    with pytest.raises(CellrtError, match="list of scores"):
        module.read_scores(path)


TOML = """
name = "tiny"
kind = "nuclei"
description = "a better description"
[model]
widths = [4, 8]
two_dimensional = true
{extra}
[optim]
max_steps = 1
[decoder]
foreground_threshold = 0.6
[[simulate]]
name = "balls"
kind = "nuclei"
count = 1
"""


def test_a_newer_recipe_may_describe_the_same_network(checkpoint: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.toml"
    newer.write_text(TOML.format(extra=""))
    card = module.export(checkpoint, tmp_path / "m.onnx", recipe_path=newer).card
    assert card.summary == "a better description"
    assert card.two_dimensional
    assert card.decoder_parameters["foreground_threshold"] == 0.6
    newer.write_text(TOML.format(extra="").replace("widths = [4, 8]", "widths = [8, 8]"))
    with pytest.raises(UsageError, match=r"model\.widths"):
        module.export(checkpoint, tmp_path / "other.onnx", recipe_path=newer)
    assert not (tmp_path / "other.onnx").exists()


def test_another_grid_must_have_cells_of_the_sizes_trained_on(
    checkpoint: Path, tmp_path: Path
) -> None:
    trained = recipe()
    nominal, (low, high) = trained.model.nominal_diameter_voxels, trained.augment.zoom
    newer = tmp_path / "newer.toml"
    finer = f"nominal_diameter_voxels = {1.25 * nominal}\n[augment]\nzoom = "
    newer.write_text(TOML.format(extra=f"{finer}[{low / 1.25}, {high / 1.25}]"))
    card = module.export(checkpoint, tmp_path / "m.onnx", recipe_path=newer).card
    assert card.diameter_voxels == 1.25 * nominal
    assert card.diameter_range == (low / 1.25, high / 1.25)
    newer.write_text(TOML.format(extra=f"{finer}[{low}, {high}]"))
    with pytest.raises(
        UsageError, match=f"{round(low * nominal)} to {round(high * nominal)} voxels"
    ):
        module.export(checkpoint, tmp_path / "other.onnx", recipe_path=newer)
    assert not (tmp_path / "other.onnx").exists()
