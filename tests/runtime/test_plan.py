"""The plan: memory that grows with the stack as promised, and a refusal in time."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cellrt
from cellrt.errors import InputError, ResourceError, UsageError
from cellrt.limits import Memory
from cellrt.runtime import plan as plans
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.job import Options
from cellrt.runtime.model.file import bundled_models, open_model
from cellrt.runtime.network.engines.openvino import has_bf16
from cellrt.runtime.network.merge import merge_values
from cellrt.runtime.network.tiles import plan_tiles
from cellrt.runtime.plan import TILE_VOXELS, check_halo, make_plan
from cellrt.runtime.preparation import load

CARD = open_model("nuclei").card
DECODER = decoder_for(CARD)
edges, single = st.integers(16, 600), st.integers(16, 6000)


@given(shape=st.tuples(edges, edges, edges))
def test_planned_memory_keeps_the_promise_for_16_bit_stacks(shape):
    voxels = int(np.prod(shape))
    plan = make_plan(shape, shape, CARD, DECODER, image_bytes=2 * voxels)
    assert plan.memory_bytes <= 16 * voxels + 1e9
    assert plan.overhead >= 1


@given(
    shape=st.tuples(edges, edges, edges) | st.tuples(st.just(1), single, single),
    name=st.sampled_from(sorted(bundled_models())),
    tile_bytes=st.sampled_from([None, 128, 320, 448, 1472]),
)
@example(shape=(129, 129, 465), name="membranes-3dcellseg", tile_bytes=None)
@example(shape=(1, 1318, 4887), name="cells2d-harmonic", tile_bytes=None)
def test_engines_keep_the_promise_in_smaller_tiles_where_they_take_more(shape, name, tile_bytes):
    card, voxels = open_model(name).card, int(np.prod(shape))
    decoder = decoder_for(card)
    usual, other = (
        make_plan(shape, shape, card, decoder, image_bytes=2 * voxels, tile_bytes=each)
        for each in (256, tile_bytes)
    )
    assert other.memory_bytes <= decoder.promised_bytes * voxels + 1e9
    if tile_bytes == 128:
        assert other.overhead <= usual.overhead
    elif tile_bytes:
        assert np.prod(other.grid.tile) <= np.prod(usual.grid.tile)


def test_a_halo_without_room_in_small_tiles_gets_the_smallest_in_which_it_has():
    shape = (512, 512, 512)
    plan = make_plan(shape, shape, CARD, DECODER, image_bytes=0, halo=44, tile_bytes=1472)
    assert 900_000 < np.prod(plan.grid.tile) <= 1_200_000
    # What does not help is not tried: here the image itself leaves no room.
    large = make_plan(shape, shape, CARD, DECODER, image_bytes=16 * 512**3)
    assert np.prod(large.grid.tile) > 1_000_000


def test_what_an_engine_takes_follows_from_how_it_computes():
    def takes(engine, name="nuclei", precision="fp32"):
        return load(open_model(name), Options(engine=engine, precision=precision)).tile_bytes

    assert takes("openvino") == CARD.activation_bytes + 64
    assert takes("openvino", "nuclei-harmonicnet") == 128 + 64
    if has_bf16():
        assert takes("openvino", precision="bf16") == CARD.activation_bytes / 2 + 64
        assert takes("openvino", precision="auto") == CARD.activation_bytes / 2 + 64
    pytest.importorskip("onnxruntime")
    # It unfolds transposed convolutions, of which those of 3DCellSeg are wide.
    assert takes("onnxruntime") == CARD.activation_bytes + 64 + 64
    assert takes("onnxruntime", "membranes-3dcellseg") == 384 + 64 + 1024


def test_more_voxels_than_int32_counts_are_refused_before_anything_is_computed():
    shape = (2048, 1024, 1025)
    with pytest.raises(InputError, match=r"2,149,580,800 voxels.*cut the stack into blocks"):
        make_plan(shape, shape, CARD, DECODER, image_bytes=0)
    make_plan(shape, (1024, 512, 512), CARD, DECODER, image_bytes=0)


def test_a_grid_that_is_too_large_says_where_it_comes_from(monkeypatch):
    image = np.zeros((24, 64, 64), np.uint8)
    image[:, ::2] = 9
    with pytest.raises(InputError, match=r"50 µm per pixel.*check voxel_size 50 50 50"):
        cellrt.segment(image, voxel_size=(50, 50, 50))
    with pytest.raises(InputError, match=r"spacing z:y:x 100:1:1 .anisotropy given by the user"):
        cellrt.segment(image, diameter=1, anisotropy=100)
    monkeypatch.setattr(plans, "free_memory", lambda: Memory(10**8, 2 * 10**8, "SLURM"))
    with pytest.raises(ResourceError, match=r"4 µm per pixel.*check voxel_size 4 4 4"):
        cellrt.segment(image, voxel_size=(4, 4, 4))


def test_channels_that_are_not_merged_take_no_memory_of_the_merge():
    class OneOfFour:
        merging, merged = "per tile", slice(3, 4)
        kept_bytes, working_bytes, promised_bytes = 4, 4, 16

    shape = (256, 512, 512)
    grid = make_plan(shape, shape, CARD, DECODER, image_bytes=0).grid
    one, all_four = (
        plans._working_bytes(shape, grid, d, CARD, True, 360) for d in (OneOfFour(), DECODER)
    )
    assert all_four - one == 3 * 4 * sum(merge_values(grid))


def test_a_gpu_takes_larger_tiles_whose_activations_are_not_in_the_hosts_memory(monkeypatch):
    shape = (512, 512, 512)
    host, gpu = (
        make_plan(shape, shape, CARD, DECODER, image_bytes=2 * 512**3, device_voxels=voxels)
        for voxels in (None, 1 << 23)
    )
    assert host.overhead > 1.6
    assert gpu.overhead < 1.45
    assert gpu.memory_bytes <= host.memory_bytes
    assert len(gpu.grid.axes[0].starts) >= len(gpu.grid.axes[2].starts)  # for several to share
    # Where the host has too little memory, a tile that nobody asked for is not to blame.
    monkeypatch.setattr(plans, "free_memory", lambda: Memory(10**9, 2 * 10**9, "SLURM"))
    with pytest.raises(ResourceError, match="this stack needs about"):
        gpu.check_memory()
    # Also where a small GPU has no room for large ones.
    small = make_plan(shape, shape, CARD, DECODER, image_bytes=0, device_voxels=1_200_000)
    assert np.prod(small.grid.tile) <= 1_200_000


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


@pytest.mark.parametrize("tile", [None, (64, 96, 96)])
def test_a_halo_without_room_is_refused_with_the_largest(tile):
    card = cellrt.load_model("nuclei").card
    with pytest.raises(UsageError, match=r"expected at most (\d+) for .*model asks for") as caught:
        check_halo(100_000, card, tile)
    most = int(re.search(r"at most (\d+)", str(caught.value))[1])
    check_halo(most, card, tile)
    with pytest.raises(UsageError):
        check_halo(most + 1, card, tile)
    # What is largest can be used, on the stack for which it is.
    shape = (256, 256, 256) if tile else (8, 2000, 2000)
    plan_tiles(shape, halo=most, tile=tile and (96, 96, 96), max_voxels=TILE_VOXELS[0])


def test_a_halo_is_refused_before_the_image_is_looked_at():
    with pytest.raises(UsageError, match="halo is 100000"):
        cellrt.Segmenter("nuclei", halo=100_000)


@given(st.tuples(*[st.integers(1, 2000)] * 3), st.integers(0, 400))
@settings(max_examples=30)
def test_the_halo_that_is_advised_can_be_had(shape, halo):
    try:
        plan_tiles(shape, halo=halo)
    except UsageError as error:
        most = int(re.search(r"halo of at most (\d+)", str(error))[1])
        plan_tiles(shape, halo=most)
        with pytest.raises(UsageError):
            plan_tiles(shape, halo=most + 1)


def test_a_tile_that_no_memory_holds_is_named():
    with pytest.raises(ResourceError, match="tile 8000 8000 8000"):
        cellrt.segment(np.ones((8, 16, 16)) * np.arange(16), diameter=16, tile=(8000,) * 3)
