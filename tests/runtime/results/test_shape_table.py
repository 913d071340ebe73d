"""The table of shapes: what it has is on its page, and what it says comes back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cellrt.runtime.decoding.star.shapes import encode
from cellrt.runtime.results.shape_table import read_shapes, shape_table

PAGE = Path(__file__).parents[3] / "docs" / "shapes.md"


@pytest.fixture
def labels():
    image = np.zeros((14, 16, 18), np.int32)
    image[2:9, 3:12, 4:13] = 4
    image[10:14, 2:8, 2:9] = 2
    return image


@pytest.mark.parametrize("order", [1, 5, 11])
@pytest.mark.parametrize("size", [None, (1.5, 0.4, 0.4)])
def test_what_is_written_is_read_again(tmp_path, labels, order, size):
    shapes = encode(labels, size, order=order)
    shape_table(shapes).write_csv(tmp_path / "shapes.csv")
    back = read_shapes(tmp_path / "shapes.csv")
    assert (back.order, back.unit, back.image_shape) == (order, shapes.unit, (14, 16, 18))
    assert back.voxel_size == pytest.approx(shapes.voxel_size)
    assert back.ids.tolist() == [2, 4]
    assert back.coefficients == pytest.approx(shapes.coefficients, rel=1e-6, abs=1e-9)
    assert back.centres == pytest.approx(shapes.centres, rel=1e-6)
    assert np.array_equal(back.flags, shapes.flags)
    assert back.flagged("border").tolist() == [True, False]


@pytest.mark.parametrize(("size", "unit"), [(None, "voxels"), ((1.0, 0.5, 0.5), "um")])
def test_the_page_names_all_columns(labels, size, unit):
    lines = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    named = [name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[1])]
    patterns = [
        re.sub(r"_u(2?)$", rf"_{unit}\1", name)
        .replace("{z,y,x}", "[zyx]")
        .replace("_L_M_", r"_\d+_-?\d+_")
        .replace("_L_", r"_\d+_")
        for name in named
    ]
    columns = shape_table(encode(labels, size)).columns
    for column in columns:
        assert sum(bool(re.fullmatch(pattern, column)) for pattern in patterns) == 1, column
    for pattern in patterns:
        assert any(re.fullmatch(pattern, column) for column in columns), pattern
