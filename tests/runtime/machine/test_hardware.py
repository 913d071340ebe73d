"""What this machine is said to be, and which arithmetic is fast on it."""

from __future__ import annotations

import pytest

from cellrt.errors import EngineError
from cellrt.runtime.machine import hardware
from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines.openvino import OpenVinoEngine

PLAIN = frozenset({"avx2", "avx512f", "avx512vnni"})


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("features", "highest", "expected"),
    [
        (PLAIN, "", False),
        (PLAIN | {"avx512bf16"}, "", True),
        (PLAIN | {"amx-bf16"}, "default", True),
        (frozenset({"neon", "bf16"}), "", True),
        (PLAIN | {"avx512bf16"}, "AVX2", False),
        (PLAIN | {"avx512bf16"}, "avx512_core", False),
        (PLAIN | {"avx512bf16"}, "AVX512_CORE_VNNI", False),
        (PLAIN | {"avx512bf16"}, "AVX512_CORE_BF16", True),
        (PLAIN | {"amx-bf16"}, "AVX512_CORE_AMX", True),
        (PLAIN, "AVX512_CORE_AMX", False),
    ],
)
def test_bf16_needs_instructions_that_nobody_forbade(monkeypatch, features, highest, expected):
    monkeypatch.setattr(hardware, "_features", lambda: features)
    if highest:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", highest)
    assert hardware.cpu_has_bf16() is expected


@pytest.mark.parametrize(
    ("features", "highest", "expected"),
    [
        (PLAIN | {"avx512bf16"}, "", False),
        (PLAIN | {"avx512bf16", "amx-bf16"}, "", True),
        (PLAIN | {"avx512bf16", "amx-bf16"}, "AVX512_CORE_BF16", False),
        (PLAIN | {"avx512bf16", "amx-bf16"}, "avx10_1_512_amx", True),
        (frozenset({"neon", "bf16"}), "", False),
    ],
)
def test_products_of_matrices_are_more_than_bf16(monkeypatch, features, highest, expected):
    monkeypatch.setattr(hardware, "_features", lambda: features)
    if highest:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", highest)
    assert hardware.cpu_has_bf16(matrices=True) is expected


def test_a_cpu_without_bf16_computes_in_fp32(monkeypatch):
    # OpenVINO offers bf16 on any CPU with AVX-512, and takes several times as long for it.
    monkeypatch.setattr(hardware, "_features", lambda: PLAIN)
    engine, model = OpenVinoEngine("CPU"), open_model("nuclei")
    assert engine.load(model, (16, 32, 32), precision="auto").precision == "fp32"
    with pytest.raises(EngineError, match="no bf16 instructions"):
        engine.load(model, (16, 32, 32), precision="bf16")


def test_instructions_are_those_of_the_operating_system():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next(text for text in file if text.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pytest.skip("no /proc/cpuinfo with flags here")
    flags = set(line.split(":")[1].split())
    pairs = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "asimd": "NEON"}
    found = hardware.this_machine().instructions
    assert {words for flag, words in pairs.items() if flag in flags} == {
        words for words in pairs.values() if words in found
    }
