"""How much energy the hardware uses, where it has something that counts or measures it.

An NVIDIA GPU tells its own by NVML. On a Jetson chips beside the module measure voltage and current
of its supplies. CPUs of Intel and AMD count the energy of their packages (RAPL), which Linux shows.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from cellrt.runtime.machine.driver import bus_id, on_jetson
from cellrt.runtime.machine.nvml import management

LEAST_SECONDS = 2.0
"""What is shorter than this cannot be told: counters and chips are renewed up to ten times a
second."""

_SYS = Path("/sys")
# The chip with three channels that every Jetson has, and the one behind Thor's input.
_RAILS = "bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label"
_INPUT = "bus/i2c/drivers/ina238/*/hwmon/hwmon*/power1_input"
_ALL = ("VIN", "VDD_IN", "POM_5V_IN")  # what everything else is part of, on boards that have one
_PACKAGES = "class/powercap/intel-rapl:*/energy_uj"
_SECONDS_BETWEEN = 0.05


class Gauge(ABC):
    """Energy between the begin and the end of ``with gauge.measuring():``.

    Attributes
    ----------
    covers : str
        What it is the energy of, and who says so.
    joules : float or None
        None before anything was measured, and where that failed; `trouble` says why.
    trouble : str
    """

    def __init__(self, covers: str) -> None:
        self.covers = covers
        self.joules: float | None = None
        self.trouble = ""

    @abstractmethod
    def since_last(self) -> float:
        """Joules since this was asked last; of the first time nothing is used."""

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure what the hardware uses inside of this, whoever uses it."""
        joules, over, trouble = 0.0, threading.Event(), ""

        def watch() -> None:  # often: power changes, and counters start again at 0
            nonlocal joules, trouble
            try:
                self.since_last()
                while not over.wait(_SECONDS_BETWEEN):
                    joules += self.since_last()
                joules += self.since_last()
            except (OSError, ValueError) as error:
                trouble = f"{self.covers} is not told any more ({error})"

        self.joules, self.trouble = None, ""
        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()
            self.trouble = trouble
        if not trouble:
            self.joules = joules


class Counters(Gauge):
    """Energy by counters that only grow, and start again where they end.

    Parameters
    ----------
    covers : str
    counters : sequence of (callable, float)
        What reads one, in joules, and where it ends.
    """

    def __init__(self, covers: str, counters: Sequence[tuple[Callable[[], float], float]]) -> None:
        super().__init__(covers)
        self._counters = counters
        self._last: list[float] | None = None

    def since_last(self) -> float:
        """See `Gauge`."""
        now = [read() for read, _ in self._counters]
        last, self._last = self._last or now, now
        grown = [new - old for new, old in zip(now, last, strict=True)]
        ends = [end for _, end in self._counters]
        return sum(
            joules if joules >= 0 else joules + end for joules, end in zip(grown, ends, strict=True)
        )


class Power(Gauge):
    """Energy by power that is measured again and again.

    Parameters
    ----------
    covers : str
    watts : callable
    """

    def __init__(self, covers: str, watts: Callable[[], float]) -> None:
        super().__init__(covers)
        self._watts = watts
        self._last: tuple[float, float] | None = None

    def since_last(self) -> float:
        """See `Gauge`."""
        now = (time.monotonic(), self._watts())
        last, self._last = self._last or now, now
        return (now[0] - last[0]) * (now[1] + last[1]) / 2


@contextlib.contextmanager
def open_gauge(needs: Literal["", "nvidia", "intel"], index: int = 0) -> Iterator[Gauge]:
    """Open what tells the energy of the hardware that an engine runs on.

    Parameters
    ----------
    needs : {"", "nvidia", "intel"}
        The GPU that it needs; none for engines that run on the CPU.
    index : int
        Of an NVIDIA GPU, as its driver counts.

    Raises
    ------
    OSError
        Nothing tells; the message says why and, where something can be done, what.
    """
    if on_jetson() and (module := _module_of_jetson()) is not None:
        yield module
    elif needs == "nvidia":
        with _nvidia(index) as gauge:
            yield gauge
    elif on_jetson():
        raise OSError("no chip that measures power is found on this board")
    elif needs == "intel":
        raise OSError("the energy of Intel's GPUs is not read")
    else:
        yield _packages()


@contextlib.contextmanager
def _nvidia(index: int) -> Iterator[Gauge]:
    with management() as nvml:
        gpu = nvml.gpu(bus_id(index))
        words = f"GPU {index}, by NVML"
        try:
            nvml.joules(gpu)
        except OSError:  # older than Volta
            nvml.watts(gpu)
            yield Power(f"{words} (its power)", lambda: nvml.watts(gpu))
        else:
            yield Counters(words, [(lambda: nvml.joules(gpu), float("inf"))])


def _module_of_jetson() -> Gauge | None:
    rails: dict[str, tuple[Path, ...]] = {}
    locked = []
    for path in sorted(_SYS.glob(_INPUT)):
        rails["VIN"] = (path,)
    for path in sorted(_SYS.glob(_RAILS)):
        channel = path.name.removeprefix("in").removesuffix("_label")
        files = path.with_name(f"in{channel}_input"), path.with_name(f"curr{channel}_input")
        try:
            name = path.read_text(encoding="utf-8", errors="replace").strip()
            for file in files:
                _number(file)
        except PermissionError:
            locked.append(path.parent)
        except (OSError, ValueError):  # such as the sum of the shunts, which has no current
            continue
        else:
            if name not in ("", "NC"):  # not connected
                rails[name] = files
    if locked:
        raise OSError(
            "what measures power on this board is for root; run `sudo chmod a+r "
            f"{locked[0]}/*_input`, which lasts until it starts again"
        )
    for name in _ALL:
        if name in rails:
            return Power(f"the whole board ({name})", _sum_of_products([rails[name]]))
    if rails:
        return Power(f"the rails {' + '.join(rails)}", _sum_of_products([*rails.values()]))
    return None


def _sum_of_products(products: Sequence[tuple[Path, ...]]) -> Callable[[], float]:
    """What reads files: mV times mA, or µW; or µJ. Watts or joules come out."""

    def read() -> float:
        return sum(math.prod(map(_number, files)) for files in products) / 1e6

    return read


def _packages() -> Gauge:
    """The packages of the CPU, and their memory where it is counted on its own."""
    if sys.platform != "linux":
        raise OSError("the energy of a CPU is only read on Linux")
    counters: dict[str, tuple[Callable[[], float], float]] = {}
    locked = False
    for path in sorted(_SYS.glob(_PACKAGES)):
        try:
            name = path.with_name("name").read_text(encoding="ascii").strip()
            # The others are parts of these, or the whole board once more.
            if not re.match(r"package|dram", name):
                continue
            _number(path)
            end = _number(path.with_name("max_energy_range_uj")) / 1e6
        except PermissionError:
            locked = True
            continue
        except (OSError, ValueError):
            continue
        counters[f"{name} of {path.parent.name}"] = (_sum_of_products([(path,)]), end)
    if locked:
        raise OSError(
            "the counters of the CPU's energy are for root; run `sudo chmod a+r "
            f"{_SYS / _PACKAGES}`, which lasts until the machine starts again"
        )
    if not counters:
        raise OSError(
            "the CPU has no counters of energy (RAPL), or a virtual machine or container hides them"
        )
    memory = any(name.startswith("dram") for name in counters)
    packages = sum(name.startswith("package") for name in counters)
    words = "the CPU" if packages == 1 else f"{packages} CPUs"
    return Counters(f"{words}{' with memory' if memory else ''}, by RAPL", list(counters.values()))


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
