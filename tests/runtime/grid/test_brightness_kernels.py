from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.runtime.grid.brightness_kernels import quantile


@given(
    st.lists(st.integers(-4, 4) | st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
)
def test_a_quantile_lies_between_its_neighbours_in_order(values: list[float], share: float) -> None:
    array = np.array(values, np.float32)
    after = np.append(array, np.float32(-1e9))  # is not looked at
    found = quantile(after, len(array), share)
    assert found == pytest.approx(np.quantile(array.astype(float), share), rel=1e-6, abs=1e-6)
    np.testing.assert_array_equal(np.sort(after[:-1]), np.sort(array))
