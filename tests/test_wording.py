"""Messages name options on the command line, parameters in Python, and count as people do."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import cellrt
from cellrt.errors import CellrtError, InputError
from cellrt.wording import counted, in_python

IMAGE = np.zeros((4, 2, 16, 16), np.uint8)


def test_one_is_no_plural():
    assert counted(1, "cell") == "1 cell"
    assert counted(0, "cell") == "0 cells"
    assert counted(2, "nucleus", "nuclei") == "2 nuclei"


def test_an_error_has_an_option_for_the_command_line_and_a_parameter_for_python():
    error = InputError("its --voxel-size is 0; run `cellrt doctor --json`")
    assert str(error) == "its voxel_size is 0; run `cellrt doctor --json`"
    assert error.message == "its --voxel-size is 0; run `cellrt doctor --json`"
    assert isinstance(error, CellrtError)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"halo": -1}, "halo is -1"),
        ({"diameter": float("nan")}, "diameter is nan"),
        ({"voxel_size": (0, 1, 1)}, "voxel_size is 0 1 1"),
        ({"voxel_size": 0.5}, "voxel_size is 0.5"),
        ({"axes": None}, "with axes"),
        ({"axes": "ZCYX"}, "channel 1 to channel 2"),
        ({"axes": "ZTYX"}, "time 1 to time 2"),
        ({"axes": "ZCYX", "channel": 3}, "has no channel"),
        ({"engine": "abacus"}, "no engine"),
        ({"tile": (0, 8, 8)}, "tile is 0 8 8"),
        ({"intensity": (9, 2)}, "intensity"),
    ],
)
def test_errors_of_the_python_interface_name_no_options(given, names):
    with pytest.raises(CellrtError) as raised:
        cellrt.segment(IMAGE, **given)
    assert names in str(raised.value)
    assert not re.search(r"(?<!\w)--?[a-z]", str(raised.value))


def test_warnings_and_progress_of_the_python_interface_name_no_options(capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rng = np.random.default_rng(0)
        image = rng.integers(0, 9, (8, 24, 24)).astype(np.uint8)
        result = cellrt.segment(image, progress=True)
    said = [str(warning.message) for warning in caught] + list(result.warnings)
    said += capfd.readouterr().err.splitlines()
    assert any("voxel_size" in line for line in said)
    assert not [line for line in said if re.search(r"(?<!\w)--[a-z]", line)]


def test_every_option_in_a_message_has_a_parameter():
    """What `in_python` makes of a message is a word that Python's functions have."""
    import inspect

    from cellrt.runtime.decoding.star.shapes import encode
    from cellrt.runtime.job import Options
    from cellrt.runtime.results.segmentation import Segmentation
    from cellrt.runtime.segment import segment

    functions = (segment, Options, encode, Segmentation.save)
    known = {name for of in functions for name in inspect.signature(of).parameters}
    runtime = Path(cellrt.__file__).parent / "runtime"
    # Said of `cellrt build` and its files, which Python does not have.
    known |= {
        "lean",
        "batch",
        "workspace",
        "target",
        "engine_file",
        "query_gpu",
        "query_compute_apps",
        "format",
    }
    for path in runtime.rglob("*.py"):
        text = re.sub(r"`[^`]*`", "", path.read_text(encoding="utf-8"))
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)):
            name = in_python(option).partition("=")[0]
            assert name in known, f"{path.name}: {option}"
