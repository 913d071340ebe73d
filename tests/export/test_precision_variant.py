from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from llvmlite import binding

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from onnx import TensorProto, numpy_helper  # noqa: E402

from cellrt.cli.main import _run  # noqa: E402
from cellrt.errors import CellrtError, EngineError, InputError, UsageError  # noqa: E402
from cellrt.export import precision_variant as module  # noqa: E402
from cellrt.export.gate.compare import GateError  # noqa: E402
from cellrt.export.gate.tiles import simulated_tiles, stack_tiles  # noqa: E402
from cellrt.export.gate.tolerances import TOLERANCES  # noqa: E402
from cellrt.graph.file import embedded_card, write_graph  # noqa: E402
from cellrt.graph.fp16_weights import load_exact  # noqa: E402
from cellrt.graph.precision import convert, rounded  # noqa: E402
from cellrt.runtime.model.file import bundled_models, open_model  # noqa: E402
from cellrt.runtime.model.golden import golden_input  # noqa: E402
from cellrt.runtime.network.engines.ladder import choose_engine  # noqa: E402
from cellrt.simulation.styles import simulate_style  # noqa: E402

PRECISIONS = ("fp16", "bf16", "int8")
# Fields of all voxels, compared value by value. What becomes of shapes is judged by the gate, in
# voxels of radius (test_radii.py), and of embeddings in cells.
MODELS = tuple(
    name
    for name in bundled_models()
    if (card := open_model(name).card).guides is None and card.output_stride == 1
)
# The last block of the membranes model has to stay in fp32; the gate finds that out by itself.
EXACT_LAST = {name: module.LAST_BLOCK if name == "membranes" else 1 for name in MODELS}


OTHERS = sorted(set(bundled_models()) - set(MODELS))


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("name", OTHERS)
def test_fp16_files_of_shapes_and_embeddings_are_their_fp32_files_in_fp16(name: str) -> None:
    half = open_model(name).variant("fp16")
    assert half is not None
    assert (
        onnx.load_from_string(half.content).graph
        == convert(load_exact(bundled_models()[name]), "fp16").graph
    )
    assert half.card.scores[0].value >= TOLERANCES["fp16"].instances


def test_what_is_computed_of_the_place_of_a_tile_stays_in_fp32() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from cellrt.export.trace import build_graph
    from cellrt.models.harmonic_embedding.network import HarmonicEmbedding
    from cellrt.models.layers.fold import fold_batch_norm

    frequencies, phases = ((0.013, -0.02), (0.0, 0.017)), (0.3, 2.0)
    net = HarmonicEmbedding((4, 8, 8), frequencies, phases, position="sinconv", sinconv_size=5)
    low = convert(build_graph(fold_batch_norm(net.eval()), net.size_multiples), "fp16")
    kinds = {t.name: t.data_type for t in low.graph.initializer}
    waves = [node for node in low.graph.node if node.op_type in ("Sin", "Cos")]
    assert waves
    inferred = onnx.shape_inference.infer_shapes(low).graph.value_info
    floats = {v.name: v.type.tensor_type.elem_type for v in inferred}
    assert all(floats[node.output[0]] == TensorProto.FLOAT for node in waves)
    kernels = [node.input[1] for node in low.graph.node if node.op_type == "Conv"]
    assert kernels
    assert {kinds[name] for name in kernels} == {TensorProto.FLOAT16}


@pytest.fixture(scope="module")
def exact(name: str) -> onnx.ModelProto:
    return load_exact(bundled_models()[name])


