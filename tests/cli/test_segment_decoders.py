"""``cellrt segment --decoder`` and ``--param``, with small class-map models made here."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import tifffile

import cellrt as package
from cellrt.errors import InputError, UsageError
from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding.classes.class_map import BACKGROUND, FOREGROUND, MEMBRANE, class_map_of
from cellrt.runtime.model.card import ModelCard
from cellrt.runtime.model.card_parts import Output
from cellrt.simulation import simulate_nuclei

pytest.importorskip("onnx", reason="onnx is in the train extra")

DIAMETER = 16.0
# Logits as functions of the image, which is 0 in the background, 0.5 inside and 1 in membranes:
# the upper envelope of three lines that cross at 0.25 and 0.75.
SLOPES, INTERCEPTS = (0.0, 80.0, 40.0), (0.0, -40.0, -10.0)


def write_model(write_network, path, bias=(0.0, 0.0, 0.0)):
    """Write a network of one 1x1x1 convolution and a softmax, with a card."""
    from onnx import helper

    weights = {
        "slopes": np.float32(SLOPES).reshape(3, 1, 1, 1, 1),
        "intercepts": np.float32(INTERCEPTS) + np.float32(bias),
    }
    nodes = [
        helper.make_node("Conv", ["image", "slopes", "intercepts"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["classes"], axis=1),
    ]
    card = ModelCard(
        name="classes",
        summary="Three grey levels.",
        target="membranes",
        method="cellseg3d",
        decoder="tascan",
        decoder_parameters={"min_area": 30},
        diameter_voxels=DIAMETER,
        voxel_size_um=0.5,
        outputs=(Output("classes", ("background", "membrane", "foreground")),),
        multiple=8,
        receptive_field_radius=1,
        halo=0,
        blend=0,
        tile=(32, 32, 64),
    )
    return write_network(path, card, nodes, weights)


@pytest.fixture
def model(tmp_path, write_network):
    return write_model(write_network, tmp_path / "classes.onnx")


def class_map(neck):
    """Background, membrane, and two cells of 14 voxels with a hole of 6 x `neck` faces."""
    labels = np.zeros((20, 24, 40), np.int32)
    labels[3:17, 5:19, 5:20] = 1
    labels[3:17, 5:19, 20:35] = 2
    classes = class_map_of(labels)
    classes[7:13, 10 : 10 + neck, 17:23] = FOREGROUND
    return labels, classes


def image_of(classes):
    return np.choose(classes, [0, 200, 100]).astype(np.uint8)


@pytest.fixture
def stack(tmp_path):
    """Two cells that share a hole of 24 faces, fewer than the default asks for."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, image_of(class_map(4)[1]))
    return path


def record_of(stack):
    return json.loads(stack.with_name("stack.run.json").read_text(encoding="utf-8"))


def segment(cellrt, stack, model, *arguments):
    return cellrt(
        "segment", stack, "--model", model, "--diameter", DIAMETER, "--overwrite", *arguments
    )


def test_the_cards_decoder_runs_and_is_recorded(cellrt, stack, model):
    done = segment(cellrt, stack, model)
    assert done.code == 0, done.err
    record = record_of(stack)
    assert record["cells"] == 2
    assert record["decoder"]["name"] == "tascan"
    assert record["decoder"]["parameters"]["min_area"] == 30
    labels = tifffile.imread(stack.with_name("stack.labels.tif"))
    truth, classes = class_map(4)
    np.testing.assert_array_equal(labels > 0, classes != BACKGROUND)
    assert evaluate(labels, truth).mean_dice > 0.98


def test_min_area_decides_whether_a_hole_joins_two_cells(cellrt, stack, model):
    for area, cells in ((25, 2), (24, 1)):
        for words in (("--min-area", area), ("--param", f"min_area={area}")):
            assert segment(cellrt, stack, model, *words).code == 0
            record = record_of(stack)
            assert record["cells"] == cells
            assert record["decoder"]["parameters"]["min_area"] == area
            assert record["options"]["decoder_parameters"] == {"min_area": area}


def test_fit_lets_the_map_decide_where_shapes_end(cellrt, stack, model):
    volumes = []
    tifffile.imwrite(stack, simulate_nuclei((24, 40, 40), seed=2).image)
    for words in (("--fit",), ("--param", "fit=true"), (), ("--no-fit",)):
        done = segment(cellrt, stack, "nuclei-stardist", *words)
        assert done.code == 0, done.err
        assert record_of(stack)["decoder"]["parameters"]["fit"] is ("--no-fit" not in words)
        labels = tifffile.imread(stack.with_name("stack.labels.tif"))
        volumes.append(np.count_nonzero(labels))
    assert volumes[0] == volumes[1] == volumes[2] != volumes[3]
    refused = segment(cellrt, stack, model, "--fit")
    assert refused.code == 2
    assert "fit" in refused.err


def test_the_parameters_are_listed_with_the_cards_values(cellrt, stack, model):
    done = segment(cellrt, stack, model, "--param", "help")
    assert done.code == 0, done.err
    assert "parameters of the decoder tascan" in done.out
    assert "min_area=30  (a whole number)" in done.out
    other = segment(cellrt, stack, model, "--decoder", "watershed", "--param", "help")
    assert "seed_distance=2" in other.out
    assert not stack.with_name("stack.labels.tif").exists()


