"""Text on pictures: Pillow's built-in font, a font of the system for letters that it lacks.

The built-in font has little more than ASCII. A letter that no font here has is written as its
escape, such as ``\\u03b1``, so that names never look alike that are not.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Fonts with many letters that come with Linux, Windows and macOS; Pillow knows the folders.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "segoeui.ttf",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
)
# What no font draws: the picture that stands for it shows which letters a font lacks.
_NO_LETTER = "\U0010ffff"


@lru_cache
def font(size: int) -> Font:
    """Pillow's built-in font in pixels; a bitmap of fixed size where Pillow lacks FreeType."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Width in pixels."""
    letters, written = _written(text, size)
    return letters.getlength(written.replace("µ", "u"))


def draw_text(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size: int,
    fill: Colour,
    stroke: Colour | None = None,
) -> None:
    """Write with the left end of the base line at ``position``; µ is a u with a stem."""
    letters, text = _written(text, size)
    plain = text.replace("µ", "u")
    x, y = position
    widths = [
        (x + letters.getlength(plain[:i]), letters.getlength("u"))
        for i, letter in enumerate(text)
        if letter == "µ"
    ]
    stem = max(1, round(size / 11))
    boxes = []
    for left, _ in widths:
        inset = round(size / 12)
        boxes.append((left + inset, y - size / 5, left + inset + stem - 1, y + size / 5))
    width = 2 if stroke is not None else 0
    for box in boxes:
        if stroke is not None:
            grown = (box[0] - width, box[1], box[2] + width, box[3] + width)
            draw.rectangle(grown, fill=stroke)
    draw.text(
        position,
        plain,
        fill=fill,
        font=letters,
        anchor="ls",
        stroke_width=width,
        stroke_fill=stroke,
    )
    for box in boxes:
        draw.rectangle(box, fill=fill)


@lru_cache(256)
def _written(text: str, size: int) -> tuple[Font, str]:
    """The font that has most of a text's letters, and the text as that font can write it."""
    # Composed, as macOS takes names apart; of the two characters for micro, the unit's.
    text = unicodedata.normalize("NFC", text).replace("μ", "µ")
    letters, lacks = font(size), _lacking(font(size), text)
    for name in _SYSTEM_FONTS if lacks else ():
        other = _system_font(name, size)
        if other is not None and len(missing := _lacking(other, text)) < len(lacks):
            letters, lacks = other, missing
    escapes = {c: c.encode("unicode_escape").decode("ascii") for c in lacks}
    return letters, "".join(escapes.get(c, c) for c in text)


def _lacking(letters: Font, text: str) -> set[str]:
    """Characters that a font has no picture of."""
    others = {c for c in text if not (c.isascii() and c.isprintable()) and c != "µ"}
    if not others or not isinstance(letters, ImageFont.FreeTypeFont):
        return others
    nothing = _picture(letters, _NO_LETTER)
    return {c for c in others if not c.isprintable() or _picture(letters, c) in (nothing, b"")}


def _picture(letters: ImageFont.FreeTypeFont, character: str) -> bytes:
    return bytes(letters.getmask(character))


@lru_cache
def _system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except (OSError, ImportError):  # none of that name here, or Pillow lacks FreeType
        return None
