"""Seeds for all tests, and a stand-in for NVIDIA's driver: a library that processes can load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, however long they take; `make test-search` looks for others.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=500, deadline=None)
settings.load_profile("seeded")

# What it says is in the environment: STUB_<function> is the error, STUB_GPUS lists the GPUs as
# name/compute capability/multiprocessors/MiB.
_SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}
static int number(const char *name) { return atoi(text(name, "0")); }
static int gpu(int index, char *name, int *major, int *minor, int *units, size_t *mebibytes) {
    const char *list = text("STUB_GPUS", "");
    int found = 0;
    while (*list) {
        if (found++ == index)
            return sscanf(list, "%[^/]/%d.%d/%d/%zu", name, major, minor, units, mebibytes);
        list = strchr(list, ';');
        if (!list) break;
        list++;
    }
    return index < 0 ? found : 0;
}
int cuDriverGetVersion(int *version) { *version = number("STUB_CUDA"); return 0; }
int cuInit(unsigned flags) { return number("STUB_cuInit"); }
int cuDeviceGetCount(int *count) { *count = gpu(-1, 0, 0, 0, 0, 0); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    int major, minor, units; size_t memory;
    return gpu(device, name, &major, &minor, &units, &memory) ? 0 : 101;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    char name[256]; int major, minor, units; size_t memory;
    if (!gpu(device, name, &major, &minor, &units, &memory)) return 101;
    *value = attribute == 75 ? major : attribute == 76 ? minor : attribute == 16 ? units
           : attribute == 18 ? number("STUB_INTEGRATED") : 0;
    return 0;
}
int cuDeviceGetPCIBusId(char *place, int length, int device) {
    return snprintf(place, length, "0000:%02x:00.0", device + 1) < 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    char name[256]; int major, minor, units;
    if (!gpu(device, name, &major, &minor, &units, bytes)) return 101;
    *bytes <<= 20;
    return 0;
}
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_STUB"; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    return number("STUB_cuDevicePrimaryCtxRetain");
}
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxPushCurrent_v2(void *context) { return 0; }
int cuCtxPopCurrent_v2(void **context) { return 0; }
int cuMemGetInfo_v2(size_t *available, size_t *total) {
    *available = (size_t)number("STUB_FREE_MIB") << 20; *total = (size_t)8192 << 20;
    return 0;
}
"""
# NVML: STUB_DRIVER is the version, without one it does not start. Of two GPUs the first holds 100
# MiB for every process there is, the second what STUB_HELD lists, one after the other. The power is
# STUB_WATTS; STUB_COUNTER is the error of the counter of energy.
_MANAGEMENT = r"""
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int number(const char *name) {
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}
int nvmlInit_v2(void) { return getenv("STUB_DRIVER") ? 0 : 12; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 3 ? "Not Supported" : "Unknown Error"; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    return snprintf(version, length, "%s", getenv("STUB_DRIVER")) < 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) {
    *gpu = (void *)(size_t)(index + 1);
    return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *place, void **gpu) {
    unsigned bus = 0;
    if (sscanf(place, "0000:%x:00.0", &bus) != 1) return 6;
    *gpu = (void *)(size_t)bus;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts) {
    *milliwatts = 1000 * number("STUB_WATTS");
    return *milliwatts ? 0 : 3;
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *millijoules) {
    struct timespec now;
    if (number("STUB_COUNTER")) return number("STUB_COUNTER");
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = number("STUB_WATTS") * (1000ULL * now.tv_sec + now.tv_nsec / 1000000);
    return 0;
}
struct process { unsigned pid; unsigned long long bytes; unsigned instances[2]; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, struct process *found) {
    static int calls = 0;
    const char *held = getenv("STUB_HELD");
    unsigned long long bytes = 100;
    unsigned room = *count, there = 0;
    if (!held) return 3;
    if ((size_t)gpu == 2) {
        for (int call = 0; call < calls && strchr(held, ','); call++) held = strchr(held, ',') + 1;
        bytes = strtoull(held, 0, 10);
    }
    bytes = bytes ? bytes << 20 : ~0ULL;
    DIR *processes = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(processes));) {
        int pid = atoi(entry->d_name);
        if (!pid) continue;
        if (there < room) found[there] = (struct process){pid, bytes};
        there++;
    }
    closedir(processes);
    *count = there;
    if (there > room) return 7;
    calls += (size_t)gpu == 2;
    return 0;
}
"""


@dataclass(frozen=True)
class StubDriver:
    """Where the libraries are; `says` sets what they say in this process and those it starts."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def says(self, **values):
        for name in list(os.environ):
            if name.startswith("STUB_"):
                self.monkeypatch.delenv(name)
        for name, value in values.items():
            self.monkeypatch.setenv(f"STUB_{name}", str(value))
        from cellrt.runtime.machine import driver

        driver._ask.cache_clear()


@pytest.fixture(scope="session")
def stub_libraries(tmp_path_factory):
    """Folder with the stand-in's two libraries."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("the stand-in for a driver is compiled by cc, on Linux")
    folder = tmp_path_factory.mktemp("driver")
    for name, source in (("libcuda.so.1", _SOURCE), ("libnvidia-ml.so.1", _MANAGEMENT)):
        file = folder / f"{name}.c"
        file.write_text(source, encoding="utf-8")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / name, file], check=True)
    return folder


@pytest.fixture
def stub_driver(stub_libraries, monkeypatch):
    """A driver of NVIDIA in place of the machine's."""
    from cellrt.runtime.machine import driver, nvml

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(driver, "_LIBRARY", str(stub_libraries / "libcuda.so.1"))
    monkeypatch.setattr(nvml, "LIBRARY", str(stub_libraries / "libnvidia-ml.so.1"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(stub_libraries))
    yield StubDriver(stub_libraries, monkeypatch)
    driver._ask.cache_clear()
