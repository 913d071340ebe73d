"""Which voxel sizes are believed: one rule for all formats and for what a user gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cellrt.errors import InputError, UsageError
from cellrt.runtime.image.stored import Provenance, StatedSize

PartialVoxelSize = tuple[float | None, float | None, float | None]

UM_PER_INCH = 25_400.0
# Every way to write a unit; prefixes and spellings of the metre are put together.
_PREFIXES = {"pico": 1e-6, "nano": 1e-3, "micro": 1.0, "milli": 1e3, "centi": 1e4, "": 1e6}
_UM_PER_UNIT = {
    **{
        f"{prefix}{metre}{plural}": um
        for prefix, um in _PREFIXES.items()
        for metre in ("meter", "metre")
        for plural in ("", "s")
    },
    **{"pm": 1e-6, "nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6},
    **{"micron": 1.0, "microns": 1.0, "mikrometer": 1.0},
    **{"å": 1e-4, "angstrom": 1e-4, "angstroms": 1e-4, "ångström": 1e-4},
    **{"inch": UM_PER_INCH, "inches": UM_PER_INCH, "in": UM_PER_INCH, '"': UM_PER_INCH},
}
# What a light microscope can record; beyond, it is a printing resolution or nonsense.
_SMALLEST_UM, _LARGEST_UM = 1e-3, 200.0
# A user may correct a file by this factor without being asked; the same one of at least the other
# in all axes is a slip of the unit.
_FAR_FACTOR, _UNIT_FACTOR = 3.0, 20.0


def check_voxel_size(voxel_size_um: Sequence[float]) -> tuple[float, float, float]:
    """Three lengths that a light microscope can have, or a `UsageError`."""
    try:
        if any(isinstance(v, bool | np.bool_) for v in voxel_size_um):
            raise TypeError  # which Python counts as 0 and 1
        values = tuple(float(v) for v in voxel_size_um)
    except (TypeError, ValueError):
        raise UsageError(
            f"--voxel-size is {voxel_size_um!r}; expected three numbers, z y x in µm"
        ) from None
    if len(values) != 3 or not all(_SMALLEST_UM <= v <= _LARGEST_UM for v in values):
        raise UsageError(
            f"--voxel-size is {' '.join(f'{v:g}' for v in values)}; expected three numbers from "
            f"{_SMALLEST_UM:g} to {_LARGEST_UM:g}, z y x in µm"
        )
    return values[0], values[1], values[2]


def doubts_about(
    given: tuple[float, float, float], stated: StatedSize, slices: int = 2
) -> tuple[str, ...]:
    """Warnings where a voxel size that a user gave is far from the file's, or looks like a slip.

    It is obeyed all the same: files are wrong more often than users.

    Parameters
    ----------
    given : (z, y, x) in µm
    stated : StatedSize
        What the file says.
    slices : int
        Length of the z axis; the z size of a single slice means nothing.
    """
    words = "voxel size " + " ".join(f"{v:g}" for v in given)
    sizes = [abs(v) if v and _SMALLEST_UM <= abs(v) <= _LARGEST_UM else None for v in stated.um]
    if slices == 1:
        sizes[0] = None
    pairs = [(a, b, axis) for a, b, axis in zip(given, sizes, "zyx", strict=True) if b]
    if not stated.trusted and all(b == 1 for _, b, _ in pairs):
        pairs = []  # a placeholder, or nothing
    known = [b for _, b, _ in pairs]
    agrees = bool(known) and _alike([a for a, _, _ in pairs], known)
    file_says = " ".join(f"{v:g}" if v else "?" for v in sizes)
    if len(known) == 3 and not agrees and _alike(sorted(given), sorted(known)):
        not_so = ", not x y z" if _alike(given, known[::-1]) else ""
        return (f"{words} was given; the file says {file_says}: the order is z y x{not_so}",)
    factors = [(a / b, axis) for a, b, axis in pairs]
    first = factors[0][0] if factors else 1.0
    same = _alike([f for f, _ in factors], [first] * len(factors))
    if same and not 1 / _UNIT_FACTOR < first < _UNIT_FACTOR:
        return (
            f"{words} was given, {first:.3g} times what the file says ({file_says}): the unit is "
            "µm",
        )
    far = [f"{f:.3g} times as much along {axis}" for f, axis in factors if _is_far(f)]
    if far:
        return (
            f"{words} was given; the file says {file_says}: it is {', '.join(far)}; leave it out "
            "if the file is right",
        )
    z, y, x = given
    if _alike([z], [y]) and not 0.5 < x / y < 2 and not agrees:
        return (f"{words} was given: the order is z y x, and here z and y are equal and x is not",)
    return ()


def doubts_about_anisotropy(given: float, voxel_size_um: PartialVoxelSize | None) -> list[str]:
    """Warnings where a spacing in z over that in x is far from what is known; it is obeyed."""
    z, _, x = voxel_size_um or (None, None, None)
    if z is None or x is None or not _is_far(given * x / z):
        return []
    return [
        f"anisotropy {given:g} was given; by the voxel size ({z:g} µm in z, {x:g} in x) it is "
        f"{z / x:.3g}; leave it out if the voxel size is right"
    ]


def _is_far(factor: float) -> bool:
    return not 1 / _FAR_FACTOR <= factor <= _FAR_FACTOR


def _alike(some: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(a / b - 1) < 0.02 for a, b in zip(some, others, strict=True))


def believed_size(
    stated: StatedSize, where: str, slices: int
) -> tuple[PartialVoxelSize | None, Provenance]:
    """Voxel size (z, y, x) in µm, with components that are unknown as None, and its source.

    Impossible components and placeholders are dropped, and the source says so.

    Parameters
    ----------
    stated : StatedSize
    where : str
        The file's name, for messages.
    slices : int
        Length of the z axis; the z size of a single slice means nothing.

    Raises
    ------
    InputError
        The file says that a size is 0: then its other figures cannot be trusted either.
    """
    if stated.reason:
        return None, Provenance("unknown", stated.reason)
    for axis, size in zip("zyx", stated.um, strict=True):
        if size == 0 and (axis != "z" or slices > 1):
            raise InputError(
                f"{where}: its voxel size along {axis} is 0 µm ({stated.source}), expected a "
                "length; give the true size with --voxel-size z y x"
            )
    notes = []
    kept: list[float | None] = []
    for axis, size in zip("zyx", stated.um, strict=True):
        # A stage that moves towards the sample makes the spacing negative; its length is meant.
        length = abs(size) if axis == "z" and size is not None else size
        if length is None or (math.isfinite(length) and _SMALLEST_UM <= length <= _LARGEST_UM):
            kept.append(length)
        else:
            notes.append(f"{axis} size {size:g} µm is not possible and ignored")
            kept.append(None)
    if all(size is None for size in kept):
        nothing = f"none in the file ({stated.source})" if stated.source else "none in the file"
        return None, Provenance("unknown", "; ".join(notes) or nothing)
    if not stated.trusted and all(size is None or size == 1.0 for size in kept):
        return None, Provenance(
            "unknown",
            f"the file says exactly 1 µm ({stated.source}), which is what software writes when it "
            "does not know; if it is true, say so with --voxel-size",
        )
    missing = [axis for axis, size in zip("zyx", kept, strict=True) if size is None]
    if missing and not notes:
        notes.append(f"{', '.join(missing)} missing")
    return (kept[0], kept[1], kept[2]), Provenance("file", "; ".join([stated.source, *notes]))


def um_per_unit(unit: str | None) -> float | None:
    """Micrometres in one ``unit``; None where the unit is no length or missing."""
    if unit is None:
        return None
    if "\\u" in unit:
        unit = unit.encode("ascii", "backslashreplace").decode("unicode_escape")
    return _UM_PER_UNIT.get(unit.strip().strip("\x00").lower().replace("μ", "µ"))
