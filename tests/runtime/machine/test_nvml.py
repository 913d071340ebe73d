"""What is asked of NVML, of a stand-in for it; and what is said where it does not tell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellrt.runtime.machine import nvml
from cellrt.runtime.machine.driver import bus_id
from cellrt.runtime.machine.nvml import management

CARD = "NVIDIA RTX 4000 Ada/8.9/48/20475"
ON_LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="lists processes in /proc")


@ON_LINUX
@pytest.mark.parametrize(("held", "expected"), [("20", 120 * 2**20), ("0", 100 * 2**20)])
def test_the_memory_of_a_process_is_that_on_all_gpus_that_tell(stub_driver, held, expected):
    stub_driver.says(DRIVER="580.95", HELD=held)
    with management() as library:
        assert library.memory_of(os.getpid()) == expected
        assert library.memory_of(2**31) is None  # no such process: as in a container


def test_memory_that_no_gpu_tells_is_left_out(stub_driver):
    stub_driver.says(DRIVER="580.95")
    with management() as library:
        assert library.memory_of(os.getpid()) is None


def test_a_gpu_is_found_by_its_place_and_not_by_its_number(stub_driver):
    stub_driver.says(CUDA=13000, GPUS=f"{CARD};{CARD}", DRIVER="580.95", WATTS="70")
    assert bus_id(1) == "0000:02:00.0"
    with management() as library:
        assert library.gpu(bus_id(1)).value == 2
        assert library.watts(library.gpu(bus_id(0))) == 70
        with pytest.raises(OSError, match="NVML says: Unknown Error"):
            library.gpu("nowhere")


def test_what_is_missing_is_said_with_what_to_do(stub_driver, monkeypatch):
    stub_driver.says()
    with pytest.raises(OSError, match="NVML says"), management():
        pass
    monkeypatch.setattr(nvml, "LIBRARY", str(stub_driver.folder / "libcuda.so.1"))
    with pytest.raises(OSError, match="too old for nvmlInit_v2"), management():
        pass
    monkeypatch.setattr(nvml, "LIBRARY", "libno-such-thing.so")
    with pytest.raises(OSError, match="NVIDIA_DRIVER_CAPABILITIES=compute,utility"), management():
        pass
