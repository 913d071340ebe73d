"""Protobuf messages, the encoding of ONNX files, without a library for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message.

    Attributes
    ----------
    number : int
        Says which field of its message it is.
    value : int or memoryview
        A whole number, or the bytes of a text, of a message or of a number of fixed width.
    encoded : memoryview
        The field as it stands in the message.
    """

    number: int
    value: int | memoryview
    encoded: memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """Walk the fields of one message; those of messages inside it are left unread.

    Raises
    ------
    IndexError, ValueError
        It is no message, or truncated.
    """
    position, end = 0, len(message)
    while position < end:
        begin = position
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield Field(number, value, message[begin:position])
            continue
        if wire == _BYTES:
            length, position = _varint(message, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if number == 0 or position + length > end:
            raise ValueError("not a protobuf message")
        start, position = position, position + length
        yield Field(number, message[start:position], message[begin:position])


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Walk what a message has in one of its fields that holds bytes.

    Raises
    ------
    IndexError, ValueError
        As `fields`.
    """
    for field in fields(message):
        if field.number == number and isinstance(field.value, memoryview):
            yield field.value


def integers(message: memoryview, number: int) -> list[int]:
    """Whole numbers of a repeated field, which writers may pack into one.

    Raises
    ------
    IndexError, ValueError
        As `fields`.
    """
    found = []
    for field in fields(message):
        if field.number == number and isinstance(field.value, int):
            found.append(field.value)
        elif field.number == number and isinstance(field.value, memoryview):
            position = 0
            while position < len(field.value):
                value, position = _varint(field.value, position)
                found.append(value)
    return found


def entry(message: memoryview) -> tuple[str, str]:
    """Key and value of a ``StringStringEntryProto``, ONNX's message of two texts.

    Raises
    ------
    IndexError, ValueError
        As `fields`, or they are no texts.
    """
    texts = {
        f.number: bytes(f.value).decode() for f in fields(message) if not isinstance(f.value, int)
    }
    return texts.get(1, ""), texts.get(2, "")


def field_of(number: int, value: bytes | memoryview) -> bytes:
    """Encode a field that holds bytes."""
    return b"".join([_as_varint(number << 3 | _BYTES), _as_varint(len(value)), value])


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a base-128 integer; return it and the position behind it."""
    result = shift = 0
    while True:
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _as_varint(number: int) -> bytes:
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
