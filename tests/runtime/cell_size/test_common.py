"""What an image gets whose cells do not have the size that they were told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cellrt.runtime.cell_size import common, search
from cellrt.runtime.grid.scale import STEP, CellScale
from cellrt.runtime.image.reading import read
from cellrt.runtime.job import Options
from cellrt.runtime.model.file import open_model
from cellrt.runtime.preparation import load
from cellrt.runtime.progress import Silent, StageClock

COMMON = CellScale(20.0, (1.0, 1.0, 1.0), "the median", "", to_confirm=True)


def squares(edge, count=9):
    """So many squares on a plane."""
    labels = np.zeros((1, 3 * edge, edge * count), np.int32)
    for number in range(count):
        labels[0, edge : 2 * edge, number * edge : (number + 1) * edge] = number + 1
    return labels


def disc_of(edge):
    """Diameter of the disc with the area of a square."""
    return edge * 2 / np.pi**0.5


@pytest.fixture
def guesses(monkeypatch):
    """Guesses that jobs are prepared with, each of which then has the size that is guessed."""
    found = []

    def prepare(volume, network, options, clock, guess):
        found.append(guess)
        return SimpleNamespace(scale=guess)

    monkeypatch.setattr(common, "prepare", prepare)
    return found


def job_at(scale):
    return SimpleNamespace(scale=scale, volume=None, network=None, options=None)


def anew(edge, scale=COMMON, **more):
    return common.with_own_size(job_at(scale), squares(edge, **more), StageClock(Silent()))


@pytest.mark.parametrize("edge", [16, 20, 24])
def test_a_size_is_confirmed_by_cells_about_that_large(edge, guesses):
    assert anew(edge) is None
    assert not guesses


def test_larger_cells_give_their_size_in_steps_to_be_confirmed_in_turn(guesses):
    scale = anew(30).scale
    assert abs(np.log(scale.diameter_pixels / disc_of(30))) <= np.log(STEP) / 2 + 1e-3
    assert scale.to_confirm
    assert scale.cells == 9
    assert "9 cells that came out at the common size, 20" in scale.diameter_origin
    # Cells that are larger still are searched for: sizes do not go on growing.
    anew(60, scale)
    assert guesses[-1].diameter_pixels == pytest.approx(disc_of(60))
    assert not guesses[-1].to_confirm


def test_smaller_cells_are_searched_for_from_their_size(guesses):
    anew(12)
    (guess,) = guesses
    assert guess.diameter_pixels == pytest.approx(disc_of(12))
    assert not guess.to_confirm


def test_an_image_with_hardly_any_cells_is_searched_as_if_alone(monkeypatch):
    found = []

    def prepare(volume, network, options, clock, guess):
        found.append(guess)
        return SimpleNamespace(scale=CellScale(40.0, (1.0, 1.0, 1.0), "a default", ""))

    monkeypatch.setattr(common, "prepare", prepare)
    assert anew(60, count=2) is None  # nothing says another size
    assert found == [None]


def test_a_search_from_the_size_in_another_image_finds_this_one_with_fewer_looks(monkeypatch):
    y, x = np.mod(np.indices((200, 200)), 32) - 16
    image = 20 + 180 / (1 + np.exp(2 * (np.hypot(y, x) - 10)))
    image = np.random.default_rng(0).normal(image, 3).clip(0, 255).astype(np.uint8)
    volume, network = read(image), load(open_model("nuclei2d"), Options(), keep=1)
    looks, probe = [], search._probe

    def counted(*arguments):
        looks.append(arguments)
        return probe(*arguments)

    monkeypatch.setattr(search, "_probe", counted)
    needed = {}
    for near in (None, 20.0, 30.0, 12.0):
        looks.clear()
        found = common.own_diameter(volume, network, Options(), StageClock(Silent()), near)
        assert found == pytest.approx(20, rel=0.15)
        needed[near] = len(looks)
    assert needed[20.0] < needed[None]
