"""Arithmetic that CPU and GPU round alike."""

from __future__ import annotations

from typing import Any

from cellrt.compiled import inlined


@inlined
def times(a: Any, b: Any) -> Any:
    """Product, which is rounded before anything is added to it; a GPU has to be told."""
    return a * b


@inlined
def dot(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    """Inner product of two vectors (a, b, c) and (d, e, f)."""
    return times(a, d) + times(b, e) + times(c, f)