@pytest.fixture(scope="module")
def variants(name: str, exact: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    tiles = simulated_tiles(open_model(name).card, module.CALIBRATION_TILES, seed=1)
    result = {p: convert(exact, p) for p in ("fp16", "bf16")}
    result["int8"] = convert(exact, "int8", calibration=tiles, exact_last=EXACT_LAST[name])
    return result


def has_vnni() -> bool:
    """Whether engines may use instructions that sum products of int8 exactly."""
    highest = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    found = {"avx512vnni", "avxvnni", "amx-int8"} & {
        name for name, there in binding.get_host_cpu_features().items() if there
    }
    return bool(found) and highest not in ("AVX512_CORE", "AVX2", "AVX", "SSE41")


def weight_bytes(graph: onnx.ModelProto) -> int:
    return sum(
        numpy_helper.to_array(tensor).nbytes
        for tensor in graph.graph.initializer
        if tensor.data_type != TensorProto.INT64
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_user_of_the_graph_sees_stays(exact, variants, precision) -> None:
    graph = variants[precision]
    for before, after in zip(
        (*exact.graph.input, *exact.graph.output),
        (*graph.graph.input, *graph.graph.output),
        strict=True,
    ):
        assert after == before
        assert after.type.tensor_type.elem_type == TensorProto.FLOAT
    card = embedded_card(graph)
    assert card is not None
    assert card.precision == precision
    assert card.decoder_parameters == embedded_card(exact).decoder_parameters
    assert embedded_card(exact).precision == "fp32"


def test_the_fp16_file_that_ships_is_the_fp32_file_in_fp16(name, exact) -> None:
    """After new weights run `make half`, which makes these files anew and judges them."""
    model = open_model(name)
    half = model.variant("fp16")  # refuses one that was made of another file
    assert half is not None
    shipped, made = onnx.load_from_string(half.content), convert(exact, "fp16")
    assert shipped.graph == made.graph
    assert shipped.opset_import == made.opset_import
    own, *inherited = half.card.scores
    assert own.metric == "AP at IoU 0.75"
    assert own.data.startswith("cells of the fp32 model")
    assert own.value >= TOLERANCES["fp16"].instances
    assert [(s.metric, s.value) for s in inherited] == [
        (s.metric, s.value) for s in model.card.scores
    ]
    differing = {"precision": "fp16", "made_from": model.sha256}
    same = replace(model.card, golden=half.card.golden, scores=half.card.scores, **differing)
    assert half.card == same
    golden = model.card.golden
    assert half.card.golden.shape == golden.shape
    np.testing.assert_allclose(half.card.golden.output_mean, golden.output_mean, atol=1e-3)


def test_weights_shrink(exact, variants) -> None:
    full = weight_bytes(exact)
    assert weight_bytes(variants["fp16"]) == full // 2
    kernels = {n.input[1] for n in exact.graph.node if n.op_type == "ConvTranspose"}
    transposed = sum(
        numpy_helper.to_array(tensor).nbytes
        for tensor in exact.graph.initializer
        if tensor.name in kernels
    )
    assert weight_bytes(variants["int8"]) < transposed + 0.29 * (full - transposed)


def test_int8_is_symmetric_with_one_scale_per_output_channel(variants) -> None:
    graph = variants["int8"].graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            axis = node.attribute[0].i
            assert values[node.input[1]].shape == (values[node.input[0]].shape[axis],)
            assert abs(values[node.input[0]].astype(int)).max() <= 63
    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    assert not convolutions[0].input[1].endswith(".int8")
    assert not convolutions[-1].input[1].endswith(".int8")
    assert all(n.input[0].endswith(".int8") for n in convolutions[1:-3])


def test_transposed_convolutions_stay_out_of_int8(variants) -> None:
    # TensorRT takes the scales of their weights as those of input channels, without a word.
    graph = variants["int8"].graph
    exact = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    made_exact = {n.output[0] for n in graph.node if n.op_type == "Cast"} | exact
    transposed = [node for node in graph.node if node.op_type == "ConvTranspose"]
    assert transposed
    dequantised = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    for node in transposed:
        assert not set(node.input) & dequantised
        assert node.input[1] in made_exact


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_cells_stay_the_same(name, exact, variants, precision) -> None:
    card = open_model(name).card
    # Of a hundred cells, as two tiles have, two that are joined otherwise decide.
    tiles = simulated_tiles(card, 6 if precision == "int8" else 1, seed=11)
    try:
        rows = module.check_variant(exact, variants[precision], card, precision, tiles)
    except GateError as error:
        # Without these instructions an engine sums products of int8 in other steps. What it then
        # does to cells is not for a test to say, but that such a variant is refused is.
        refused = str(error)
        assert precision == "int8"
        assert not has_vnni()
        assert re.search("AP at IoU 0.75 .* nothing was written", refused)
        return
    for row in rows:
        assert row.finite
        assert row.instance_ap >= (0.95 if precision == "int8" else 0.98)
        assert row.cells >= 40


def test_engines_agree_on_int8(exact, variants) -> None:
    # OpenVINO is wrong by far where a quantised concatenation is written in the usual way.
    image = golden_input((16, 32, 32))
    serialised = variants["int8"].SerializeToString()
    a = module.openvino_infer(serialised, "f32")(image)
    b = module.onnxruntime_infer(serialised)(image)
    rounding = abs(b - module.onnxruntime_infer(exact.SerializeToString())(image)).mean()
    assert abs(a - b).mean() < 2 * rounding < 0.03


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_rounded_graph_rounds_every_layer(exact, precision) -> None:
    import ml_dtypes

    kind = np.float16 if precision == "fp16" else ml_dtypes.bfloat16
    graph = rounded(exact, precision)
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info("relu_5"))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(["relu_5"], {"image": golden_input((8, 16, 16))})[0]
    assert np.array_equal(values, values.astype(kind).astype(np.float32))
    assert len(np.unique(values)) > 100


@pytest.mark.parametrize("target", ["SM75", "SM80", "SM86", "SM89", "SM120", "SM121"])
def test_tensorrt_builds_every_precision(exact, variants, target) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    for precision, graph in {"fp32": exact, **variants}.items():
        if target == "SM75" and precision != "fp16":
            continue  # it has no kernels for these, and `Builder.refuse` says so
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        assert parser.parse(graph.SerializeToString()), precision
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *[(1, 1, 32, 64, 64)] * 3)
        config.add_optimization_profile(profile)
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
        assert builder.build_serialized_network(network, config) is not None, precision


