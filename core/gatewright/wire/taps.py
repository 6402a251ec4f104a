"""Taps: an answer passes through one on its way to the client, is read, and loses what no client should see.

Events are decoded a block at a time, and only as far as they are read: that is faster than to search them for the words
that tell something, and says at the same time that they are JSON.
"""

from typing import Final, Protocol

import msgspec

from gatewright.api.facts import ApiFormat, Usage
from gatewright.wire.answers import AnswerReader
from gatewright.wire.json_text import is_json, is_object
from gatewright.wire.sse import SseSplitter, data_lines, event_data, split_events

MAX_CAPTURE_BYTES: Final = 8_388_608
"""Larger JSON answers pass, but their usage is not read."""
MAX_MALFORMED_EVENTS: Final = 1
"""So many are forgiven in one stream."""
_DONE: Final = b"data: [DONE]\n\n"


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

    Of formats that are known, only events pass that hold a JSON object. Errors do not pass, nor what follows them.

    Args:
        format: How to read the events.
        choices: Answers side by side that are awaited.
        keeps_usage: An event that tells nothing but the tokens is not passed on: the client has not asked for it.

    Attributes:
        events: See `Tap`.
        malformed: Events that were dropped since nobody could read them; behind the second of them nothing passes.
        refusal: The JSON of the error that ended the stream.
        closed: Whatever else comes, nothing passes any more.
    """

    def __init__(self, format: ApiFormat, choices: int = 1, *, keeps_usage: bool = False) -> None:  # noqa: A002 - the word that facts use
        super().__init__(format, choices)
        self._keeps_usage = keeps_usage
        self.events = 0
        self.malformed = 0
        self.refusal: bytes | None = None
        self.closed = False
        self._splitter = SseSplitter()
        self._is_known = format is not ApiFormat.OTHER
        self._ends_with_done = format in {ApiFormat.CHAT, ApiFormat.COMPLETION}
        self._done = False

    @property
    def in_event(self) -> bool:
        """See `Tap`."""
        return self._splitter.in_event

    def feed(self, data: bytes) -> bytes:
        """See `Tap`."""
        if self.closed:
            return b""
        splitter = self._splitter
        was_in_event = splitter.in_event
        block = splitter.take(data)
        if was_in_event or splitter.in_event:
            return self._pass_large(block)
        if not block or (self._read_block(block) if self._is_known else self._skip_block(block)):
            return block
        return self._sift(split_events(block))

    def finish(self) -> bytes:
        """See `Tap`. A last event without its blank line is given one, if it is whole; a missing `[DONE]` is added."""
        if self._splitter.in_event:
            return b"" if self.closed else self._splitter.finish()
        last = b"" if self.closed else self._last_event(self._splitter.finish())
        if self._ends_with_done and self.complete and not self._done:
            self._done = self.closed = True
            self.events += 1
            return last + _DONE
        return last

    def _read_block(self, block: bytes) -> bool:
        """Read a block of events that are one JSON object each, as nearly all are; False if this one is not so."""
        if b"\r" in block or (self._keeps_usage and _may_be_usage_alone(block)):
            return False
        count = block.count(b"\n\n")
        lines = event_data(block) if count == 1 else data_lines(block, count)
        if lines is None or not self.learn_lines(lines, count):
            return False
        self.events += count
        return True

    def _skip_block(self, block: bytes) -> bool:
        """The same for an unknown format: read over a block that says nothing."""
        if _may_tell(block):
            return False
        self.events += block.count(b"\n\n") if b"\r" not in block else len(split_events(block))
        return True

    def _pass_large(self, block: bytes) -> bytes:
        """A part of an event that is too large to be held, and so to be read, with whole ones behind its end."""
        if not block or self._splitter.in_event:
            return block
        tail, *others = split_events(block)
        self.events += 1
        return tail + self._sift(others)

    def _sift(self, events: list[bytes]) -> bytes:
        """Look at events one by one; those that may pass."""
        passed = []
        for event in events:
            if self._admit(event):
                self.events += 1
                passed.append(event)
            if self.closed:
                break
        return b"".join(passed)

    def _admit(self, event: bytes) -> bool:
        data = event_data(event)
        if data is None:
            # Older llama-servers: a field named "error" instead of data.
            line = event.strip()
            if not line.startswith(b"error:"):
                return True
            self.saw_error = self.closed = True
            self.refusal = line[6:]
            return False
        if not self._is_known:
            if not _may_tell(event):
                return True
        elif not data.strip():
            return False  # to browsers no event at all, and to some clients a broken one
        elif data.strip() == b"[DONE]":
            if self._ends_with_done:
                self.complete = self._done = self.closed = True
            return True
        elif not is_object(data):
            self.malformed += 1
            self.closed = self.malformed > MAX_MALFORMED_EVENTS
            return False
        self.learn(data)
        if self.saw_error:
            self.closed = True
            self.refusal = data
        return not self.saw_error and not (self._keeps_usage and _is_usage_alone(data))

    def _last_event(self, rest: bytes) -> bytes:
        event = rest.rstrip(b"\r\n") + b"\n\n"
        data = event_data(event)
        if data is None or not data.strip():
            return b""
        if data.strip() != b"[DONE]" and not (is_object(data) if self._is_known else is_json(data)):
            return b""
        return self._sift([event])


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
            self.complete = self.learn(body) or is_json(body)
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


def _may_tell(block: bytes) -> bool:
    """Whether a block of an unknown format may say more than nothing; being wrong costs a parse, not an error."""
    return b'"usage"' in block or b"error" in block


class _UsageAlone(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


_USAGE_ALONE: Final = msgspec.json.Decoder(_UsageAlone)


def _may_be_usage_alone(block: bytes) -> bool:
    """Whether an event of a block may have no choices; being wrong costs a parse."""
    return b"[]" in block or b"[ ]" in block


def _is_usage_alone(data: bytes) -> bool:
    """Whether an event is the one that `include_usage` adds: no choices, and the tokens (OpenAI's chat and completions)."""
    if not _may_be_usage_alone(data):
        return False
    try:
        event = _USAGE_ALONE.decode(data)
    except msgspec.DecodeError:
        return False
    return event.choices == [] and event.usage is not None
