"""Model files: the card is found without an ONNX library, everything else is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.errors import InputError
from cellrt.runtime.model.file import bundled_models, open_model
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.model.onnx_metadata import read_metadata

onnx = pytest.importorskip("onnx", reason="onnx is in the train extra")


def write_model(path, metadata):
    """Write a one-node ONNX file with metadata."""
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("a", "b")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["a"], ["b"])], "g", value[:1], value[1:]
    )
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@given(
    metadata=st.dictionaries(
        st.text(min_size=1, max_size=5), st.text(max_size=300), min_size=1, max_size=4
    )
)
def test_metadata_equals_what_the_onnx_library_wrote(metadata, tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("m") / "m.onnx", metadata)
    assert read_metadata(path) == metadata


def test_bundled_models_open_and_say_what_they_are():
    names = bundled_models()
    assert {"nuclei", "membranes"} <= set(names)
    for name, path in names.items():
        model = open_model(name)
        assert model.card.name == name
        assert path.stat().st_size <= 8_000_000
        assert model.variant("fp16") is not None
        assert model.card.training_data
        assert model.card.scores
        assert len(model.sha256) == 64
        assert all(data.licence for data in model.card.training_data)


def test_an_onnx_file_of_somebody_else_is_refused(tmp_path):
    path = write_model(tmp_path / "foreign.onnx", {"author": "x"})
    with pytest.raises(InputError, match=r"foreign\.onnx.*without a cellrt model card"):
        open_model(path)


@pytest.mark.parametrize("content", [b"", b"hello world, not a model", b"\x00" * 100, b"\x08"])
def test_a_file_that_is_no_onnx_model_is_refused(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not an ONNX model"):
        open_model(path)


def test_a_truncated_model_is_refused(tmp_path):
    whole = bundled_models()["nuclei"].read_bytes()
    path = tmp_path / "short.onnx"
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=r"not an ONNX model|without a cellrt|not valid JSON"):
            open_model(path)


def test_an_unknown_name_lists_the_bundled_ones():
    with pytest.raises(InputError, match="nuclei"):
        open_model("no-such-model")


def copied(folder):
    """A user's own model: the file of a bundled one with its fp16 file, under another name."""
    nuclei = open_model("nuclei")
    mine = folder / "mine.onnx"
    mine.write_bytes(nuclei.path.read_bytes())
    (folder / "mine.fp16.onnx").write_bytes(nuclei.variant("fp16").content)
    return mine


def test_the_fp16_file_of_a_model_is_found_beside_it(tmp_path):
    model = open_model(copied(tmp_path))
    assert model.variant("fp16").path.name == "mine.fp16.onnx"
    assert model.variant("int8") is None
    assert [file.card.precision for file in model.variants()] == ["fp16"]


def test_an_fp16_file_of_another_model_is_not_taken_for_this_ones(tmp_path):
    mine = copied(tmp_path)
    mine.write_bytes(bundled_models()["membranes"].read_bytes())
    again = rf"mine\.fp16\.onnx is not the fp16 file.*cellrt export {mine} --precision fp16 --overw"
    with pytest.raises(InputError, match=again):
        open_model(mine).variant("fp16")


@pytest.mark.parametrize("content", ["mine.onnx", "bf16"])
def test_a_file_that_is_not_in_the_precision_its_name_says_is_refused(tmp_path, content):
    mine = copied(tmp_path)
    half = tmp_path / "mine.fp16.onnx"
    if content == "bf16":  # of the right model, but in another precision than the name says
        half = half.rename(tmp_path / "mine.bf16.onnx")
    else:
        half.write_bytes(mine.read_bytes())
    with pytest.raises(InputError, match=half.name):
        open_model(mine).variant(half.name.split(".")[1])


def test_the_golden_input_is_fixed_and_exact():
    image = golden_input((8, 16, 24))
    assert image.shape == (1, 1, 8, 16, 24)
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() < 1
    np.testing.assert_array_equal(image * 128, np.round(image * 128))
