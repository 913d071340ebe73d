"""Arrays with axes, voxel size and channels: what is accepted, viewed and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrt.errors import InputError
from cellrt.runtime.image.axes import example_axes
from cellrt.runtime.image.choices import find_channel
from cellrt.runtime.image.stored import Stored
from cellrt.runtime.image.volume import describe, volume_from_array

LENGTHS = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}


@st.composite
def axis_orders(draw: st.DrawFn) -> str:
    optional = draw(st.sets(st.sampled_from("TCZ")))
    return "".join(draw(st.permutations(sorted(optional | {"Y", "X"}))))


@given(letters=axis_orders(), time=st.integers(1, 2), channel=st.integers(1, 3))
def test_any_order_of_axes_is_viewed_as_czyx(letters: str, time: int, channel: int) -> None:
    shape = tuple(LENGTHS[letter] for letter in letters)
    array = np.arange(np.prod(shape)).reshape(shape)
    volume = volume_from_array(
        array,
        axes=letters,
        time=time if "T" in letters else None,
        channel=channel if "C" in letters else None,
    )
    # The same by naming every index.
    full = np.einsum(f"{letters.lower()}->{''.join(sorted(letters.lower()))}", array)
    ordered = sorted(letters)
    for letter in "CTXYZ":
        if letter not in ordered:
            full = np.expand_dims(full, "CTXYZ".index(letter))
    expected = full[:, time - 1 if "T" in letters else 0].transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(np.stack([source[:] for source in volume.channels]), expected)
    np.testing.assert_array_equal(volume.image[:], expected[channel - 1 if "C" in letters else 0])
    assert np.shares_memory(volume.image[:], array)
    assert volume.file_axes == letters


def test_two_and_three_dimensions_need_no_axes() -> None:
    assert volume_from_array(np.zeros((5, 6))).shape == (1, 5, 6)
    volume = volume_from_array(np.zeros((2, 5, 6)))
    assert volume.shape == (2, 5, 6)
    assert volume.axes_source.origin == "assumed"
    assert str(volume.voxel_size_source).startswith("unknown")
    assert volume.path is None


def test_boolean_arrays_become_numbers_without_a_copy() -> None:
    mask = np.eye(5, dtype=bool)
    volume = volume_from_array(mask)
    assert volume.dtype == np.uint8
    assert np.shares_memory(volume.image[:], mask)


def test_full_voxel_size_ignores_z_of_one_slice() -> None:
    stack, image = np.zeros((3, 5, 6)), np.zeros((5, 6))
    assert volume_from_array(stack).full_voxel_size_um is None
    assert volume_from_array(stack, voxel_size_um=(2, 1, 0.5)).full_voxel_size_um == (2, 1, 0.5)
    assert volume_from_array(image, voxel_size_um=(2, 1, 0.5)).full_voxel_size_um == (2, 1, 0.5)


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (np.zeros(5), {}, "has 1 dimension "),
        (np.zeros(()), {}, "has 0 dimensions"),
        (np.zeros((1,) * 6), {}, "has 6 dimensions"),
        (np.zeros((2, 3, 4, 5)), {}, "axes CZYX"),
        (np.zeros((4, 3, 2, 5, 6)), {}, "axes ZTCYX"),
        (np.zeros((0, 5, 6)), {}, "no voxels"),
        (np.zeros((5, 0)), {}, "no voxels"),
        (np.zeros((3, 5, 6), complex), {}, "complex"),
        (np.full((3, 5, 6), "a"), {}, "expected numbers"),
        (np.zeros((3, 5, 6), object), {}, "expected numbers"),
        (np.zeros((2, 3, 5, 6)), {"axes": "CZYX"}, "channel 1 to channel 2"),
        (np.zeros((2, 3, 5, 6)), {"axes": "TZYX"}, "time 1 to time 2"),
        (np.zeros((3, 5, 6)), {"axes": "YX"}, "name one letter per dimension"),
        (np.zeros((3, 5, 6)), {"channel": 2}, "no channel 2"),
        (np.zeros((3, 5, 6)), {"time": 2}, "no time point 2"),
        (np.full((3, 5, 6), np.nan), {}, "90 of 90 voxels are NaN or infinite"),
    ],
)
def test_refused_with_one_line(array: np.ndarray, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        volume_from_array(array, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nonfinite_voxels_of_other_channels_are_let_pass() -> None:
    array = np.zeros((2, 3, 5, 6))
    array[1] = np.nan
    assert volume_from_array(array, axes="CZYX", channel=1).segmented_channel == 0


def test_a_channel_may_be_named_like_a_number() -> None:
    names = ("488", "561", "2")
    assert find_channel("561", names, "a") == 1
    assert find_channel(561, names, "a") == 1
    # What counts a channel is its number, as the error about many channels says.
    assert find_channel("2", names, "a") == 1
    assert find_channel(2, names, "a") == 1
    assert find_channel("1", names, "a") == 0
    assert find_channel("2", ("0", "1"), "a") == 1
    assert find_channel("0", ("0", "1"), "a") == 0
    with pytest.raises(InputError, match="no channel '640'"):
        find_channel("640", names, "a")


@pytest.mark.parametrize(
    ("typed", "names", "words", "warned"),
    [
        ("1", ("2", "1"), "channel 1 of 2, called '2', chosen by number", "give --channel 2"),
        ("01", ("2", "01"), "channel 1 of 2, called '2', chosen by number", "give --channel 2"),
        (" 2", ("2", "1"), "channel 2 of 2, called '1', chosen by number", "called '2'"),
        (1, ("2", "1"), "channel 1 of 2, called '2', chosen by number", ""),
        ("1", ("1", "2"), "channel 1 of 2, called '1', chosen by number", ""),
        ("561", ("2", "561"), "channel 2 of 2, called '561', chosen by name", ""),
        (2, None, "channel 2 of 2, chosen by number", ""),
    ],
)
def test_how_a_channel_was_chosen_is_said(typed, names, words, warned) -> None:
    array = np.zeros((2, 3, 5, 6), np.uint8)
    stored = Stored(array, axes="CZYX", channel_names=names)
    volume = describe(stored, channel=typed)
    assert volume.channel_source.text == words
    assert len(volume.warnings) == bool(warned)
    assert warned in "".join(volume.warnings)


def test_channels_of_one_name_are_told_apart_by_number() -> None:
    names = ("GFP", "DAPI", "GFP", "gfp")
    with pytest.raises(InputError, match=r"channels 1 and 3 are both called 'GFP'"):
        find_channel("GFP", names, "a")
    assert find_channel("dapi", names, "a") == 1
    assert find_channel("gfp", names, "a") == 3
    assert find_channel("3", names, "a") == 2


@given(shape=st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_axes_given_as_an_example_fit_the_shape(shape: list[int]) -> None:
    letters = example_axes(tuple(shape))
    assert len(letters) == len(shape)
    lengths = dict(zip(letters, shape, strict=True))
    channel = 1 if "C" in lengths else None
    time = 1 if "T" in lengths else None
    volume = volume_from_array(np.zeros(shape), axes=letters, channel=channel, time=time)
    assert volume.shape == (lengths.get("Z", 1), lengths["Y"], lengths["X"])


@pytest.mark.parametrize(
    ("in_file", "given", "warned"),
    [
        ("ZYX", "YZX", True),
        ("ZYX", "ZXY", True),
        ("ZYX", "ZYX", False),
        ("TYX", "ZYX", False),  # time points that are slices
        ("QYX", "ZYX", False),
        ("CZYX", "TZYX", False),
    ],
)
def test_axes_that_turn_what_the_file_says_are_a_warning(
    in_file: str, given: str, warned: bool
) -> None:
    stored = Stored(np.zeros([LENGTHS.get(n, 4) for n in in_file], np.uint8), in_file, "test")
    volume = describe(stored, axes=given, time=1 if "T" in given else None)
    assert [f"file says {in_file}" in text for text in volume.warnings] == [True] * warned


def test_a_mask_of_numpy_is_not_ignored() -> None:
    image = np.ma.array(np.ones((4, 8, 8)), mask=np.zeros((4, 8, 8), bool))
    assert volume_from_array(image).shape == (4, 8, 8)  # nothing is masked
    image[:, :, :2] = np.ma.masked
    with pytest.raises(InputError, match=r"64 of 256 voxels are masked.*filled\(0\)"):
        volume_from_array(image)
