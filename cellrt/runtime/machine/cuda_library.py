"""Calls of the library of NVIDIA's driver, by their names in C."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any


class DriverError(Exception):
    """A call of the driver failed."""

    def __init__(self, code: int, name: str) -> None:
        super().__init__(f"{name} ({code})")
        self.code = code


@dataclass(frozen=True)
class CudaLibrary:
    """The driver's library, with errors as exceptions."""

    loaded: Any = field(repr=False)

    def __call__(self, function: str, *arguments: Any) -> None:
        code = getattr(self.loaded, function)(*arguments)
        if code:
            raise DriverError(code, self._name(code))

    def number(self, function: str, *arguments: Any, kind: Any = ctypes.c_int) -> int:
        """What a function writes into its first argument."""
        result = kind()
        self(function, ctypes.byref(result), *arguments)
        return int(result.value or 0)

    def text(self, function: str, device: int) -> str:
        """What a function writes into a buffer."""
        buffer = ctypes.create_string_buffer(256)
        self(function, buffer, len(buffer), device)
        return buffer.value.decode(errors="replace")

    def _name(self, code: int) -> str:
        name = ctypes.c_char_p()
        if self.loaded.cuGetErrorName(code, ctypes.byref(name)) or not name.value:
            return "an error without a name"
        return name.value.decode(errors="replace")
