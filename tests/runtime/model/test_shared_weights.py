"""fp16 files that take their kernels out of the fp32 file beside them."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from cellrt.errors import InputError  # noqa: E402
from cellrt.graph.file import embed_card, write_graph  # noqa: E402
from cellrt.graph.fp16_weights import load_exact  # noqa: E402
from cellrt.runtime.model.card import ModelCard  # noqa: E402
from cellrt.runtime.model.file import bundled_models, open_model  # noqa: E402
from cellrt.runtime.model.golden import golden_input  # noqa: E402
from cellrt.runtime.model.shared_weights import whole_file  # noqa: E402
from cellrt.runtime.network.engines.ladder import choose_engine  # noqa: E402
from cellrt.runtime.network.engines.openvino import shared_core  # noqa: E402

TILE = (8, 16, 16)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own fp32 model, with its fp16 file beside it, and that in full as whole.onnx."""
    nuclei = open_model("nuclei")
    path = tmp_path / "mine.onnx"
    path.write_bytes(nuclei.path.read_bytes())
    whole = nuclei.variant("fp16").content
    (tmp_path / "whole.onnx").write_bytes(whole)
    write_graph(onnx.load_from_string(whole), tmp_path / "mine.fp16.onnx", path)
    return path


def changed(path: Path, change) -> Path:
    """Write a file again with every external weight's place changed."""
    graph = onnx.load(str(path), load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            entry.value = change(entry.key, entry.value)
    path.write_bytes(graph.SerializeToString())
    return path


def test_what_ships_is_small_and_nothing_in_it_is_there_twice() -> None:
    for name in bundled_models():
        model = open_model(name)
        half = model.variant("fp16")
        assert half.path.stat().st_size < 100_000, name
        assert len(half.content) > 0.9 * model.path.stat().st_size, name


def test_it_is_the_whole_file_to_all_who_read_it_here(mine: Path) -> None:
    half, whole = open_model(mine).variant("fp16"), open_model(mine.with_name("whole.onnx"))
    assert half.path.stat().st_size < 20_000
    assert half.content == whole.path.read_bytes()
    assert half.sha256 == hashlib.sha256(half.content).hexdigest() == whole.sha256
    assert load_exact(half.path) == load_exact(whole.path)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_engines_compute_from_it_what_they_compute_from_the_whole_file(mine, engine) -> None:
    image = golden_input(TILE)
    half, whole = (
        choose_engine(engine).load(open_model(mine.with_name(name)), TILE, "fp32").infer(image)
        for name in ("mine.fp16.onnx", "whole.onnx")
    )
    assert half.std() > 0.01
    np.testing.assert_array_equal(half, whole)


def test_other_programs_read_it_by_its_path(mine: Path) -> None:
    paths = [str(mine.with_name(name)) for name in ("mine.fp16.onnx", "whole.onnx")]
    image = golden_input(TILE)
    onnx.checker.check_model(paths[0])
    half, whole = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        for path in paths
    )
    np.testing.assert_equal(half, whole)
    half, whole = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
            None, {"image": image}
        )
        for path in paths
    )
    np.testing.assert_array_equal(half, whole)
    half, whole = (
        shared_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([image])[0]
        for path in paths
    )
    np.testing.assert_array_equal(half, whole)


