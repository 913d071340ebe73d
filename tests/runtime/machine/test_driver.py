"""The driver of NVIDIA: which GPUs there are, which CUDA they run, and what is wrong with them."""

from __future__ import annotations

import pytest

from cellrt.runtime.machine import driver
from cellrt.runtime.machine.driver import Driver, Gpu, nvidia_driver, nvidia_gpus

ADA = "NVIDIA RTX 4000 Ada/8.9/48/20475"
ORIN = "Orin/8.7/16/62840"


def test_gpus_are_found_without_nvidia_smi(stub_driver, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    stub_driver.says(CUDA=13000, DRIVER="580.65.06", GPUS=f"{ADA};{ORIN}")
    gpus, reason = nvidia_gpus()
    assert reason == ""
    assert gpus == (
        Gpu("NVIDIA RTX 4000 Ada", "20475 MiB", "580.65.06", "8.9", 48),
        Gpu("Orin", "62840 MiB", "580.65.06", "8.7", 16),
    )
    assert str(gpus[0]) == (
        "NVIDIA RTX 4000 Ada, 20475 MiB, driver 580.65.06, compute capability 8.9"
    )
    assert nvidia_driver().cuda == (13, 0)


def test_a_container_without_nvml_names_the_driver_by_the_kernel_or_by_its_cuda(
    stub_driver, monkeypatch, tmp_path
):
    stub_driver.says(CUDA=12060, GPUS=ORIN, INTEGRATED=1)
    monkeypatch.setattr(driver, "_KERNEL_MODULE", tmp_path / "version")
    (gpu,) = nvidia_driver().gpus
    assert (gpu.driver, gpu.integrated) == ("for CUDA 12.6", True)
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n"
        "GCC version:  gcc version 11.4.0\n"
    )
    stub_driver.says(CUDA=12060, GPUS=ORIN)
    assert nvidia_driver().version == "540.4.0"


@pytest.mark.parametrize(
    ("code", "said", "mends"),
    [
        (100, "finds no GPU", "--gpus all"),
        (34, "stub", "LD_LIBRARY_PATH"),
        (101, "CUDA_VISIBLE_DEVICES", "nvidia-smi -L"),
        (803, "different versions", "restart"),
        (804, "cuda-compat", "update the driver"),
        (802, "not ready", "nvidia-fabricmanager"),
        (999, "does not know", "nvidia_uvm"),
        (7, "CUDA_ERROR_STUB (7)", "driver 580"),
    ],
)
def test_a_driver_that_does_not_start_says_why_and_what_mends_it(stub_driver, code, said, mends):
    stub_driver.says(CUDA=13000, DRIVER="580.65", cuInit=code, GPUS=ADA)
    found = nvidia_driver()
    assert found.gpus == ()
    assert said in found.problem
    assert mends in found.remedy
    gpus, reason = nvidia_gpus()
    assert gpus == ()
    assert said in reason
    assert mends in reason


def test_a_driver_without_gpus_is_no_driver_to_use(stub_driver):
    stub_driver.says(CUDA=13000, DRIVER="580.65")
    assert "finds no GPU" in nvidia_driver().problem


def test_a_container_for_nvidia_smi_alone_is_told_from_a_machine_without_a_gpu(
    stub_driver, monkeypatch, tmp_path
):
    monkeypatch.setattr(driver, "_LIBRARY", "libcuda-that-is-not-there.so.1")
    stub_driver.says(DRIVER="580.65")
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in nvidia_driver().remedy
    monkeypatch.setattr(driver, "_KERNEL_MODULE", tmp_path / "none")
    monkeypatch.setattr(driver, "_PCI", tmp_path)
    stub_driver.says()
    assert nvidia_driver() == Driver(problem="no NVIDIA driver found")
    card = tmp_path / "0000:01:00.0"
    card.mkdir()
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030000\n")
    stub_driver.says()
    assert "driver 580" in nvidia_driver().remedy
    (card / "class").write_text("0x040300\n")  # the sound of a card that was given away
    stub_driver.says()
    assert nvidia_driver().remedy == ""


def test_a_library_that_is_no_driver_is_said_to_be_none(stub_driver, monkeypatch):
    monkeypatch.setattr(driver, "_LIBRARY", str(stub_driver.folder / "libnvidia-ml.so.1"))
    stub_driver.says(DRIVER="580.65")
    assert "is no driver of NVIDIA" in nvidia_driver().problem


@pytest.mark.parametrize(
    ("cuda", "capability", "extra"),
    [
        ((13, 0), "8.9", "cu13"),
        ((13, 2), "12.0", "cu13"),
        ((12, 6), "8.7", "cu12"),
        ((12, 0), "8.6", "cu12"),
        ((13, 0), "7.0", "cu12"),  # whose compilers CUDA 13 has left out
        ((13, 0), "6.1", "cu12"),
        ((11, 8), "8.6", ""),
        ((13, 0), "3.5", ""),
    ],
)
def test_the_extra_follows_from_driver_and_gpu(cuda, capability, extra):
    found = Driver("1.0", cuda, (Gpu("a card", "8 GiB", "1.0", capability),))
    assert found.extra == extra
    for major in (12, 13):
        misfit = found.misfit(major)
        assert bool(misfit) == (extra == "" or int(extra[2:]) < major), misfit
        if misfit and extra:
            assert f"pip install 'cellrt[{extra}]'" in misfit


def test_which_driver_a_cuda_needs_is_said():
    card = (Gpu("a card", "8 GiB", "470.1", "8.6"),)
    assert "CUDA 13 needs driver 580" in Driver("550.1", (12, 4), card).misfit(13)
    assert "driver 550.1 for CUDA 12.4" in Driver("550.1", (12, 4), card).misfit(13)
    assert "CUDA 12 needs driver 525" in Driver("470.1", (11, 4), card).misfit(12)
    assert Driver(problem="no NVIDIA driver found").misfit(13) == ""


def test_free_memory_is_that_of_the_driver_or_an_error_with_what_to_do(stub_driver):
    stub_driver.says(CUDA=13000, GPUS=ADA, FREE_MIB=512)
    assert driver.free_memory_bytes() == 512 << 20
    stub_driver.says(CUDA=13000, GPUS=ADA, cuDevicePrimaryCtxRetain=2)
    with pytest.raises(OSError, match=r"memory is full.*close other programs"):
        driver.free_memory_bytes()
