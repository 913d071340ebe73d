"""Pillow warns of large pictures, which ours are; how it is told not to is not safe in threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_one_thread = threading.Lock()


@contextmanager
def large_pictures() -> Iterator[None]:
    """Take large pictures for what they are, one thread at a time."""
    from PIL import Image

    with _one_thread, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
