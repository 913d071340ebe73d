"""Weights stored as fp16: half the file, the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from cellrt.errors import CellrtError  # noqa: E402
from cellrt.export import checkpoint as module  # noqa: E402
from cellrt.export.gate.compare import onnxruntime_infer, openvino_infer  # noqa: E402
from cellrt.export.trace import build_graph  # noqa: E402
from cellrt.graph.fp16_weights import store_as_fp16, stored_as_fp32  # noqa: E402
from cellrt.graph.precision import convert  # noqa: E402
from cellrt.models.cellseg3d.network import CellSeg3D  # noqa: E402
from cellrt.models.layers.fold import fold_batch_norm  # noqa: E402
from cellrt.runtime.decoding.classes.class_map import FOREGROUND  # noqa: E402
from cellrt.runtime.decoding.classes.decoder import CLASS_OUTPUTS  # noqa: E402
from cellrt.runtime.decoding.registry import decoder_for  # noqa: E402
from cellrt.runtime.model.file import open_model  # noqa: E402
from cellrt.training.checkpoint import load_checkpoint  # noqa: E402
from cellrt.training.data.stacks import to_model_grid  # noqa: E402
from cellrt.training.initial_weights import initial_network  # noqa: E402
from cellrt.training.recipe import Recipe  # noqa: E402


def make_recipe(stored: str = "fp16", **more: object) -> Recipe:
    return Recipe(
        name="walls",
        kind="membranes",
        model={"method": "cellseg3d", "nominal_diameter_voxels": 24, "stored_weights": stored},
        optim={"max_steps": 1, "patch_voxels": (16, 16, 16)},
        decoder={"min_area": 25},
        simulate=({"name": "walls", "kind": "membranes", "count": 1},),
        **more,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that is sure of foreground, so that its cells do not hang by a hair."""
    torch.manual_seed(0)
    net = CellSeg3D().train()
    for _ in range(3):
        net(torch.rand(2, 1, 16, 16, 16))
    with torch.no_grad():
        net.head.bias[FOREGROUND] += 4
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    torch.save(
        {
            "cellrt_recipe": make_recipe().model_dump(mode="json"),
            "state_dict": {f"averaged.{k}": v for k, v in net.state_dict().items()},
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> module.Exported:
    return module.export(checkpoint, checkpoint.with_name("walls.onnx"))


def test_the_card_says_how_the_outputs_are_read(exported: module.Exported) -> None:
    card = open_model(exported.path).card
    assert card == exported.card
    assert (card.method, card.decoder, card.precision) == ("cellseg3d", "tascan", "fp32")
    assert card.outputs[0].channels == CLASS_OUTPUTS
    assert card.multiple == 8
    assert card.receptive_field_radius == 37
    assert decoder_for(card).parameters.min_area == 25


def test_the_file_is_small_and_still_computes_in_fp32(
    exported: module.Exported, checkpoint: Path
) -> None:
    assert exported.size_bytes < 4e6
    graph = onnx.load(str(exported.path))
    kernels = [t for t in graph.graph.initializer if len(t.dims) > 1]
    assert kernels
    assert all(t.data_type == onnx.TensorProto.FLOAT16 for t in kernels)
    for kernel in map(onnx.numpy_helper.to_array, kernels):  # bf16 holds them, too
        values = torch.from_numpy(kernel.copy()).float()
        assert torch.equal(values.bfloat16().half().float(), values)
    net, _ = load_checkpoint(checkpoint)
    image = np.random.default_rng(0).random((2, 1, 16, 24, 8), np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(image)).numpy()
    serialised = graph.SerializeToString()
    for infer in (onnxruntime_infer(serialised), openvino_infer(serialised, "f32")):
        np.testing.assert_allclose(infer(image), expected, atol=5e-3)


def test_fp32_weights_stay_exact(checkpoint: Path, tmp_path: Path) -> None:
    text = checkpoint.with_name("exact.toml")
    text.write_text(
        'name = "walls"\nkind = "membranes"\n[model]\nmethod = "cellseg3d"\n'
        "nominal_diameter_voxels = 24\n[optim]\nmax_steps = 1\n"
        '[[simulate]]\nname = "walls"\nkind = "membranes"\ncount = 1\n'
    )
    exact = module.export(checkpoint, tmp_path / "exact.onnx", recipe_path=text)
    assert exact.size_bytes > 5e6
    in_fp32 = [row for row in exact.parity if row.engine.endswith("fp32")]
    assert in_fp32
    assert all(row.max_error < 1e-4 for row in in_fp32)
    # A CPU that has bf16 computes in it, too, and is judged by what that can do.
    assert not any(row.problems for row in exact.parity)


def test_storing_and_restoring_keeps_what_fp16_can_hold() -> None:
    torch.manual_seed(1)
    graph = build_graph(fold_batch_norm(CellSeg3D().eval()), (8, 8, 8))
    stored = onnx.ModelProto()
    stored.CopyFrom(graph)
    store_as_fp16(stored)
    restored = stored_as_fp32(stored)
    names = [node.name for node in graph.graph.node]
    assert [node.name for node in restored.graph.node] == names
    for before, after in zip(graph.graph.initializer, restored.graph.initializer, strict=True):
        assert before.name == after.name
        exact = onnx.numpy_helper.to_array(before)
        kept = exact.astype(np.float16).astype(np.float32) if exact.ndim > 1 else exact
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(after), kept)
    image = np.random.default_rng(0).random((1, 1, 8, 16, 8), np.float32)
    np.testing.assert_array_equal(
        onnxruntime_infer(stored.SerializeToString())(image),
        onnxruntime_infer(restored.SerializeToString())(image),
    )
    # Restored, it can be converted as any float32 graph.
    half = convert(restored, "fp16")
    output = onnxruntime_infer(half.SerializeToString())(image)
    np.testing.assert_allclose(
        output, onnxruntime_infer(graph.SerializeToString())(image), atol=0.02
    )


def test_weights_beyond_fp16_are_refused() -> None:
    net = fold_batch_norm(CellSeg3D().eval())
    with torch.no_grad():
        net.head.weight[0, 0, 0, 0, 0] = 1e6
    with pytest.raises(CellrtError, match=r"head\.weight"):
        store_as_fp16(build_graph(net, (8, 8, 8)))


def test_fine_tuning_from_the_file_keeps_its_function(exported: module.Exported) -> None:
    labels = np.zeros((32, 32, 32), np.int32)
    labels[4:28, 4:28, 4:28] = 1
    recipe = make_recipe(init=str(exported.path))
    stack = to_model_grid("cube", labels * 100.0, labels, (1, 1, 1), recipe)
    assert stack is not None
    net = initial_network(recipe, [stack])
    image = np.random.default_rng(1).random((1, 1, 16, 16, 16), np.float32)
    expected = onnxruntime_infer(onnx.load(str(exported.path)).SerializeToString())(image)
    with torch.no_grad():
        np.testing.assert_allclose(net.eval()(torch.from_numpy(image)), expected, atol=1e-4)
