"""The pages say what is: columns of the table, links, and figures that were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cellrt.runtime.results.table import measure

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """Cells of all tables of a page."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def in_voxels(columns: list[str]) -> list[str]:
    return list(dict.fromkeys(re.sub(r"_um\d?$", "_voxels", name) for name in columns))


def test_the_columns_are_those_that_are_written(tmp_path):
    labels = np.zeros((4, 6, 6), np.int32)
    labels[1:3, 1:4, 1:4] = 1
    image = np.ones((1, *labels.shape))
    before, after = page("results.md").split("Of an image of one slice:")
    listed = [name for row in rows(before) for name in re.findall(r"`(\w+)`", row[0])]
    flat = " ".join(listed)
    for row in rows(after)[2:6]:
        flat = flat.replace(row[0].replace("`", ""), row[1].replace("`", ""))

    def written(labels, image, size):
        path = tmp_path / "cells.csv"
        evidence = ["confidence", "probability", "flow_error"]
        table = measure(labels, image, size)
        table.with_columns(dict.fromkeys(evidence, table["id"])).write_csv(path)
        return path.read_text(encoding="utf-8").splitlines()[0].split(",")

    assert listed == written(labels, image, (1.0, 0.5, 0.5))
    assert in_voxels(listed) == written(labels, image, None)
    assert flat.split() == written(labels[1:2], image[:, 1:2], (1.0, 0.5, 0.5))
    assert in_voxels(flat.split()) == written(labels[1:2], image[:, 1:2], None)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("name", ["end_to_end", "end_to_end_3dcellseg"])
def test_the_end_to_end_pages_agree_with_what_was_measured(name):
    measured = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))["figures"]
    header, *table = [row for row in rows(page(f"{name}.md")) if "---" not in row]
    shown = {tuple(row[:3]): dict(zip(header, row, strict=True)) for row in table}
    totals = {
        (run["grid"], run["pipeline"], run["precision"]): run["seconds"]["total"]
        for run in measured
    }
    assert totals.keys() == shown.keys()
    for (grid, *which), total in totals.items():
        row = shown[(grid, *which)]
        assert float(row["file to labels, s"]) == pytest.approx(total, abs=0.051)
        for column in header:
            if column.startswith("times as fast as "):
                # Beside what is fastest on the same grid; int8 has to be asked for.
                fastest = min(
                    seconds
                    for (g, pipeline, precision), seconds in totals.items()
                    if (g, pipeline) == (grid, column.removeprefix("times as fast as "))
                    and precision != "int8"
                )
                assert float(row[column]) == pytest.approx(fastest / total, abs=0.051)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_only_pages_of_measurements_say_how_much_faster(path):
    """A figure that is quoted elsewhere is soon another than the one that was measured last."""
    if not path.with_suffix(".json").exists():
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"[\d.]+\s+times\s+(?:faster|as\s+fast)", text)
