"""An answer on its way into a WSGI response: the head, and what has come of the body since it was last asked for."""

from collections.abc import Callable

from gatewright.api.errors import render_problem, stream_comment, stream_error
from gatewright.api.facts import ApiFormat
from gatewright.errors import Problem
from gatewright.wire.fields import Headers
from gatewright_host.blocking.sink import ClientLost
from gatewright_host.dumps import AnswerDump


class ResponseSink:
    """See `Sink`. Whoever steps the request takes what has come after each step, so that it never holds more.

    Args:
        dump: Where the body is written too, for debugging.
        on_close: Called once the request has ended.

    Attributes:
        begun: The head has come.
        ended: The answer is complete.
        broken_off: It ends in its middle.
        status: HTTP status, once begun.
        headers: Names in lower case, once begun.
        content_length: Size of the body, where it is known.
    """

    def __init__(self, dump: AnswerDump | None = None, on_close: Callable[[], None] | None = None) -> None:
        self.begun = False
        self.ended = False
        self.broken_off = False
        self.status = 0
        self.headers: Headers = ()
        self.content_length: int | None = None
        self._pieces: list[bytes] = []
        self._dump = dump
        self._on_close = on_close
        self._refuses = False

    # --- called by whoever steps the request

    def take(self) -> bytes:
        """What has come of the body since the last time; b"" if nothing has."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def refuse(self) -> None:
        """There is nobody any more to take the answer."""
        self._refuses = True
        self._pieces.clear()

    def close(self) -> None:
        """The request has ended."""
        if self._dump is not None:
            self._dump.close()
        if self._on_close is not None:
            self._on_close()

    # --- called by the request

    def begin(self, status: int, headers: Headers, content_length: int | None) -> None:
        """See `Sink`."""
        self.begun = True
        self.status, self.headers, self.content_length = status, headers, content_length

    def write(self, data: bytes) -> None:
        """See `Sink`; the wait for a slow client is in the next step, which does not come before it has taken this."""
        if self._refuses:
            raise ClientLost("the client has gone")
        if self._dump is not None:
            self._dump.write(data)
        self._pieces.append(data)

    def end(self) -> None:
        """See `Sink`."""
        self.ended = True

    def comment(self, text: str) -> None:
        """See `Sink`."""
        self.write(stream_comment(text))

    def problem(self, problem: Problem, format: ApiFormat, headers: Headers) -> None:  # noqa: A002  # a sink's
        """See `Sink`."""
        status, fields, body = render_problem(problem, format)
        self.begin(status, fields + headers, len(body))
        self.write(body)
        self.end()

    def fail_stream(self, problem: Problem, format: ApiFormat) -> None:  # noqa: A002  # a sink's
        """See `Sink`."""
        self.write(stream_error(problem, format))
        self.end()

    def cut(self) -> None:
        """See `Sink`."""
        self.broken_off = True