@pytest.mark.parametrize("name", ["watershed", "dbscan"])
def test_decoders_that_fit_can_be_exchanged(cellrt, stack, model, name):
    if name == "dbscan":
        pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    tifffile.imwrite(stack, image_of(class_map(0)[1]))
    done = segment(cellrt, stack, model, "--decoder", name)
    assert done.code == 0, done.err
    assert record_of(stack)["decoder"]["name"] == name
    labels = tifffile.imread(stack.with_name("stack.labels.tif"))
    assert evaluate(labels, class_map(0)[0]).mean_dice > 0.98


def test_a_decoder_that_does_not_fit_is_refused_by_name(cellrt, stack, model):
    done = segment(cellrt, stack, model, "--decoder", "flows")
    assert done.code == 3
    assert "'classes'" in done.err
    assert "'flows' needs flow_z" in done.err
    assert "tascan, watershed, dbscan" in done.err
    done = segment(cellrt, stack, "nuclei", "--decoder", "tascan")
    assert done.code == 3
    assert "'nuclei'" in done.err
    assert "'tascan' needs background, membrane, foreground" in done.err
    assert not stack.with_name("stack.labels.tif").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--decoder", "abacus"), "no decoder 'abacus'"),
        (("--min-area", "0"), "at least 1"),
        (("--min-area", "-5"), "at least 1"),
        (("--decoder", "watershed", "--min-area", "30"), "watershed has no parameter 'min_area'"),
        (("--param", "min_aera=30"), "it has min_radius, reach, min_area; did you mean min_area?"),
        (("--param", "min_area=many"), "min_area is 'many'; expected a whole number"),
        (("--param", "min_area=2.5"), "expected a whole number"),
        (("--param", "reach=64"), "reach is 64.0; expected a number from 0 to 63"),
        (("--param", "min_area"), "is no name=value"),
        (("--param", "reach=3", "--param", "reach=4"), "given twice"),
        (("--param", "min_area=3", "--min-area", "4"), "given twice"),
        (("--exact",), "tascan has no mode 'exact'"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(cellrt, stack, model, arguments, words):
    done = segment(cellrt, stack, model, "--quiet", *arguments)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not stack.with_name("stack.labels.tif").exists()


def test_min_area_is_refused_for_a_flow_model(cellrt, stack):
    done = segment(cellrt, stack, "nuclei", "--min-area", 30)
    assert done.code == 2
    assert "flows has no parameter 'min_area'; it has step, iterations" in done.err


def test_dbscan_without_scikit_learn_says_what_to_install(cellrt, stack, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    done = segment(cellrt, stack, model, "--decoder", "dbscan")
    assert done.code == 2
    assert "pip install 'cellrt[dbscan]'" in done.err


@pytest.mark.parametrize("bias", [(1000, 0, 0), (0, 1000, 0)], ids=["background", "membrane"])
@pytest.mark.parametrize("name", ["tascan", "watershed", "dbscan"])
def test_one_class_all_over_is_a_warning_and_no_error(
    cellrt, stack, tmp_path, bias, name, write_network
):
    if name == "dbscan":
        pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    model = write_model(write_network, tmp_path / "biased.onnx", bias)
    done = segment(cellrt, stack, model, "--decoder", name)
    assert done.code == 0, done.err
    assert "warning: no cells were found" in done.err
    assert record_of(stack)["cells"] == 0
    assert not tifffile.imread(stack.with_name("stack.labels.tif")).any()


def test_the_plan_names_the_decoder(cellrt, stack, model):
    done = segment(cellrt, stack, model, "--dry-run", "--decoder", "watershed")
    assert done.code == 0, done.err
    assert "decoder        watershed" in done.out


def test_python_takes_the_same_options(model):
    truth, classes = class_map(4)
    image = image_of(classes)
    assert package.segment(image, model, diameter=DIAMETER).labels.max() == 2
    parameters = {"min_area": 24}
    joined = package.segment(image, model, diameter=DIAMETER, decoder_parameters=parameters)
    assert joined.labels.max() == 1
    assert joined.record["options"]["decoder_parameters"] == parameters
    flooded = package.segment(image, model, diameter=DIAMETER, decoder="watershed")
    assert evaluate(flooded.labels, truth).mean_dice > 0.9
    with pytest.raises(UsageError, match="at least 1"):
        package.segment(image, model, decoder_parameters={"min_area": 0})
    with pytest.raises(InputError, match="'flows' needs"):
        package.segment(image, model, decoder="flows")


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_cells_come_back_to_an_image_of_another_scale(model, factor):
    from cellrt.runtime.decoding.labels.upsample import upsample_masks

    labels, classes = class_map(0)
    shape = tuple(round(n * factor) for n in labels.shape)
    truth = upsample_masks(labels, shape)
    # Every voxel is a grey level: intermediate ones would be classes of their own.
    image = image_of(upsample_masks(classes.astype(np.int32), shape).astype(np.uint8))
    result = package.segment(image, model, diameter=DIAMETER * factor)
    assert result.labels.shape == shape
    assert result.record["scale"]["model_grid_zyx"] != list(shape)
    assert result.labels.max() == 2
    assert evaluate(result.labels, truth).mean_dice > 0.85


def test_no_scale_is_known_and_still_there_are_cells(model):
    classes = np.full((24, 72, 72), MEMBRANE, np.uint8)
    for z, y, x in np.ndindex(1, 4, 4):
        corner = 4 + 17 * z, 3 + 17 * y, 3 + 17 * x
        classes[tuple(slice(c, c + 15) for c in corner)] = FOREGROUND
    classes[:, :, :2] = BACKGROUND
    result = package.segment(image_of(classes), model)
    assert any("estimated" in text for text in result.warnings)
    assert result.labels.max() >= 12
