"""Text on pictures with Pillow's built-in font, which has little more than ASCII."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font in pixels; a bitmap of fixed size where Pillow lacks FreeType."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Width in pixels."""
    return font(size).getlength(_drawable(text).replace("µ", "u"))


def draw_text(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size: int,
    fill: Colour,
    stroke: Colour | None = None,
) -> None:
    """Write with the left end of the base line at ``position``; µ is a u with a stem."""
    text = _drawable(text)
    plain = text.replace("µ", "u")
    x, y = position
    widths = [
        (x + font(size).getlength(plain[:i]), font(size).getlength("u"))
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
        font=font(size),
        anchor="ls",
        stroke_width=width,
        stroke_fill=stroke,
    )
    for box in boxes:
        draw.rectangle(box, fill=fill)


def _drawable(text: str) -> str:
    """Accents dropped, and a question mark for each letter the font has no picture of."""
    decomposed = unicodedata.normalize("NFD", text.replace("μ", "µ"))
    kept = (c for c in decomposed if not unicodedata.combining(c))
    return "".join(c if c.isascii() or c in "µ·°…" else "?" for c in kept)
