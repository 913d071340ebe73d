"""TensorRT without a driver that fits: an error that says what to do, in place of a crash."""

from __future__ import annotations

import sys
import types
from importlib import metadata

import pytest

from cellrt.errors import EngineError
from cellrt.runtime.machine import driver
from cellrt.runtime.network.engines.tensorrt import library as library_module
from cellrt.runtime.network.engines.tensorrt.build import Profile, build_engine
from cellrt.runtime.network.engines.tensorrt.library import (
    FLAVOURS,
    LEAN,
    TensorRT,
    open_library,
    open_runtime,
)
from cellrt.runtime.network.engines.tensorrt.session import TensorRTSession

INSUFFICIENT = "CUDA initialization failure with error: 35. Please check your CUDA installation"
CARD = "NVIDIA RTX 4000 Ada/8.9/48/20475"


class Logger:
    """As the library's: it has kinds of severity, and is called from within."""

    Severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def __init__(self):
        pass


class Runtime:
    """The lean runtime's after CUDA error 35: an object that crashes the process when used."""

    def __init__(self, logger):
        logger.log(1, INSUFFICIENT)

    def deserialize_cuda_engine(self, engine):
        pytest.fail("a segmentation fault")


def nullptr(logger):
    logger.log(1, INSUFFICIENT)
    raise TypeError("pybind11::init(): factory function returned nullptr")


def silent_nullptr(logger):
    raise TypeError("pybind11::init(): factory function returned nullptr")


def nothing(logger):
    return None


class Api(types.SimpleNamespace):
    """The library's module."""

    __hash__ = object.__hash__


def start(flavour, kind, call):
    return TensorRT(flavour, Api(ILogger=Logger, **{kind: call}), "11.4.0")


@pytest.mark.parametrize(
    ("call", "said"),
    [(nullptr, "error: 35"), (silent_nullptr, "returned nullptr"), (nothing, "does not say why")],
)
def test_a_builder_that_does_not_start_is_one_line(call, said):
    broken = start(FLAVOURS["tensorrt"], "Builder", call)
    with pytest.raises(EngineError, match=said) as raised:
        build_engine(broken, b"a graph", Profile((16, 24, 32)))
    assert "\n" not in str(raised.value)
    assert "tensorrt 11.4.0 does not start" in str(raised.value)


@pytest.mark.parametrize("call", [Runtime, nullptr, nothing])
def test_a_runtime_that_complained_is_not_used(call):
    gpu = types.SimpleNamespace(stream=object)
    with pytest.raises(EngineError, match="does not start"):
        TensorRTSession(start(LEAN, "Runtime", call), b"an engine", gpu, "fp32", "a card")


def test_building_ahead_of_time_needs_no_driver():
    def complains(logger):
        logger.log(1, INSUFFICIENT)
        return "a builder"

    assert start(FLAVOURS["tensorrt-rtx"], "Builder", complains).start("Builder") == "a builder"
    with pytest.raises(EngineError, match="does not start"):
        start(FLAVOURS["tensorrt"], "Builder", complains).start("Builder")


def test_the_real_library_starts_without_a_driver_for_what_needs_none():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is an extra")
    assert open_library("tensorrt-rtx").start("Builder") is not None


@pytest.fixture
def installed(monkeypatch):
    """Make packages look as if pip had installed them."""

    def install(*names):
        def version(name):
            if name not in names:
                raise metadata.PackageNotFoundError(name)
            return "1.0"

        monkeypatch.setattr(library_module.metadata, "version", version)

    return install


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_a_driver_too_old_for_the_library_is_named_with_the_package_that_fits(
    stub_driver, installed, monkeypatch, flavour
):
    installed(f"{flavour}-cu13-bindings")
    stub_driver.says(CUDA=12040, DRIVER="550.54", GPUS=CARD)
    library = TensorRT(FLAVOURS[flavour], None, "11.4.0")
    monkeypatch.setattr(library_module, "_open", lambda flavour: library)
    with pytest.raises(EngineError, match=r"CUDA 13 needs driver 580.*550\.54") as raised:
        open_runtime(flavour)
    assert f"pip install 'cellrt[cu12]' {flavour}-cu12" in raised.value.message
    assert f"pip uninstall -y {flavour} {flavour}-cu13" in raised.value.message
    assert open_library(flavour) is library  # which may build for other machines
    stub_driver.says(CUDA=13000, DRIVER="580.65", GPUS=CARD)
    assert open_runtime(flavour) is library
    installed(f"{flavour}-cu12-bindings")
    stub_driver.says(CUDA=12040, DRIVER="550.54", GPUS=CARD)
    assert open_runtime(flavour) is library
    stub_driver.says(CUDA=11080, DRIVER="470.1", GPUS=CARD)
    with pytest.raises(EngineError, match="CUDA 12 needs driver 525"):
        open_runtime(flavour)


def test_the_library_of_a_jetson_fits_the_driver_beside_it(stub_driver, installed, monkeypatch):
    installed("tensorrt")
    stub_driver.says(CUDA=12060, DRIVER="540.4", GPUS="Orin/8.7/16/62840")
    library = TensorRT(FLAVOURS["tensorrt"], None, "10.13.0")
    monkeypatch.setattr(library_module, "_open", lambda flavour: library)
    assert open_runtime("tensorrt") is library


@pytest.mark.parametrize(
    ("cuda", "jetson", "mends"),
    [
        (13000, False, r"`pip install 'cellrt\[tensorrt\]'`"),
        (12040, False, r"`pip install 'cellrt\[cu12\]' tensorrt-cu12`"),
        (12060, True, "--system-site-packages"),
    ],
)
def test_how_to_get_a_library_follows_from_the_machine(
    stub_driver, monkeypatch, tmp_path, cuda, jetson, mends
):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(driver, "_JETSON", tmp_path if jetson else tmp_path / "none")
    stub_driver.says(CUDA=cuda, GPUS=CARD)
    with pytest.raises(EngineError, match=mends):
        open_library("tensorrt")
