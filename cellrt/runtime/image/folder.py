"""A folder as a series of images: which of its files they are."""

from __future__ import annotations

import mimetypes
import os
import re
from pathlib import Path

from cellrt.errors import InputError, UsageError
from cellrt.runtime.image.formats import is_image_folder, known_suffixes

# How names of what cellrt writes end, which is no image to segment.
_RESULTS = (".labels.tif", ".preview.png", ".overlaps.tif", ".truth.tif")

# How microscopes' own files end, for which there is no type of media.
_MICROSCOPES = (".czi", ".lif", ".nd2", ".oib", ".oif", ".vsi", ".ims", ".dv", ".mrxs", ".svs")


def is_folder_of_images(path: str | os.PathLike[str]) -> bool:
    """Whether this is a folder, and no store that is an image itself.

    An empty path, as of a variable that is not set, is none, although it means this folder.
    """
    folder = Path(path)
    return (
        bool(os.fspath(path).strip())
        and folder.is_dir()
        and folder.suffix.lower() != ".zarr"
        and not is_image_folder(folder)
    )


def images_of(folder: str | os.PathLike[str], output: str | None = None) -> list[Path]:
    """Images in a folder, by their endings, in the order of their names: ``a2`` before ``a10``.

    Hidden files, folders and what cellrt writes itself are left out.

    Parameters
    ----------
    folder : str or path
    output : str, optional
        Where the results shall go.

    Raises
    ------
    InputError
        There is none, or the folder cannot be read.
    UsageError
        The output is one file, or two images would have results of the same names.
    """
    try:
        paths = list(Path(folder).iterdir())
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror}); check its permissions"
        ) from error
    endings = known_suffixes()
    images = [
        path
        for path in paths
        if path.name.lower().endswith(endings)
        and not path.name.startswith(".")
        and not path.name.lower().endswith(_RESULTS)
        and (path.is_file() or path.suffix.lower() == ".zarr")
    ]
    if not images:
        raise InputError(
            f"{folder} is a folder without images; expected files ending in {', '.join(endings)}"
        )
    if output is not None and output.lower().endswith((".tif", ".tiff")):
        raise UsageError(
            f"the output {output} is one file, and {folder} holds several images; expected a "
            "folder, with a slash at its end"
        )
    _refuse_same_results(images, endings)
    return sorted(images, key=_natural)


def images_passed_over(folder: str | os.PathLike[str]) -> list[Path]:
    """Images in a folder that `images_of` leaves out, as nothing here reads their kind."""
    endings = known_suffixes()
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and not path.name.lower().endswith(endings)
        and (
            (mimetypes.guess_type(path.name)[0] or "").startswith("image/")
            or path.suffix.lower() in _MICROSCOPES
        )
    )


def _refuse_same_results(images: list[Path], endings: tuple[str, ...]) -> None:
    stems: dict[str, Path] = {}
    for path in sorted(images):
        stem = path.name
        for ending in (*endings, ".ome"):
            if stem.lower().endswith(ending):
                stem = stem[: -len(ending)]
        other = stems.setdefault(stem.lower(), path)
        if other is not path:
            raise UsageError(
                f"{other.name} and {path.name} would both write {stem}.labels.tif; rename one, or "
                "move it to another folder"
            )


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
