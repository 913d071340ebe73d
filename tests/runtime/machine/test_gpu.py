"""What keeps numba from compiling for a GPU is found before anything is compiled."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from cellrt.errors import EngineError
from cellrt.runtime.machine import gpu
from cellrt.runtime.machine.gpu import kernel_trouble, open_device

CARD = "NVIDIA RTX A4000/8.6/48/16376"


@pytest.fixture
def bindings(monkeypatch):
    """Make cuda-bindings look as if pip had installed a version of it, or none."""

    def install(number):
        def version(name):
            if number is None:
                raise metadata.PackageNotFoundError(name)
            return number

        monkeypatch.setattr(gpu.metadata, "version", version)

    return install


@pytest.mark.parametrize("version", ["2.5.0", "2.5.5", "2.6.0rc1", "3.0.0"])
def test_a_numpy_that_numba_cuda_cannot_use_is_refused_with_what_to_install(
    stub_driver, bindings, monkeypatch, version
):
    stub_driver.says(CUDA=13000, GPUS=CARD)
    bindings("13.5.0")
    monkeypatch.setattr(np, "__version__", version)
    with pytest.raises(EngineError, match=r"numpy .*run `pip install 'numpy<2\.5'`"):
        open_device()


@pytest.mark.parametrize("version", ["1.26.4", "2.4.6"])
def test_a_numpy_that_works_is_taken(stub_driver, bindings, monkeypatch, version):
    stub_driver.says(CUDA=13000, GPUS=CARD)
    bindings("13.5.0")
    monkeypatch.setattr(np, "__version__", version)
    assert kernel_trouble() == ""


@pytest.mark.parametrize(
    ("cuda", "installed", "mends"),
    [
        (12060, "13.5.0", r"driver 580.*pip install 'cellrt\[cu12\]'"),
        (12060, None, r"not installed.*pip install 'cellrt\[cu12\]'"),
        (13000, None, r"not installed.*pip install 'cellrt\[cu13\]'"),
        (11040, "12.9.10", "CUDA 12 needs driver 525"),
    ],
)
def test_the_cuda_of_the_kernels_follows_the_driver(stub_driver, bindings, cuda, installed, mends):
    stub_driver.says(CUDA=cuda, DRIVER="1.0", GPUS=CARD)
    bindings(installed)
    with pytest.raises(EngineError, match=mends):
        open_device()
