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
        measure(labels, image, size).write_csv(path)
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
    seconds = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    table = {row[0]: row for row in rows(page(f"{name}.md"))}
    first = next(iter(seconds))
    for pipeline, value in seconds.items():
        assert float(table[pipeline][3]) == pytest.approx(value, abs=0.051)
        assert float(table[pipeline][4]) == pytest.approx(seconds[first] / value, abs=0.051)


def speed(name: str, pipeline: str, against: str) -> float:
    seconds = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    return float(seconds[against] / seconds[pipeline])


def test_figures_that_other_pages_quote_are_those_that_were_measured():
    quoted = re.findall(r"([\d.]+)\s+times faster than PyTorch \+ MONAI \+ Cellpose", texts())
    measured = speed("end_to_end", "cellrt, as a user runs it", "PyTorch + MONAI + Cellpose")
    assert quoted
    assert all(float(number) == round(measured, 1) for number in quoted)

    found = re.search(r"It is (\d+) times\s+as fast as .*?, (\d+) times with DBSCAN", texts(), re.S)
    name, mine = "end_to_end_3dcellseg", "cellrt, as a user runs it"
    tascan = speed(name, mine, "PyTorch + MONAI + TASCAN in Python")
    dbscan = speed(name, mine, "PyTorch + MONAI + DBSCAN")
    assert found is not None
    assert (int(found[1]), int(found[2])) == (int(tascan), int(dbscan))
    coarser = re.search(r"it reaches ([\d.]+) times", texts())
    assert coarser is not None
    assert float(coarser[1]) == round(
        speed(name, "cellrt, cells of 16 voxels", "PyTorch + MONAI + TASCAN in Python"), 1
    )


def test_the_speed_of_int8_is_what_was_measured_of_both_models():
    measured = json.loads((DOCS / "precision.json").read_text(encoding="utf-8"))
    whole = {
        round(row["times_faster_f32"], 1)
        for row in measured
        if row["precision"] == "int8, all inner layers" and row["model"] in ("nuclei", "membranes")
    }
    quoted = re.findall(r"int8 (?:is|against fp32:) ([\d.]+) times faster", texts())
    assert len(quoted) == 2
    assert {float(number) for number in quoted} == whole


def texts() -> str:
    """All pages one after the other."""
    return "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
