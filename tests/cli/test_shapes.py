"""`cellrt encode` and `cellrt decode` as a user runs them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile

from cellrt.runtime.image.reading import read_volume


@pytest.fixture
def labels():
    z, y, x = np.indices((40, 60, 64))
    image = np.zeros((40, 60, 64), np.uint16)
    image[((z - 20) * 2) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 15**2] = 3
    image[((z - 18) * 2.5) ** 2 + (y - 40) ** 2 + (x - 45) ** 2 <= 17**2] = 8
    return image


@pytest.fixture
def file(tmp_path, labels):
    path = tmp_path / "labels.tif"
    tifffile.imwrite(
        path,
        labels,
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "ZYX", "spacing": 0.5, "unit": "um"},
    )
    return path


def rows(path):
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def refused(done, code, *words):
    assert done.code == code, done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("cellrt: ")
    for word in words:
        assert word in line
    assert "Traceback" not in done.err


def change(path, edit):
    """Write a table anew after a change to its header and rows."""
    with path.open(encoding="utf-8", newline="") as text:
        table = list(csv.reader(text))
    edit(table)
    with path.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows(table)


def test_there_and_back(cellrt, tmp_path, file, labels):
    table, back = tmp_path / "shapes.csv", tmp_path / "back.tif"
    done = cellrt("encode", file, "--order", 7, "-o", table)
    assert (done.code, done.err) == (0, "")
    assert "2 cells, order 7, 64 coefficients each" in done.out
    found = rows(table)
    assert [row["id"] for row in found] == ["3", "8"]
    assert float(found[0]["centre_z_um"]) == pytest.approx(10.0, abs=0.01)
    assert float(found[0]["c_0_0_um"]) / np.sqrt(4 * np.pi) == pytest.approx(15 * 0.25, rel=0.01)
    assert float(found[0]["power_0_um2"]) == pytest.approx(
        float(found[0]["c_0_0_um"]) ** 2, rel=1e-5
    )
    assert found[0]["border"] == found[0]["hole"] == "0"

    done = cellrt("decode", table, "-o", back)
    assert (done.code, done.err) == (0, "")
    assert "2 cells in 40 x 60 x 64 voxels" in done.out
    volume = read_volume(back)
    assert volume.full_voxel_size_um == pytest.approx((0.5, 0.25, 0.25))
    drawn = volume.image[:]
    for label in (3, 8):
        both = ((drawn == label) & (labels == label)).sum()
        assert 2 * both / ((drawn == label).sum() + (labels == label).sum()) > 0.97
    assert np.unique(drawn).tolist() == [0, 3, 8]
    scores = json.loads(cellrt("evaluate", back, file, "--json").out)
    assert scores["mean_dice"] > 0.97


def test_labels_without_a_voxel_size_are_measured_in_voxels_and_that_is_said(
    cellrt, tmp_path, labels
):
    np.save(tmp_path / "labels.npy", labels)
    table = tmp_path / "shapes.csv"
    done = cellrt("encode", tmp_path / "labels.npy", "-o", table)
    assert done.code == 0
    assert "warning: the voxel size is not known" in done.err
    assert "--voxel-size" in done.err
    assert "c_5_-5_voxels" in rows(table)[0]
    done = cellrt("decode", table, "-o", tmp_path / "back.tif", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert read_volume(tmp_path / "back.tif").full_voxel_size_um is None
    told = cellrt(
        "encode",
        tmp_path / "labels.npy",
        "-o",
        table,
        "--overwrite",
        "--voxel-size",
        0.5,
        0.25,
        0.25,
    )
    assert (told.code, told.err) == (0, "")
    assert "c_5_-5_um" in rows(table)[0]


def test_odd_cells_are_counted(cellrt, tmp_path, labels):
    labels[20, 20, 20] = 0
    labels[0, 0, 0] = 9
    np.save(tmp_path / "labels.npy", labels)
    done = cellrt(
        "encode", tmp_path / "labels.npy", "-o", tmp_path / "s.csv", "--voxel-size", 1, 1, 1
    )
    assert "1 cell with holes, which are filled" in done.out
    assert "1 cell of a single voxel" in done.out
    assert "1 cell cut by the border of the image" in done.out
    assert [row["hole"] for row in rows(tmp_path / "s.csv")] == ["1", "0", "0"]


@pytest.mark.parametrize("order", [0, 12, -3])
def test_an_order_out_of_range_is_refused_before_anything_is_read(cellrt, tmp_path, order):
    done = cellrt("encode", tmp_path / "missing.tif", "--order", order, "-o", tmp_path / "s.csv")
    refused(done, 2, f"--order is {order}", "1 to 11")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_an_output_has_to_be_named(cellrt, file, command):
    refused(cellrt(command, file), 2, "--output")


def test_what_is_no_label_stack_is_refused(cellrt, tmp_path):
    noise = np.random.default_rng(0).integers(0, 4000, (8, 40, 40)).astype(np.uint16)
    for name, image, word in [
        ("grey", noise, "looks like an image"),
        ("slice", np.ones((20, 20), np.uint8), "is one slice"),
        ("half", np.full((4, 5, 6), 0.5), "not whole"),
        ("below", np.full((4, 5, 6), -1), "the label -1"),
    ]:
        np.save(tmp_path / f"{name}.npy", image)
        done = cellrt("encode", tmp_path / f"{name}.npy", "-o", tmp_path / "s.csv")
        refused(done, 3, word)
    assert not (tmp_path / "s.csv").exists()


def test_results_are_not_replaced_and_have_the_names_of_what_they_are(cellrt, tmp_path, file):
    table = tmp_path / "shapes.csv"
    refused(cellrt("encode", file, "-o", tmp_path / "shapes.tif"), 2, ".csv")
    assert cellrt("encode", file, "-o", table).code == 0
    refused(cellrt("encode", file, "-o", table), 3, "exists already", "--overwrite")
    refused(cellrt("decode", table, "-o", tmp_path / "back.csv"), 2, ".tif")
    refused(cellrt("decode", table, "-o", file), 3, "exists already")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.tif", "shapes.csv"]


def test_no_cells_make_an_empty_table_which_cannot_be_drawn(cellrt, tmp_path):
    np.save(tmp_path / "none.npy", np.zeros((4, 5, 6), np.uint8))
    done = cellrt(
        "encode", tmp_path / "none.npy", "-o", tmp_path / "s.csv", "--voxel-size", 1, 1, 1
    )
    assert done.code == 0
    assert "holds no cells" in done.err
    refused(cellrt("decode", tmp_path / "s.csv", "-o", tmp_path / "b.tif"), 3, "holds no cells")
    assert not (tmp_path / "b.tif").exists()


def column(table, name):
    return table[0].index(name)


def without(name):
    def edit(table):
        at = column(table, name)
        for row in table:
            del row[at]

    return edit


def setting(name, value, row=1):
    def edit(table):
        table[row][column(table, name)] = value

    return edit


def renamed(old, new):
    def edit(table):
        table[0][column(table, old)] = new

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without("id"), ["has no column id"]),
        (without("centre_y_um"), ["has no column centre_y_um"]),
        (without("c_2_-1_um"), ["has no column c_2_-1_um"]),
        (without("voxel_size_z_um"), ["has no column voxel_size_z_um"]),
        (without("image_x_voxels"), ["has no column image_x_voxels"]),
        (renamed("c_5_5_um", "c_12_0_um"), ["c_12_0_um", "up to 11"]),
        (renamed("c_5_5_um", "c_5_6_um"), ["c_5_6_um"]),
        (renamed("c_5_5_um", "c_5_5_voxels"), ["in um and in voxels"]),
        (renamed("c_5_5_um", "c_5_4_um"), ["has the column c_5_4_um twice"]),
        (setting("c_0_0_um", "wide"), ["row 1, column c_0_0_um is 'wide'"]),
        (setting("c_0_0_um", "-2"), ["row 1, column c_0_0_um is -2", "more than 0"]),
        (setting("c_0_0_um", "1e12", 2), ["row 2, column c_0_0_um", "longer than the whole image"]),
        (setting("c_1_0_um", "nan", 2), ["row 2, column c_1_0_um is 'nan'"]),
        (setting("id", "8"), ["id 8 occurs 2 times"]),
        (setting("id", "0"), ["row 1, column id is 0"]),
        (setting("id", "1.5"), ["row 1, column id is 1.5"]),
        (setting("image_z_voxels", "41"), ["column image_z_voxels is 41 in row 1 and 40 in row 2"]),
        (lambda table: table[1].pop(), ["row 1 has"]),
        (lambda table: table.__delitem__(slice(1, None)), ["holds no cells"]),
        (lambda table: table.clear(), ["is empty"]),
    ],
)  # fmt: skip
def test_a_table_that_is_none_of_shapes_is_refused_by_name(cellrt, tmp_path, file, edit, words):
    table, back = tmp_path / "shapes.csv", tmp_path / "back.tif"
    assert cellrt("encode", file, "-o", table).code == 0
    change(table, edit)
    refused(cellrt("decode", table, "-o", back), 3, "shapes.csv", *words)
    assert not back.exists()


def test_an_image_that_nobody_can_have_is_refused(cellrt, tmp_path, file):
    table = tmp_path / "shapes.csv"
    assert cellrt("encode", file, "-o", table).code == 0

    def edit(table):
        for row in table[1:]:
            for name in ("image_z_voxels", "image_y_voxels", "image_x_voxels"):
                row[table[0].index(name)] = "2000000"

    change(table, edit)
    refused(cellrt("decode", table, "-o", tmp_path / "back.tif"), 3, "image_z_voxels", "1e+12")


def test_a_voxel_size_that_no_voxel_has_is_refused(cellrt, tmp_path, file):
    table = tmp_path / "shapes.csv"
    assert cellrt("encode", file, "-o", table).code == 0

    def edit(table):
        for row in table[1:]:
            row[column(table, "voxel_size_y_um")] = "0"

    change(table, edit)
    refused(cellrt("decode", table, "-o", tmp_path / "b.tif"), 3, "voxel_size_y_um")


def test_other_files_are_no_tables(cellrt, tmp_path, file):
    cells = tmp_path / "cells.csv"
    cells.write_text("id,volume_um3\n1,2.5\n", encoding="utf-8")
    refused(
        cellrt("decode", cells, "-o", tmp_path / "b.tif"), 3, "cells.csv has no column c_0_0_um"
    )
    refused(cellrt("decode", file, "-o", tmp_path / "b.tif"), 3, "labels.tif", "it is no text")
    refused(cellrt("encode", cells, "-o", tmp_path / "b.csv"), 3, "cells.csv is a table", "decode")
    of_excel = tmp_path / "semicolons.csv"
    of_excel.write_text("id;c_0_0_um\n1;2,5\n", encoding="utf-8")
    refused(
        cellrt("decode", of_excel, "-o", tmp_path / "b.tif"), 3, "semicolons.csv", "with commas"
    )
    refused(cellrt("decode", tmp_path / "gone.csv", "-o", tmp_path / "b.tif"), 3, "does not exist")
    refused(cellrt("decode", tmp_path, "-o", tmp_path / "b.tif"), 3, "cannot be read")


def test_rows_may_go_and_columns_may_come(cellrt, tmp_path, file):
    table, back = tmp_path / "shapes.csv", tmp_path / "back.tif"
    assert cellrt("encode", file, "-o", table).code == 0

    def edit(table):
        del table[1]
        for row, value in zip(table, ["cluster", "7"], strict=True):
            row.insert(0, value)
        without("misplaced_share")(table)

    change(table, edit)
    done = cellrt("decode", table, "-o", back)
    assert (done.code, done.err) == (0, "")
    assert np.unique(read_volume(back).image[:]).tolist() == [0, 8]


def test_a_cell_that_leaves_no_voxel_is_told(cellrt, tmp_path, file):
    table = tmp_path / "shapes.csv"
    assert cellrt("encode", file, "-o", table).code == 0
    change(table, setting("centre_z_um", "5000"))
    done = cellrt("decode", table, "-o", tmp_path / "back.tif")
    assert done.code == 0
    assert "warning: 1 cell of 2 left no voxel" in done.err
    assert "id 3" in done.err