def test_tensorrt_reads_it_by_its_path(mine: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    layers = []
    for name in ("mine.fp16.onnx", "whole.onnx"):
        logger = trt.Logger(trt.Logger.ERROR)
        network = trt.Builder(logger).create_network(0)
        assert trt.OnnxParser(network, logger).parse_from_file(str(mine.with_name(name)))
        layers.append(network.num_layers)
    assert layers[0] == layers[1] > 10


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_installed_as_links_it_computes_all_the_same(mine, tmp_path_factory, link) -> None:
    # `onnx` refuses the hard links that uv makes, OpenVINO and ONNX Runtime symbolic ones.
    folder = tmp_path_factory.mktemp("linked")
    for name in ("mine.onnx", "mine.fp16.onnx"):
        link(mine.with_name(name), folder / name)
    half = open_model(folder / "mine.onnx").variant("fp16")
    for engine in ("openvino", "onnxruntime"):
        assert choose_engine(engine).load(half, TILE, "fp32").infer(golden_input(TILE)).any()
    assert load_exact(half.path) == load_exact(mine.with_name("whole.onnx"))


def test_alone_it_is_refused_with_what_it_lacks(mine: Path) -> None:
    mine.unlink()
    with pytest.raises(InputError) as caught:
        open_model(mine.with_name("mine.fp16.onnx"))
    assert str(caught.value) == (
        "mine.fp16.onnx takes its weights from mine.onnx, which is not beside it; copy mine.onnx "
        "there as well, or make a file that needs no other with `cellrt export mine.onnx "
        "--precision fp16 -o NAME.onnx`"
    )


def test_beside_a_file_that_has_changed_it_is_refused(mine: Path) -> None:
    half = open_model(mine.with_name("mine.fp16.onnx"))
    # One bit of a weight: the same length, the same places.
    content = bytearray(mine.read_bytes())
    content[len(content) // 2] ^= 1
    mine.write_bytes(content)
    again = r"mine\.fp16\.onnx is not the fp16 file of mine\.onnx as it is now; run `cellrt exp"
    with pytest.raises(InputError, match=again):
        open_model(half.path)
    with pytest.raises(InputError, match=again):
        open_model(mine).variant("fp16")
    with pytest.raises(InputError, match=again):  # one that is open already as well
        choose_engine("openvino").load(half, TILE, "fp32")


@pytest.mark.parametrize("location", ["../mine.onnx", "/mine.onnx", ".."])
def test_weights_are_never_taken_from_another_folder(mine, tmp_path, location) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    half = Path(shutil.move(mine.with_name("mine.fp16.onnx"), folder))
    changed(half, lambda key, value: location if key == "location" else value)
    with pytest.raises(InputError, match="which is not beside it"):
        open_model(half)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "-5"),
        ("offset", "99999999999"),
        ("length", "9" * 30),
        ("length", "many"),
        ("location", ""),
    ],
)
def test_places_that_are_not_in_the_other_file_are_damage(mine, key, value) -> None:
    half = changed(mine.with_name("mine.fp16.onnx"), lambda k, v: value if k == key else v)
    with pytest.raises(InputError, match=r"mine\.fp16\.onnx is not an ONNX model, or is truncated"):
        open_model(half)


def test_a_model_that_another_program_has_split_keeps_its_identity_by_all_its_weights(
    tmp_path: Path,
) -> None:
    nuclei = open_model("nuclei")
    path = tmp_path / "split.onnx"
    onnx.save(
        onnx.load_from_string(nuclei.content), path, save_as_external_data=True, location="w.bin"
    )
    model = open_model(path)
    assert model.card == nuclei.card
    before = model.sha256
    image = golden_input(TILE)
    found, expected = (
        choose_engine("openvino").load(each, TILE, "fp32").infer(image) for each in (model, nuclei)
    )
    np.testing.assert_array_equal(found, expected)
    weights = tmp_path / "w.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert open_model(path).sha256 != before
    weights.unlink()
    with pytest.raises(InputError, match=r"from w\.bin, which is not beside it; copy w\.bin there"):
        open_model(path)


@given(
    values=st.lists(st.integers(0, 200), min_size=1, max_size=4),
    notes=st.text(max_size=300),
)
def test_the_bytes_are_those_that_the_onnx_library_writes(values, notes, tmp_path_factory) -> None:
    """Of tensors of every length, with fields of protobuf before and behind the values."""
    folder = tmp_path_factory.mktemp("m")
    card = open_model("nuclei").card
    base = folder / "m.onnx"
    tensors = []
    for index, count in enumerate(values):
        data = np.arange(512 * count + index, dtype=np.float32)
        tensors.append(onnx.numpy_helper.from_array(data, f"t{index}"))
        tensors[-1].doc_string = notes
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "ab"]
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:], tensors)
    model = onnx.helper.make_model(graph)
    base.write_bytes(model.SerializeToString())
    made_from = hashlib.sha256(base.read_bytes()).hexdigest()
    card = replace(card, precision="fp16", made_from=made_from)
    embed_card(model, ModelCard.from_json(card.to_json()))
    path = folder / "m.fp16.onnx"
    write_graph(model, path, base)
    assert whole_file(path, card) == model.SerializeToString()
    assert (path.stat().st_size < model.ByteSize()) == any(values)
