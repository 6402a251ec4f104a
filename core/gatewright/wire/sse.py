r"""Server-sent events, found in a stream of bytes without looking into them.

An event ends at the first blank line after it: `\n\n`, `\r\n\r\n`, `\r\r` or a mixture. Further blank lines belong to
the event that follows them. Source: the HTML standard, 9.2.6.
"""

import re
from typing import Final

MAX_PARTIAL_BYTES: Final = 1_048_576
_BOM: Final = b"\xef\xbb\xbf"

# `\r` as the second line end counts only once it is known whether `\n` follows; `\r\r` is of a stream that knows no `\n`.
_BLANK_LINE: Final = re.compile(rb"\r\r|\n\r\n|\n\r(?=[^\n])|\n\n")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_EVENT_NAME: Final = re.compile(rb"^event: .*\n", re.MULTILINE)


class SseSplitter:
    """Cuts a stream behind whole events; what comes out, joined, is what went in.

    An event larger than the limit is passed on in pieces as it comes; the next one is whole again.

    Args:
        max_partial_bytes: Bytes of an incomplete event that are held back at most.
    """

    def __init__(self, *, max_partial_bytes: int = MAX_PARTIAL_BYTES) -> None:
        self._max_partial_bytes = max_partial_bytes
        self._partial = bytearray()
        self._in_large = False

    @property
    def in_event(self) -> bool:
        """A part of an event, too large to be held, was passed on: whatever comes next lands in its middle."""
        return self._in_large

    def take(self, data: bytes) -> bytes:
        """All whole events that end in these bytes, as one piece."""
        partial = self._partial
        if (
            not partial
            and not self._in_large
            and data.endswith(b"\n\n")
            and not data.endswith(b"\n\n\n")
            and b"\r" not in data
        ):
            return data  # the usual case: every read ends where an event does
        held = len(partial)
        partial += data
        end = _last_end(partial, max(0, held - 3))
        if end:
            self._in_large = False
        elif len(partial) > self._max_partial_bytes or self._in_large:
            end = len(partial) - 3  # a blank line must not be torn
            self._in_large = True
        if end <= 0:
            return b""
        whole = bytes(partial[:end])
        del partial[:end]
        return whole

    def feed(self, data: bytes) -> list[bytes]:
        """The whole events that end in these bytes, each with its blank line."""
        return split_events(self.take(data))

    def finish(self) -> bytes:
        """What is left at the end of the stream: an event without its blank line, or a part of one."""
        rest = bytes(self._partial)
        self._partial.clear()
        return rest


def _last_end(data: bytearray, start: int) -> int:
    """Where the last whole event ends, 0 if none does; `start` is where a blank line may begin at the earliest."""
    end = 0
    if data.find(b"\r", max(0, start - 1)) < 0:
        # Left to right as for the pattern: of three line feeds the first two are the blank line.
        at = data.rfind(b"\n\n", start)
        if at < 0:
            return 0
        if data[at - 1 : at] != b"\n":
            return at + 2
    for match in _BLANK_LINE.finditer(data, start):
        end = match.end()
    return end


def split_events(block: bytes) -> list[bytes]:
    """Cut a block behind each blank line; the last piece may lack its own."""
    if b"\r" not in block:
        pieces = block.split(b"\n\n")
        last = pieces.pop()
        events = [piece + b"\n\n" for piece in pieces]
    else:
        events = []
        at = 0
        for match in _BLANK_LINE.finditer(block):
            events.append(block[at : match.end()])
            at = match.end()
        last = block[at:]
    if last:
        events.append(last)
    return events


def event_data(raw_event: bytes) -> bytes | None:
    """The data of an event, its lines joined by line feeds; None if it has none, as a comment has not."""
    if b"\r" not in raw_event:
        # The usual cases: one line of data, alone or behind the name of the event.
        first = raw_event.find(b"\n")
        last = len(raw_event) - 2
        if first == last and raw_event.startswith(b"data: "):
            return raw_event[6:-2]
        if (
            raw_event.startswith(b"data: ", first + 1)
            and raw_event.startswith(b"event: ")
            and raw_event.find(b"\n", first + 1) == last
        ):
            return raw_event[first + 7 : -2]
    lines = _LINE_END.split(raw_event.removeprefix(_BOM))
    values = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:") or line == b"data"]
    return b"\n".join(values) if values else None


def data_lines(block: bytes, count: int) -> bytes | None:
    """The data of all events of a block, one a line; None if not every event is one line of data, and perhaps a name.

    Args:
        block: Whole events without carriage returns.
        count: How many events it holds.
    """
    if block.startswith(b"event: "):
        block = _EVENT_NAME.sub(b"", block)
    if not block.startswith(b"data: "):
        return None
    lines = block[6:-2].replace(b"\n\ndata: ", b"\n")
    return lines if lines.count(b"\n") == count - 1 else None
