"""Quantiles that are counted are those that numpy sorts for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellrt.runtime.grid.quantiles import quantiles

shares = st.lists(st.floats(0, 1), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.float32, np.float64]
)
@given(data=st.data(), shares=shares)
def test_quantiles_are_numpys(dtype, data, shares):
    elements = {"allow_nan": False, "allow_infinity": False} if np.dtype(dtype).kind == "f" else {}
    if elements:
        elements |= {"min_value": -1e6, "max_value": 1e6}
    values = data.draw(
        arrays.arrays(dtype, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=elements)
    )
    found = quantiles(values, shares)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.quantile(values, shares), rtol=1e-12, atol=1e-9)


def test_ends_and_one_value():
    assert quantiles(np.array([7], np.uint16), [0, 0.3, 1]).tolist() == [7, 7, 7]
    assert quantiles(np.array([0, 65535], np.uint16), [0, 0.25, 1]).tolist() == [0, 16383.75, 65535]
