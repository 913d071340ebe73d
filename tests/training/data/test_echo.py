"""Batches that are seen more than once."""

from __future__ import annotations

from collections import Counter
from itertools import count, islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.training.data.echo import Echo


@given(st.integers(0, 200), st.integers(1, 4), st.integers(0, 9))
def test_each_batch_comes_as_often_as_asked(length, uses, seed):
    seen = list(Echo(range(length), uses, (seed,)))
    assert Counter(seen) == dict.fromkeys(range(length), uses)


def test_once_is_as_they_come():
    assert list(Echo(range(100), 1, (0,))) == list(range(100))


def test_the_first_step_waits_for_one_batch_and_nothing_is_made_before_it_is_needed():
    made = []

    def batches():
        for number in count():
            made.append(number)
            yield number

    steps = iter(Echo(batches(), 3, (0,)))
    next(steps)
    assert made == [0]
    list(islice(steps, 3000))
    assert 1000 < len(made) < 1060  # a third of the steps, and what is held


@pytest.mark.parametrize("uses", [2, 3])
def test_the_uses_of_a_batch_lie_apart(uses):
    places = {}
    for place, batch in enumerate(Echo(range(1000), uses, (0,))):
        places.setdefault(batch, []).append(place)
    later = [b - a for batch in range(200, 800) for a, b in pairwise(places[batch])]
    assert sorted(later)[len(later) // 2] > 20


def test_the_order_is_the_seeds():
    first, again, other = (list(Echo(range(300), 2, (seed,))) for seed in (1, 1, 2))
    assert first == again != other
