"""Energy from the files of boards and CPUs that are not here, and from a stand-in for NVML."""

from __future__ import annotations

import contextlib
import itertools
import time

import pytest

from cellrt.runtime.machine import energy
from cellrt.runtime.machine.energy import Counters, open_gauge


@pytest.fixture
def sys_folder(tmp_path, monkeypatch):
    """Stands for /sys; write files into it by their paths."""
    monkeypatch.setattr(energy, "_SYS", tmp_path)
    monkeypatch.setattr(energy, "on_jetson", lambda: False)
    monkeypatch.setattr(energy.sys, "platform", "linux")

    def write(**files):
        for name, value in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n", encoding="ascii")

    return write


@pytest.fixture
def jetson(sys_folder, monkeypatch):
    """Rails of the chips of a board: name, millivolt and milliampere per channel."""
    monkeypatch.setattr(energy, "on_jetson", lambda: True)

    def write(*chips):
        for number, rails in enumerate(chips):
            chip = f"bus/i2c/drivers/ina3221/1-004{number}/hwmon/hwmon{number + 3}"
            # The sum of the shunts has a label and no current.
            sys_folder(**{f"{chip}/in7_label": "sum of shunt voltages", f"{chip}/in7_input": 9})
            for channel, (name, volts, amperes) in enumerate(rails, 1):
                sys_folder(
                    **{
                        f"{chip}/in{channel}_label": name,
                        f"{chip}/in{channel}_input": volts,
                        f"{chip}/curr{channel}_input": amperes,
                    }
                )

    return write


def joules_in(seconds, gauge, monkeypatch):
    """What a gauge makes of two looks at it."""
    clock = itertools.count(0, seconds)
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(clock))
    return gauge.since_last() + gauge.since_last()


@pytest.mark.parametrize("needs", ["", "nvidia"])
def test_a_jetsons_input_is_everything_whatever_computes(jetson, monkeypatch, needs):
    jetson([("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 800), ("VDD_SOC", 5000, 300)])
    with open_gauge(needs) as gauge:
        assert gauge.covers == "the whole board (VDD_IN)"
        assert joules_in(3, gauge, monkeypatch) == pytest.approx(30)


def test_a_board_without_an_input_that_is_measured_has_the_sum_of_its_rails(jetson, monkeypatch):
    jetson(
        [("VDD_GPU_SOC", 20000, 500), ("VDD_CPU_CV", 20000, 100), ("VIN_SYS_5V0", 5000, 400)],
        [("NC", 5000, 99999), ("VDDQ_VDD2_1V8AO", 5000, 200)],
    )
    with open_gauge("nvidia") as gauge:
        assert gauge.covers.startswith("the rails VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0")
        assert joules_in(2, gauge, monkeypatch) == pytest.approx(2 * (10 + 2 + 2 + 1))


def test_thors_input_has_a_chip_of_its_own(jetson, sys_folder, monkeypatch):
    jetson([("VDD_GPU", 20000, 500)])
    sys_folder(**{"bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5/power1_input": 60_000_000})
    with open_gauge("nvidia") as gauge:
        assert gauge.covers == "the whole board (VIN)"
        assert joules_in(1, gauge, monkeypatch) == pytest.approx(60)


def test_a_board_that_measures_nothing_says_so(jetson):
    with pytest.raises(OSError, match="no chip that measures power"), open_gauge(""):
        pass


def rapl(sys_folder, zone, name, joules, end=262_143.0):
    folder = f"class/powercap/intel-rapl:{zone}"
    sys_folder(
        **{
            f"{folder}/name": name,
            f"{folder}/energy_uj": round(joules * 1e6),
            f"{folder}/max_energy_range_uj": round(end * 1e6),
        }
    )


def test_packages_and_their_memory_are_added_and_their_parts_and_the_board_are_not(sys_folder):
    def counted(amount):
        for package in (0, 1):
            rapl(sys_folder, package, f"package-{package}", 100 + amount)
            rapl(sys_folder, f"{package}:0", "core", 50 + amount)
            rapl(sys_folder, f"{package}:1", "dram", 10 + amount / 4)
        rapl(sys_folder, 2, "psys", 500 + 7 * amount)

    counted(0)
    with open_gauge("") as gauge:
        assert gauge.covers == "2 CPUs with memory, by RAPL"
        assert gauge.since_last() == 0
        counted(8)
        assert gauge.since_last() == pytest.approx(2 * (8 + 2))
        assert gauge.since_last() == 0


def test_a_counter_that_starts_again_has_gone_on(sys_folder):
    rapl(sys_folder, 0, "package-0", 990, end=1000)
    with open_gauge("") as gauge:
        gauge.since_last()
        rapl(sys_folder, 0, "package-0", 15, end=1000)
        assert gauge.since_last() == pytest.approx(25)


def test_what_only_root_may_read_is_said_with_the_command(sys_folder, jetson, monkeypatch):
    def locked(path):
        if path.name.endswith(("_uj", "_input")):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(energy, "_number", locked)
    monkeypatch.setattr(energy, "on_jetson", lambda: False)
    rapl(sys_folder, 0, "package-0", 1)
    with pytest.raises(OSError, match=r"sudo chmod a\+r .*intel-rapl:\*/energy_uj"), open_gauge(""):
        pass
    monkeypatch.setattr(energy, "on_jetson", lambda: True)
    jetson([("VDD_IN", 5000, 2000)])
    with pytest.raises(OSError, match=r"sudo chmod a\+r .*hwmon3/\*_input"), open_gauge("nvidia"):
        pass


@pytest.mark.parametrize(
    ("needs", "platform", "why"),
    [
        ("", "linux", "no counters of energy"),
        ("", "darwin", "only read on Linux"),
        ("intel", "linux", "Intel's GPUs is not read"),
    ],
)
def test_where_nothing_tells_the_reason_is_said(sys_folder, monkeypatch, needs, platform, why):
    monkeypatch.setattr(energy.sys, "platform", platform)
    with pytest.raises(OSError, match=why), open_gauge(needs):
        pass


@pytest.mark.parametrize("counter", [0, 3])
def test_a_gpu_tells_its_energy_or_its_power(stub_driver, monkeypatch, counter):
    monkeypatch.setattr(energy, "on_jetson", lambda: False)
    stub_driver.says(
        CUDA=13000, GPUS="a card/8.9/48/20475", DRIVER="580.95", WATTS="100", COUNTER=counter
    )
    with open_gauge("nvidia") as gauge:
        assert gauge.covers == "GPU 0, by NVML" + (" (its power)" if counter else "")
        begin = time.monotonic()
        with gauge.measuring():
            time.sleep(0.2)
        # Between the sleep and all that lies around it, at 100 W.
        assert 15 < gauge.joules <= 100 * (time.monotonic() - begin) + 1


def test_a_gpu_that_tells_neither_says_so(stub_driver, monkeypatch):
    monkeypatch.setattr(energy, "on_jetson", lambda: False)
    stub_driver.says(CUDA=13000, GPUS="a card/6.1/20/8192", DRIVER="580.95", COUNTER=3)
    with pytest.raises(OSError, match="Not Supported"), open_gauge("nvidia"):
        pass


def test_what_stops_telling_gives_no_figure_and_ends_nothing():
    answers = iter([1.0])

    def read():
        with contextlib.suppress(StopIteration):
            return next(answers)
        raise OSError("gone")

    gauge = Counters("a counter", [(read, 10.0)])
    with gauge.measuring():
        pass
    assert gauge.joules is None
    assert gauge.trouble == "a counter is not told any more (gone)"