def test_wrong_calibration_is_refused(exact) -> None:
    tile = np.zeros((1, 1, 16, 16, 16), np.float32)
    with pytest.raises(InputError, match="constant"):
        convert(exact, "int8", calibration=[tile])
    with pytest.raises(InputError, match="shape"):
        convert(exact, "int8", calibration=[tile[0]])
    with pytest.raises(InputError, match="NaN"):
        convert(exact, "int8", calibration=[tile + np.nan])
    with pytest.raises(UsageError, match="calibration tiles"):
        convert(exact, "int8")


def test_only_fp32_is_converted(exact, variants) -> None:
    with pytest.raises(UsageError, match="not float32"):
        convert(variants["fp16"], "int8", calibration=[golden_input((8, 8, 8))])
    with pytest.raises(UsageError, match="fp8"):
        convert(exact, "fp8")


def test_a_stack_becomes_tiles_on_the_models_grid(tmp_path: Path) -> None:
    model = open_model("nuclei")
    image = simulate_style("nuclei", "dense", shape=(40, 70, 150), seed=1).image
    size = model.card.voxel_size_um
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        image,
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": size,
            "PhysicalSizeY": size,
            "PhysicalSizeZ": size,
        },
    )
    tiles = stack_tiles([path], model)
    assert len(tiles) >= 2
    assert all(t.shape == (1, 1, 64, 64, 64) and t.dtype == np.float32 for t in tiles)
    assert 0.5 < tiles[0].max() < 3


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = _run([str(word) for word in words], debug=False)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALIBRATION_TILES", 1)
    monkeypatch.setattr(module, "GATE_TILES", 1)


@pytest.mark.parametrize("name", ["nuclei"])
def test_export_and_segment_as_a_user_does(name, small, tmp_path, capsys) -> None:
    output = tmp_path / "mine-int8.onnx"
    code, out, err = run(capsys, "export", name, "-o", output, "--precision", "int8")
    assert code == 0, err
    assert "simulated" in err
    assert "AP at IoU 0.75" in out
    model = open_model(output)
    assert (model.card.name, model.card.precision) == ("mine-int8", "int8")
    assert model.card.scores[0].metric == "AP at IoU 0.75"
    assert "measured in fp32" in model.card.scores[1].data
    golden = model.card.golden
    for engine, computed in (("openvino", "int8"), ("onnxruntime", "fp32")):
        session = choose_engine(engine).load(model, golden.shape, "auto")
        assert session.precision == computed
        means = session.infer(golden_input(golden.shape)).mean((0, 2, 3, 4))
        np.testing.assert_allclose(means, golden.output_mean, atol=golden.tolerance)
    stack = tmp_path / "s.tif"
    tifffile.imwrite(stack, np.random.default_rng(0).integers(0, 99, (16, 32, 32), np.uint16))
    code, _, err = run(
        capsys, "segment", stack, "--model", output, "--diameter", 16, "--no-preview"
    )
    assert code == 0, err
    code, _, err = run(capsys, "export", output, "-o", tmp_path / "b.onnx", "--precision", "fp16")
    assert code == 2
    assert "int8 already" in err


def test_a_users_own_model_gets_its_fp16_file_beside_it(small, tmp_path, capsys) -> None:
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(bundled_models()["nuclei"].read_bytes())
    code, out, err = run(capsys, "export", mine, "--precision", "fp16")
    assert code == 0, err
    model = open_model(mine)
    half = model.variant("fp16")
    assert half is not None
    assert (half.path.name, half.card.name) == ("mine.fp16.onnx", model.card.name)
    assert half.path.stat().st_size < 20_000  # its kernels are in mine.onnx
    assert "mine.fp16.onnx: fp16, 14." in out
    assert "kB" in out
    code, _, err = run(capsys, "export", mine, "--precision", "fp16")
    assert code == 3
    assert "--overwrite" in err


