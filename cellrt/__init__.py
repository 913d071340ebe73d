"""3D cell segmentation where the microscope is.

>>> import cellrt
>>> result = cellrt.segment("stack.tif", model="nuclei")  # doctest: +SKIP
>>> result.labels, result.table, result.record  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellrt._version import __version__

__all__ = ["CellrtWarning", "Segmenter", "__version__", "evaluate", "load_model", "segment"]

if TYPE_CHECKING:
    from cellrt.errors import CellrtWarning
    from cellrt.evaluation import evaluate
    from cellrt.runtime.model.file import open_model as load_model
    from cellrt.runtime.segment import Segmenter, segment

_HOMES = {
    "CellrtWarning": ("cellrt.errors", "CellrtWarning"),
    "Segmenter": ("cellrt.runtime.segment", "Segmenter"),
    "segment": ("cellrt.runtime.segment", "segment"),
    "load_model": ("cellrt.runtime.model.file", "open_model"),
    "evaluate": ("cellrt.evaluation", "evaluate"),
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used: `import cellrt` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cellrt' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
