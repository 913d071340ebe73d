"""The recipes of docs/extending.md, as somebody outside of this package would use them."""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import cellrt
from cellrt.cli.main import _run
from cellrt.errors import EngineError
from cellrt.evaluation.scores import evaluate
from cellrt.runtime.decoding import registry
from cellrt.runtime.decoding.base import Outputs
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.image import formats
from cellrt.runtime.model.card_parts import Normalisation, Output
from cellrt.runtime.network.engines import ladder
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.network.tiles import plan_tiles

PAGE = Path(__file__).parents[1] / "docs/extending.md"


def recipes():
    """Map the names of the page's modules to their text."""
    blocks = re.findall(
        r"^```python\n(# (\w+)\.py.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S
    )
    return {name: text for text, name in blocks}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Import recipes as modules; what they register is forgotten afterwards."""
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    monkeypatch.setattr(ladder, "_ladder", ladder.ladder())
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in recipes().items():
        (tmp_path / f"{name}.py").write_text(text)
    yield lambda *names: [importlib.import_module(name) for name in names]
    for name in recipes():
        sys.modules.pop(name, None)


def balls(shape=(24, 64, 72)):
    """Four bright balls, and their numbers."""
    grid = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    centres = [(12, 16, 16), (12, 16, 54), (12, 46, 16), (12, 46, 54)]
    for number, centre in enumerate(centres, 1):
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
        labels[distance < 8] = number
    return np.where(labels > 0, 200, 20).astype(np.uint8), labels


def test_the_page_has_a_recipe_for_each():
    assert set(recipes()) == {"my_decoder", "my_peaks", "my_engine", "my_format"}


def test_a_format_from_outside_is_segmented(outside, tmp_path, capfd):
    outside("my_format")
    image, truth = balls()
    stack = tmp_path / "stack.toy"
    lines = [" ".join(map(str, plane.ravel())) for plane in image]
    stack.write_text("\n".join(["toy", f"{image.shape[2]} 0.6 0.6 0.6", *lines]))
    words = ["segment", str(stack), "--diameter", "16", "--engine", "openvino"]
    assert _run(words, debug=False) == 0, capfd.readouterr().err
    labels = tifffile.imread(tmp_path / "stack.labels.tif")
    assert evaluate(labels, truth).mean_dice > 0.7
    record = json.loads((tmp_path / "stack.run.json").read_text(encoding="utf-8"))
    assert record["input"]["voxel_size_um"] == [0.6, 0.6, 0.6]
    assert record["input"]["axes_source"] == "file: the toy's own rule"


def test_the_command_line_runs_a_decoder_and_an_engine_from_outside(outside, tmp_path, capfd):
    outside("my_decoder", "my_engine")
    image, truth = balls()
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, image)
    words = ["segment", str(stack), "--diameter", "16", "--decoder", "blobs", "--engine", "plain"]
    assert _run([*words, "--param", "threshold=0.7"], debug=False) == 0, capfd.readouterr().err
    labels = tifffile.imread(tmp_path / "stack.labels.tif")
    assert evaluate(labels, truth).mean_dice > 0.95
    record = json.loads((tmp_path / "stack.run.json").read_text(encoding="utf-8"))
    assert record["engine"]["name"] == "plain"
    assert record["decoder"]["name"] == "blobs"
    assert record["decoder"]["parameters"] == {"threshold": 0.7, "min_voxels": 30}
    assert record["decoder"]["reason"] == "blobs are found there"

    capfd.readouterr()
    for wrong, said in (
        ("threshold=7", "threshold is 7.0; expected a number from 0 to 1"),
        ("treshold=0.7", "it has threshold, min_voxels; did you mean threshold?"),
    ):
        assert _run([*words, "--overwrite", "--quiet", "--param", wrong], debug=False) == 2
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert said in line


def test_the_cell_size_is_searched_for_with_both(outside):
    outside("my_decoder", "my_engine")
    image, truth = balls()
    result = cellrt.segment(image, decoder="blobs", engine="plain", voxel_size=(0.6, 0.6, 0.6))
    assert evaluate(result.labels, truth).mean_dice > 0.9
    finer = cellrt.segment(image, decoder="blobs", engine="plain", diameter=24)
    assert finer.record["scale"]["model_grid_zyx"] != list(image.shape)
    assert evaluate(finer.labels, truth).mean_dice > 0.9
    assert not truth.max() - finer.labels.max()


def test_an_engine_from_outside_can_be_the_best_and_can_refuse(outside):
    outside("my_engine")
    choice = ladder.choose_engine()
    assert choice.name in ("plain", *(spec.name for spec in ladder.ladder() if spec.needs))
    model = cellrt.load_model("nuclei")
    other = replace(model, card=replace(model.card, outputs=(Output("image", ("red", "green")),)))
    with pytest.raises(EngineError, match="plain cannot run"):
        ladder.choose_engine("plain").load(other, (8, 8, 8), "fp32")


class Star:
    """A network of 37 channels: the foreground, and 36 that depend on the place in the tile."""

    device, precision, channels = "CPU", "fp32", 37

    def infer(self, image):
        place = np.arange(image[0, 0].size, dtype=np.float32).reshape(image.shape[2:])
        more = place + np.arange(self.channels - 1, dtype=np.float32)[:, None, None, None]
        return np.concatenate([image, more[None]], axis=1)


def test_a_family_that_takes_tiles_holds_37_channels_of_peaks_only(outside):
    outside("my_peaks")
    channels = ("foreground", *(f"harmonic_{i}" for i in range(36)))
    family = registry.find_family("peaks")
    assert family.fits(channels)
    decoder = family.make(family.parameters(min_voxels=5), Outputs(channels), "")
    _, truth = balls()
    # Peaked, so that each ball has one highest voxel.
    peaked = ndimage.distance_transform_edt(truth > 0) + np.linspace(0, 0.1, truth.size).reshape(
        truth.shape
    ) * (truth > 0)
    grid = plan_tiles(truth.shape, halo=0, blend=8, multiple=8, tile=(16, 24, 24))
    assert len(grid) > 20
    prepared = prepare_image(peaked.astype(np.float32), truth.shape, Normalisation(0, 100))
    done = []
    kept, _ = network_fields(prepared, grid, Star(), decoder, done.append)
    assert sum(done) == truth.size
    foreground, places, shapes = kept
    assert foreground.shape == truth.shape
    # Each cell is found once, though up to eight tiles see it.
    assert sorted(truth[tuple(places.T)]) == [1, 2, 3, 4]
    assert [shape.shape for shape in shapes] == [(36,)] * 4
    found = decoder.decode(kept, mode="fast")
    assert found.labels.max() == 4
    assert not found.labels[truth == 0].any()


def test_a_name_is_taken_once(outside):
    (module,) = outside("my_decoder")
    family = registry.find_family("blobs")
    with pytest.raises(ValueError, match="already"):
        registry.register_family(family)
    assert module.BlobDecoder.name in registry.family_names()
