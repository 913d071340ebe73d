"""Parameters by name: of the right type and range, and one line where they are not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cellrt
from cellrt.errors import InputError, UsageError
from cellrt.runtime.decoding.parameters import (
    descriptions,
    parameter_lines,
    split_settings,
    with_values,
)
from cellrt.runtime.decoding.registry import decoder_for


@dataclass(frozen=True)
class Parameters:
    radius: float = 2.0
    rays: int = 96
    overlaps: bool = False
    target: Literal["tanh", "heat"] = "tanh"
    sizes: tuple[float, float] = (5.0, 100.0)
    note: str = ""

    def __post_init__(self):
        if self.radius < 0:
            raise InputError(f"radius is {self.radius}; expected a number of at least 0")


def changed(**values):
    return with_values(Parameters(), values, "toy")


@given(
    parameters=st.builds(
        Parameters,
        radius=st.floats(0, 1e9),
        rays=st.integers(-(10**6), 10**6),
        overlaps=st.booleans(),
        target=st.sampled_from(["tanh", "heat"]),
        sizes=st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)),
        note=st.text("abc =,"),
    )
)
def test_what_is_listed_can_be_given_as_a_value_or_as_text(parameters):
    values = dataclasses.asdict(parameters)
    assert changed(**values) == parameters
    texts = [line.rpartition("  (")[0] for line in parameter_lines(parameters)]
    words = split_settings(texts, parameters)
    assert changed(**words | {"note": values["note"]}) == parameters


def test_numbers_of_other_kinds_and_lists_of_json_are_taken():
    found = changed(radius=4, rays=np.int64(32), sizes=[1, 2], overlaps="Yes")
    assert found == Parameters(4.0, 32, True, "tanh", (1.0, 2.0))
    assert (type(found.radius), type(found.rays)) == (float, int)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("radius", "far", "expected a number"),
        ("radius", True, "expected a number"),
        ("radius", None, "expected a number"),
        ("radius", -1, "radius is -1.0; expected a number of at least 0"),
        ("rays", "2.5", "expected a whole number"),
        ("rays", float("inf"), "expected a whole number"),
        ("overlaps", "perhaps", "expected yes or no"),
        ("target", "centroid", "expected one of tanh, heat"),
        ("sizes", "5", "expected 2 values with commas between them"),
        ("sizes", (1, 2, 3), "expected 2 values"),
        ("sizes", "1,x", "expected 2 values"),
        ("note", 5, "expected a word"),
        ("ray", 5, "target, sizes, note; did you mean rays?"),
        ("xyz", 5, "no parameter 'xyz'; it has radius"),
    ],
)
def test_what_does_not_fit_is_wrong_usage_in_one_line(name, value, words):
    with pytest.raises(UsageError) as error:
        changed(**{name: value})
    assert words in str(error.value)
    assert "toy" in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_are_names_and_values():
    assert split_settings(["a=1", " min-area = 2 ", "c=x=y"], Parameters()) == {
        "a": "1",
        "min_area": "2",
        "c": "x=y",
    }
    for texts in (["a"], ["=3"], ["a=1", "a=2"]):
        with pytest.raises(UsageError):
            split_settings(texts, Parameters())


@pytest.mark.parametrize(
    ("text", "example"), [("list", "radius="), ("rays", "rays="), ("sizes", "sizes=")]
)
def test_what_is_no_setting_is_answered_with_one_of_the_decoders_own(text, example):
    with pytest.raises(UsageError) as error:
        split_settings([text], Parameters())
    assert f"such as --param {example}" in error.value.message
    assert "`cellrt segment --param help`" in error.value.message


@dataclasses.dataclass(frozen=True)
class Explained:
    """Something.

    Attributes
    ----------
    near, far : float
        Distances, see :mod:`cellrt`. A second sentence.

    width : int
        As wide as
        a cell; at most 5.

    Raises
    ------
    InputError
        Never.
    """

    near: float = 1.0
    far: float = 2.0
    width: int = 3
    silent: int = 4


@dataclasses.dataclass(frozen=True)
class More(Explained):
    """More.

    Parameters
    ----------
    more
        What is more.
    """

    more: int = 5


def test_each_parameter_is_explained_by_its_docstring():
    assert parameter_lines(More()) == [
        "near=1.0  (a number)",
        "    Distances, see `cellrt`",
        "far=2.0  (a number)",
        "    Distances, see `cellrt`",
        "width=3  (a whole number)",
        "    As wide as a cell; at most 5",
        "silent=4  (a whole number)",
        "more=5  (a whole number)",
        "    What is more",
    ]


def test_without_docstrings_the_values_are_listed(monkeypatch):
    for one in (Explained, More):
        monkeypatch.setattr(one, "__doc__", None)
    assert parameter_lines(Explained()) == [
        "near=1.0  (a number)",
        "far=2.0  (a number)",
        "width=3  (a whole number)",
        "silent=4  (a whole number)",
    ]


@pytest.mark.parametrize(
    ("model", "names"),
    [("nuclei", ["flows"]), ("membranes-3dcellseg", ["tascan", "watershed", "dbscan"])],
)
def test_no_parameter_of_a_decoder_is_without_explanation(model, names):
    for name in names:
        parameters = type(decoder_for(cellrt.load_model(model).card, name).parameters)
        assert set(descriptions(parameters)) == {f.name for f in dataclasses.fields(parameters)}
