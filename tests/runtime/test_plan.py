"""The plan: memory that grows with the stack as promised, and a refusal in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.errors import InputError, ResourceError
from cellrt.limits import Memory
from cellrt.runtime import plan as plans
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.model.file import open_model
from cellrt.runtime.plan import make_plan

CARD = open_model("nuclei").card
DECODER = decoder_for(CARD)
edges = st.integers(16, 600)


@given(shape=st.tuples(edges, edges, edges))
def test_planned_memory_keeps_the_promise_for_16_bit_stacks(shape):
    voxels = int(np.prod(shape))
    plan = make_plan(shape, shape, CARD, DECODER, image_bytes=2 * voxels)
    assert plan.memory_bytes <= 16 * voxels + 1e9
    assert plan.overhead >= 1


def test_more_voxels_than_int32_counts_are_refused_before_anything_is_computed():
    shape = (2048, 1024, 1025)
    with pytest.raises(InputError, match=r"2,149,580,800 voxels.*cut the stack into blocks"):
        make_plan(shape, shape, CARD, DECODER, image_bytes=0)
    make_plan(shape, (1024, 512, 512), CARD, DECODER, image_bytes=0)


def test_channels_that_are_not_merged_take_no_memory_of_the_merge():
    class OneOfFour:
        merging, merged = "per tile", slice(3, 4)
        kept_bytes, working_bytes, promised_bytes = 4, 4, 16

    shape = (256, 512, 512)
    grid = make_plan(shape, shape, CARD, DECODER, image_bytes=0).grid
    one, all_four = (plans._working_bytes(shape, grid, d, CARD) for d in (OneOfFour(), DECODER))
    assert all_four - one == 3 * plans._buffer_bytes(grid)


def test_a_plan_that_does_not_fit_is_refused_with_both_numbers(monkeypatch):
    plan = make_plan((512, 512, 512), (512, 512, 512), CARD, DECODER, image_bytes=2 * 512**3)
    monkeypatch.setattr(plans, "free_memory", lambda: Memory(10**9, 2 * 10**9, "SLURM"))
    with pytest.raises(
        ResourceError, match=r"\d\.\d GB of memory and 1\.0 of 2\.0 GB are free \(SLURM\)"
    ):
        plan.check_memory()
    monkeypatch.setattr(plans, "free_memory", lambda: Memory(10**12, 10**12, "the machine"))
    plan.check_memory()


def test_how_a_file_is_stored_changes_the_memory_but_not_the_tiles():
    voxels = 400**3
    plans_ = [
        make_plan(
            (400,) * 3, (400,) * 3, CARD, DECODER, image_bytes=2 * voxels, resident_bytes=resident
        )
        for resident in (None, 2 * voxels, 0)
    ]
    assert len({plan.grid.tile for plan in plans_}) == 1
    assert plans_[0] == plans_[1]
    assert plans_[1].memory_bytes - plans_[2].memory_bytes == 2 * voxels
