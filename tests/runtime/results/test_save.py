"""Names of results, and what the preview and the record say of what was chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cellrt
from cellrt.errors import UsageError
from cellrt.runtime.image.volume import Volume, volume_from_array
from cellrt.runtime.results.names import result_paths
from cellrt.runtime.results.preview import page

pytestmark = pytest.mark.filterwarnings("ignore::cellrt.errors.CellrtWarning")


def a_volume(path: str, times: int = 1, channels: int = 1, inside: str = "") -> Volume:
    array = np.zeros((times, channels, 4, 8, 8), np.uint8)
    volume = volume_from_array(array, axes="TCZYX", time=1, channel=1)
    return replace(volume, path=Path(path), inside=inside)


@pytest.mark.parametrize(
    ("volume", "name"),
    [
        (a_volume("a.tif"), "a.labels.tif"),
        (a_volume("a.ome.tif", times=3), "a.t1.labels.tif"),
        (a_volume("a.tif", channels=2), "a.c1.labels.tif"),
        (a_volume("a.h5", 10, 12, "g/raw"), "a.g.raw.t01.c01.labels.tif"),
        (a_volume("s.zarr/", inside="0"), "s.0.labels.tif"),
    ],
)
def test_what_was_chosen_of_several_is_in_the_name(volume: Volume, name: str) -> None:
    assert result_paths(volume, None)["labels"].name == name
    assert result_paths(volume, "out/")["labels"] == Path("out") / name
    assert result_paths(volume, "out/b.tif")["labels"] == Path("out/b.tif")


def test_no_two_arrays_share_a_name() -> None:
    inside = ["a/b", "a.b", "a:b", "a b", "a..b", "a*b", "µ", "a-b", "../b"]
    found = {result_paths(a_volume("x.h5", inside=name), None)["labels"].name for name in inside}
    assert len(found) == len(inside)
    assert not any(set(name) & set('\\/ :*?"<>|') for name in found)


@pytest.mark.parametrize("output", ["x.png", "cells.csv", "x", ".tif", ".labels.tif", "x.tif.lsm"])
def test_labels_are_a_tiff(output: str) -> None:
    with pytest.raises(UsageError, match="TIFF"):
        result_paths(a_volume("a.tif"), output)


def test_a_chosen_channel_is_on_the_picture_and_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    write = page.write_preview

    def noted(*arguments: object, title: str, **options: object) -> None:
        titles.append(title)
        write(*arguments, title=title, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(page, "write_preview", noted)
    image = np.zeros((2, 2, 8, 16, 16), np.uint8)
    result = cellrt.segment(image, axes="TCZYX", time=2, channel=1, diameter=16)
    paths = result.save(tmp_path / "x.tif")
    replace(result, volume=replace(result.volume, path=tmp_path / "m.tif")).save()
    assert titles == [
        "x.tif, time 2 of 2, channel 1",
        "m.tif, time 2 of 2, channel 1",
    ]
    told = json.loads(paths["run"].read_text())["input"]
    assert (told["time"], told["times"], told["channel_number"]) == (2, 2, 1)
    assert (tmp_path / "m.t2.c1.labels.tif").exists()