def test_an_fp16_file_stands_alone_where_the_fp32_file_is_not_or_has_other_bytes(
    small, tmp_path, capsys
) -> None:
    elsewhere = tmp_path / "half.onnx"
    assert run(capsys, "export", "nuclei", "-o", elsewhere, "--precision", "fp16")[0] == 0
    full = tmp_path / "full.onnx"
    write_graph(load_exact(bundled_models()["nuclei"]), full)
    assert run(capsys, "export", full, "--precision", "fp16")[0] == 0
    beside = open_model(full).variant("fp16").path
    full.unlink()
    for path in (elsewhere, beside):
        assert open_model(path).content == path.read_bytes()
        assert path.stat().st_size > 2_000_000


@pytest.mark.parametrize(
    "words", [("nuclei", "--precision", "fp16"), ("a.ckpt",), ("a.ckpt", "--precision", "fp16")]
)
def test_what_has_no_place_of_its_own_needs_an_output(words, tmp_path, capsys) -> None:
    code, _, err = run(capsys, "export", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "--output is missing" in err


def test_only_what_is_missing_is_advised_as_the_runtime_for_cpus_breaks_that_for_gpus(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    words = ("export", "nuclei", "-o", tmp_path / "a.onnx", "--precision", "fp16")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "pip install 'cellrt[precision]'" in err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'cellrt[precision,onnxruntime]'" in run(capsys, *words)[2]


def test_a_failing_gate_writes_nothing(small, tmp_path, monkeypatch) -> None:
    original = module.convert

    def damaged(graph, precision, **options):
        result = original(graph, precision, **options)
        for tensor in result.graph.initializer:
            if tensor.name == "head.bias":
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(values + values.dtype.type(1), tensor.name))
        return result

    monkeypatch.setattr(module, "convert", damaged)
    with pytest.raises(CellrtError, match="parity gate") as caught:
        module.write_variant("nuclei", tmp_path / "bad.onnx", "int8")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_gate_without_cells_proves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "GATE_TILES", 0)
    monkeypatch.setattr(
        module, "stack_tiles", lambda stacks, model: [golden_input((16, 16, 16))] * 2
    )
    with pytest.raises(CellrtError, match=r"finds \d cells? in \d tile"):
        module.write_variant("nuclei", tmp_path / "a.onnx", "fp16", stacks=["a.tif"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((16, 32, 32), 7, np.uint16), "constant"),
        (np.arange(1024, dtype=np.uint16).reshape(32, 32), "one slice"),
        (np.zeros((3, 2, 8, 16, 16), np.uint8), "bad.tif"),
    ],
)
def test_unusable_stacks_are_one_line(image, message, tmp_path, capsys) -> None:
    stack, output = tmp_path / "bad.tif", tmp_path / "m.onnx"
    tifffile.imwrite(stack, image, photometric="minisblack")
    code, _, err = run(
        capsys, "export", "nuclei", "-o", output, "--precision", "int8", "--calibrate", stack
    )
    assert code == 3
    assert err.count("\n") == 1
    assert message in err
    assert not output.exists()


def test_options_that_do_not_fit_are_refused(tmp_path, capsys) -> None:
    output = tmp_path / "m.onnx"
    for words in (
        ("export", "nuclei", "-o", output),
        ("export", "nuclei", "-o", output, "--precision", "fp8"),
        ("export", "a.ckpt", "-o", output, "--calibrate", "a.tif"),
        ("export", "nuclei", "-o", output, "--precision", "fp16", "--recipe", "a.toml"),
        ("export", "nuclei", "-o", tmp_path / "m.pt", "--precision", "fp16"),
    ):
        code, _, err = run(capsys, *words)
        assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("name", ["nuclei"], indirect=True)
def test_onnxruntime_cannot_run_bf16_and_says_so(variants, name, tmp_path) -> None:
    path = tmp_path / "bf16.onnx"
    write_graph(variants["bf16"], path)
    with pytest.raises(EngineError, match=r"bf16\.onnx"):
        choose_engine("onnxruntime").load(open_model(path), (16, 16, 16), "auto")


def test_no_torch_anywhere() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['lightning'] = None\n"
        "import cellrt.export.precision_variant\n"
        "from cellrt.graph.fp16_weights import load_exact\n"
        "from cellrt.graph.precision import convert\n"
        "from cellrt.runtime.model.file import bundled_models\n"
        "from cellrt.runtime.model.golden import golden_input\n"
        "graph = load_exact(bundled_models()['nuclei'])\n"
        "convert(graph, 'fp16'); convert(graph, 'int8', calibration=[golden_input((16, 16, 16))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
