"""The metadata of a GGUF file, read from its first pages.

The `gguf` package's reader takes seconds for a large vocabulary (measured: 6.7 s for 150,000 tokens), because it makes
arrays of every string, and looks at every tensor. This one skips arrays.
Format: ggml's docs/gguf.md, versions 2 and 3.
"""

import mmap
import struct
from pathlib import Path
from typing import Final

MAGIC: Final = b"GGUF"

Scalar = str | int | float | bool

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_VERSIONS: Final = (2, 3)
_DEFAULT_ALIGNMENT: Final = 32

_MAX_DIMENSIONS: Final = 8
_MAX_KEY_BYTES: Final = 65_535  # the format's own limit
_MAX_STRING_BYTES: Final = 16 * 2**20
_MAX_ENTRIES: Final = 1_000_000
_MAX_ITEMS: Final = 20_000_000
"""Strings of the largest array that is walked: many times any vocabulary, and still a matter of seconds."""


class BadGguf(Exception):
    """The file is no GGUF that can be read; the text says why."""


def read_header(path: Path) -> dict[str, Scalar]:
    """The metadata without its arrays.

    Raises:
        BadGguf: Not a GGUF file, or cut off.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise BadGguf("not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Header(data).read()
            except (struct.error, OverflowError):
                raise BadGguf("cut off within its header; is the download complete?") from None


class _Header:
    """A cursor over the mapped file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)

    def read(self) -> dict[str, Scalar]:
        version: int = self._next("I")
        if version not in _VERSIONS:
            other = int.from_bytes(version.to_bytes(4, "little"), "big")
            reason = (
                "is for machines of the other byte order" if other in _VERSIONS else f"has version {version}"
            )
            raise BadGguf(f"{reason}; expected a little-endian GGUF of version 2 or 3")
        tensors, fields = self._next("Q"), self._next("Q")
        if max(tensors, fields) > _MAX_ENTRIES:
            raise BadGguf("is damaged: it claims more entries than any model has")
        values: dict[str, Scalar] = {}
        for _ in range(fields):
            key = self._string(_MAX_KEY_BYTES)
            value = self._value(self._next("I"))
            if value is not None:
                values[key] = value
        self._check_tensors(tensors, values.get("general.alignment", _DEFAULT_ALIGNMENT))
        return values

    def _next(self, code: str) -> int:
        """The next number; a bool or float where the code says so."""
        layout = "<" + code
        value: int = struct.unpack_from(layout, self._data, self._at)[0]
        self._at += struct.calcsize(layout)
        return value

    def _string(self, most: int) -> str:
        length = self._next("Q")
        if length > most:
            raise BadGguf("is damaged: a text in its header is too long")
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise struct.error
        return self._data[start : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Scalar | None:
        """A value; None for an array, which is skipped."""
        if kind == _STRING:
            return self._string(_MAX_STRING_BYTES)
        if kind == _ARRAY:
            self._skip_array(self._next("I"), self._next("Q"))
            return None
        if kind not in _SCALARS:
            raise BadGguf(f"is damaged: no value has type {kind}")
        return self._next(_SCALARS[kind])

    def _skip_array(self, kind: int, count: int) -> None:
        if kind in _SCALARS:
            self._at += count * struct.calcsize(_SCALARS[kind])
            return
        if kind != _STRING or count > _MAX_ITEMS:
            raise BadGguf(f"has an array of {count} items of type {kind}, which is not supported")
        length_of, data, at = struct.Struct("<Q").unpack_from, self._data, self._at
        for _ in range(count):  # the one hot loop: 0.1 s for 300,000 strings
            at += 8 + length_of(data, at)[0]
        self._at = at

    def _check_tensors(self, count: int, alignment: Scalar) -> None:
        """An interrupted download lacks the tensors at the end."""
        if count == 0:
            raise BadGguf("has no tensors, only a vocabulary")
        last = 0
        for _ in range(count):
            self._string(_MAX_KEY_BYTES)
            dimensions = self._next("I")
            if dimensions > _MAX_DIMENSIONS:
                raise BadGguf("is damaged: a tensor has too many dimensions")
            self._at += 8 * dimensions + 4  # their sizes and the tensor's type
            last = max(last, self._next("Q"))
        unit = alignment if isinstance(alignment, int) and alignment > 0 else _DEFAULT_ALIGNMENT
        if -(-self._at // unit) * unit + last >= len(self._data):
            raise BadGguf("lacks the tensors at its end; is the download complete?")
