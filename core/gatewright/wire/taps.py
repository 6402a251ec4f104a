"""Taps: every byte of an answer passes through one on its way to the client and is, at most, looked at.

A tap searches for a few strings and parses JSON only where it finds them: in most answers that is the last event.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gatewright.api.facts import ApiFormat, Usage
from gatewright.wire.answers import AnswerReader
from gatewright.wire.sse import SseSplitter, event_data, split_events

MAX_CAPTURE_BYTES: Final = 8_388_608
"""Larger JSON answers pass, but their usage is not read."""


class Tap(Protocol):
    """What a relay needs: `feed` each piece, `finish` at the end, then read off what was learnt."""

    @property
    def usage(self) -> Usage | None:
        """Tokens as the upstream counted them, None where it did not tell."""
        ...

    @property
    def finish_reason(self) -> str | None:
        """As the upstream put it."""
        ...

    @property
    def complete(self) -> bool:
        """The answer ended as answers of its format end; final after `finish`."""
        ...

    @property
    def saw_error(self) -> bool:
        """The answer itself holds an error."""
        ...

    @property
    def events(self) -> int:
        """Server-sent events that have passed, comments included."""
        ...

    @property
    def in_event(self) -> bool:
        """What has passed ends in the middle of an event; only one that is too large to be held does that."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take some content of the upstream's answer; what of it may go to the client now."""
        ...

    def finish(self) -> bytes:
        """The upstream's answer has ended; what may still go to the client."""
        ...


class StreamTap(AnswerReader):
    """For server-sent events: only whole events pass, so that a break never leaves half of one.

    Args:
        format: How to read the events.
    """

    def __init__(self, format: ApiFormat) -> None:  # noqa: A002 - the word that facts use
        super().__init__(format)
        self.events = 0
        self._splitter = SseSplitter()
        self._tells = _TELLS[format]

    @property
    def in_event(self) -> bool:
        """See `Tap`."""
        return self._splitter.in_event

    def feed(self, data: bytes) -> bytes:
        """See `Tap`."""
        block = self._splitter.take(data)
        if block:
            self._look_at(block)
        return block

    def finish(self) -> bytes:
        """See `Tap`. A last event without its blank line is given one, if it is whole."""
        was_in_event = self._splitter.in_event
        rest = self._splitter.finish()
        if was_in_event or not rest:
            return rest
        event = rest.rstrip(b"\r\n") + b"\n\n"
        data = event_data(event)
        if data is None or not (data.strip() == b"[DONE]" or _is_json(data)):
            return b""
        self._look_at(event)
        return event

    def _look_at(self, block: bytes) -> None:
        if not self._tells(block):
            self.events += block.count(b"\n\n") if b"\r" not in block else len(split_events(block))
            return
        for event in split_events(block):
            self.events += 1
            if self._tells(event):
                self._read(event)

    def _read(self, event: bytes) -> None:
        data = event_data(event)
        if data is None:
            # Older llama-servers: a field named "error" instead of data.
            self.saw_error = self.saw_error or event.lstrip().startswith(b"error:")
        elif data.strip() == b"[DONE]":
            self.complete = True
        else:
            self.learn(data)


class BodyTap(AnswerReader):
    """For one JSON document: everything passes at once, and is kept for a look at the end.

    Args:
        format: How to read the document.
        max_capture_bytes: Bytes that are kept at most; beyond that nothing is learnt.
    """

    events = 0
    in_event = False

    def __init__(self, format: ApiFormat, *, max_capture_bytes: int = MAX_CAPTURE_BYTES) -> None:  # noqa: A002 - as above
        super().__init__(format)
        self._max_capture_bytes = max_capture_bytes
        self._captured: list[bytes] = []
        self._captured_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """See `Tap`."""
        self._captured_bytes += len(data)
        if self._captured_bytes <= self._max_capture_bytes:
            self._captured.append(data)
        else:
            self._captured.clear()
        return data

    def finish(self) -> bytes:
        """See `Tap`. A document that breaks off, as one that ends with its connection may, is not complete."""
        body = b"".join(self._captured)
        self._captured.clear()
        if self._captured_bytes > self._max_capture_bytes:
            self.complete = True
        elif body or self.format is not ApiFormat.OTHER:
            self.complete = self.learn(body) or _is_json(body)
        return b""


class PassTap(AnswerReader):
    """For what cannot be read: nothing is learnt, and every end is a good one."""

    events = 0
    in_event = False

    def __init__(self) -> None:
        super().__init__(ApiFormat.OTHER)

    def feed(self, data: bytes) -> bytes:
        """See `Tap`."""
        return data

    def finish(self) -> bytes:
        """See `Tap`."""
        return b""


def make_tap(
    format: ApiFormat,  # noqa: A002 - the word that facts use
    content_type: str | None,
    content_encoding: str | None = None,
) -> Tap:
    """The tap for an answer with these headers."""
    if content_encoding is not None and content_encoding.strip().lower() not in {"", "identity"}:
        return PassTap()
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return StreamTap(format)
    if media_type == "application/json" or media_type.endswith("+json"):
        return BodyTap(format)
    return PassTap()


# Whether a block may say more than some words of the answer; being wrong costs a parse, not an error.


def _chat_tells(block: bytes) -> bool:
    return (
        _has_value(block, b'"finish_reason"', b'"finish_reason":null', b'"finish_reason": null')
        or (b'"usage"' in block and _has_value(block, b'"usage"', b'"usage":null', b'"usage": null'))
        or b'"timings"' in block
        or b"[DONE]" in block
        or b"error" in block
    )


def _native_tells(block: bytes) -> bool:
    return _has_value(block, b'"stop"', b'"stop":false', b'"stop": false') or b"error" in block


def _messages_tell(block: bytes) -> bool:
    return b"message_" in block or b"error" in block


def _responses_tell(block: bytes) -> bool:
    return (
        b"response.completed" in block
        or b"response.failed" in block
        or b"response.incomplete" in block
        or b"error" in block
    )


def _other_tells(block: bytes) -> bool:
    return b'"usage"' in block or b"error" in block


def _has_value(block: bytes, key: bytes, nothing: bytes, spaced_nothing: bytes) -> bool:
    """Whether the key stands before anything but the value that means nothing."""
    return block.count(key) != block.count(nothing) + block.count(spaced_nothing)


_TELLS: Final[dict[ApiFormat, Callable[[bytes], bool]]] = {
    ApiFormat.CHAT: _chat_tells,
    ApiFormat.COMPLETION: _chat_tells,
    ApiFormat.NATIVE: _native_tells,
    ApiFormat.MESSAGES: _messages_tell,
    ApiFormat.RESPONSES: _responses_tell,
    ApiFormat.OTHER: _other_tells,
}


def _is_json(document: bytes) -> bool:
    try:
        msgspec.json.decode(document, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
