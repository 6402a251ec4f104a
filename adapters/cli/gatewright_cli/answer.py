"""Reading an answer as it comes: its text, its end, and what went wrong with it."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gatewright.api.errors import read_upstream_error
from gatewright.api.facts import FIRST_ERROR_STATUS, ApiFormat
from gatewright.errors import Problem
from gatewright.wire.fields import Headers, find_header
from gatewright.wire.sse import SseSplitter, event_data
from gatewright_cli.refused import Refusal
from gatewright_host.blocking.sink import ClientLost

_MAX_WHOLE_BYTES: Final = 268_435_456
"""Of an answer that does not come in pieces."""


class _Message(msgspec.Struct):
    """A message, or a piece of one. None and absent are the same; engines differ in which they send."""

    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Document(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: Any = None


_DOCUMENT: Final = msgspec.json.Decoder(_Document)


class AnswerReader:
    """A sink that tells of the answer's text.

    Args:
        on_text: Takes pieces of the answer; an `OSError` of it ends the request.
        on_reasoning: Takes pieces of what the model thinks before it.
        whole: Keep the answer as it is, and read no text off it.

    Attributes:
        begun: Its head has come.
        body: The answer, if it is kept.
        failure: What went wrong, one line; None if nothing did.
        refusal: The upstream's error, if the answer is one.
        finish_reason: As the engine said.
        reader_gone: `on_text` had nobody to write to.
    """

    def __init__(
        self,
        on_text: Callable[[str], None],
        on_reasoning: Callable[[str], None],
        *,
        whole: bool = False,
    ) -> None:
        self.begun = False
        self.body = b""
        self.failure: str | None = None
        self.refusal: Refusal | None = None
        self.finish_reason: str | None = None
        self.reader_gone = False
        self._on_text = on_text
        self._on_reasoning = on_reasoning
        self._whole = whole
        self._status = 0
        self._headers: Headers = ()
        self._events: SseSplitter | None = None
        self._kept = bytearray()

    # --- called by the request's thread

    def begin(self, status: int, headers: Headers, content_length: int | None) -> None:  # noqa: ARG002  # a sink's
        """See `Sink`."""
        self.begun = True
        self._status = status
        self._headers = headers
        media_type = (find_header(headers, b"content-type") or "").partition(";")[0].strip().lower()
        if media_type == "text/event-stream":
            self._events = SseSplitter()

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        if self._events is None:
            self._kept += data
            if len(self._kept) > _MAX_WHOLE_BYTES:
                self.failure = "the answer is too long to be kept"
                raise ClientLost(self.failure)
            return
        for event in self._events.feed(data):
            document = event_data(event)
            if document is not None and document.strip() != b"[DONE]":
                self._read(document)

    def end(self) -> None:
        """See `Sink`."""
        if self._events is not None:
            return
        body = bytes(self._kept)
        if self._status >= FIRST_ERROR_STATUS:
            error = read_upstream_error(self._status, self._headers, body)
            self.refusal = Refusal(self._status, error.message)
            self.failure = f"the engine answered {self._status}: {error.message}"
        elif self._whole:
            self.body = body
        else:
            self._read(body)

    def comment(self, text: str) -> None:
        """See `Sink`. The news of the engine host say it earlier."""

    def problem(self, problem: Problem, format: ApiFormat, headers: Headers) -> None:  # noqa: A002, ARG002  # a sink's
        """See `Sink`."""
        self.failure = problem.message

    def fail_stream(self, problem: Problem, format: ApiFormat) -> None:  # noqa: A002, ARG002  # a sink's
        """See `Sink`."""
        self.failure = problem.message

    def cut(self) -> None:
        """See `Sink`. Why, is told by the request's record."""

    # --- reading

    def _read(self, document: bytes) -> None:
        try:
            read = _DOCUMENT.decode(document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failure = "the engine's answer is no chat completion"
            return
        if read.error:
            self.failure = read_upstream_error(self._status, (), document).message
        for choice in read.choices or ():
            message = choice.delta or choice.message
            if message is not None:
                self._tell(message)
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason

    def _tell(self, message: _Message) -> None:
        try:
            if message.reasoning_content:
                self._on_reasoning(message.reasoning_content)
            if message.content:
                self._on_text(message.content)
        except BrokenPipeError:
            self.reader_gone = True
            raise ClientLost("nobody reads the answer any more") from None
        except OSError as error:
            self.failure = f"cannot write the answer: {error.strerror or error}"
            raise ClientLost(self.failure) from None
