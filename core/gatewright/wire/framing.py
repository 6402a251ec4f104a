r"""Where the body of an upstream's answer ends: RFC 9112, sections 6 and 7.

One call handles a whole read, however many chunks it holds: a stream of tokens costs one object per read, where h11
would make one per token. Strict: no bare line feeds, no signs, spaces or `0x` in sizes.
"""

import re
from typing import Final, Protocol


class FramingError(Exception):
    """The body is not framed as its head said.

    Attributes:
        content: What came before the error in the same bytes.
    """

    content = b""


class Body(Protocol):
    """A body that is being read.

    Attributes:
        complete: Its end was seen.
        surplus: What came after its end.
    """

    complete: bool
    surplus: bytes

    def feed(self, data: bytes) -> bytes:
        """The part of the content that these bytes hold.

        Raises:
            FramingError: They are not what has to come here.
        """
        ...

    def feed_eof(self) -> None:
        """The connection has ended.

        Raises:
            FramingError: The body was not complete.
        """
        ...


class LengthBody:
    """A body of known size; 0 for none."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._left = length
        self.complete = not length
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """See `Body`."""
        left = self._left
        if len(data) > left:
            self.surplus += data[left:]
            data = data[:left]
        self._left = left - len(data)
        self.complete = not self._left
        return data

    def feed_eof(self) -> None:
        """See `Body`."""
        if self._left:
            raise FramingError(f"ended after {self._length - self._left} of {self._length} bytes")


class ToCloseBody:
    """A body that ends with its connection."""

    def __init__(self) -> None:
        self.complete = False
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """See `Body`."""
        return data

    def feed_eof(self) -> None:
        """See `Body`."""
        self.complete = True


_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_TRAILER: Final = re.compile(rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[^\r\n\0]*\r\n)*\r\n")
_MAX_LINE_BYTES: Final = 4096
_MAX_TRAILER_BYTES: Final = 65_536


class ChunkedBody:
    """A chunked body; extensions and trailers are read over."""

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line or line end that is still to be completed
        self._left = 0
        self._in_chunk = False
        self._in_trailer = False
        self.complete = False
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        """See `Body`."""
        if self.complete:
            self.surplus += data
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        parts: list[bytes] = []
        try:
            self._scan(data, parts)
        except FramingError as error:
            error.content = b"".join(parts)
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _scan(self, data: bytes, parts: list[bytes]) -> None:
        """Collect the content in these bytes and hold back what is not complete."""
        at = 0
        while not self._in_trailer:
            if self._left:
                part = data[at : at + self._left]
                self._left -= len(part)
                at += len(part)
                parts.append(part)
                if self._left:
                    return
            following = self._next_chunk(data, at)
            if following < 0:
                self._held = data[at:]
                return
            at = following
        self._read_trailer(data, at)

    def _next_chunk(self, data: bytes, at: int) -> int:
        """Read over the line end of the last chunk, then the size of the next. Where that one begins, -1 if unknown."""
        if self._in_chunk:
            if not b"\r\n".startswith(data[at : at + 2]):
                raise FramingError("no line end after a chunk")
            if len(data) < at + 2:
                return -1
            at += 2
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            if len(data) - at > _MAX_LINE_BYTES:
                raise FramingError("endless chunk size")
            return -1
        match = _SIZE_LINE.fullmatch(data, at, line_end)
        if match is None:
            raise FramingError("bad chunk size")
        self._left = int(match[1], 16)
        self._in_chunk = True
        self._in_trailer = not self._left
        return line_end + 2

    def _read_trailer(self, data: bytes, at: int) -> None:
        if data.startswith(b"\r\n", at):
            end = at + 2
        else:
            end = data.find(b"\r\n\r\n", at) + 4
            if end < 4:  # noqa: PLR2004 - not found
                self._held = data[at:]
                if len(self._held) > _MAX_TRAILER_BYTES:
                    raise FramingError("endless trailer")
                return
        if _TRAILER.fullmatch(data, at, end) is None:
            raise FramingError("bad trailer")
        self.complete = True
        self.surplus = data[end:]

    def feed_eof(self) -> None:
        """See `Body`."""
        if not self.complete:
            raise FramingError("ended in the middle of a chunked body")
