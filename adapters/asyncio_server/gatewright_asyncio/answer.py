"""The way back to one client: heads, bodies and errors of answers."""

from gatewright.api.errors import render_problem, stream_comment, stream_error
from gatewright.api.facts import ApiFormat
from gatewright.errors import Problem
from gatewright.wire.fields import Headers, encode_headers
from gatewright.wire.server import ServerConnection
from gatewright_asyncio.streams import Stream
from gatewright_host.dumps import AnswerDump
from gatewright_host.upstream_calls import EVENT_STREAM, UNBUFFERED

HeaderPairs = tuple[tuple[str, str], ...]


class Answer:
    """Writes one answer.

    Args:
        wire: Protocol of the client's connection.
        stream: Its socket.

    Attributes:
        begun: The head is out.
        dump: Where the answer's body is written too, for debugging.
    """

    def __init__(self, wire: ServerConnection, stream: Stream) -> None:
        self._wire = wire
        self.stream = stream
        self.begun = False
        self.dump: AnswerDump | None = None

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Head, body and end at once."""
        self.stream.write(self.head(status, headers, len(body)) + self.body(body) + self.end())

    def problem(self, problem: Problem, format_: ApiFormat, headers: HeaderPairs) -> None:
        """An error as the whole answer."""
        status, fields, body = render_problem(problem, format_)
        self.whole(status, fields + encode_headers(headers), body)

    def head(self, status: int, headers: Headers, content_length: int | None) -> bytes:
        """The head, to be written together with what follows."""
        self.begun = True
        return self._wire.response_head(status, headers, content_length=content_length)

    def body(self, data: bytes) -> bytes:
        """A piece of body, to be written."""
        if self.dump is not None:
            self.dump.write(data)
        return self._wire.body(data)

    def end(self) -> bytes:
        """The end, to be written."""
        return self._wire.end()

    def begin_stream(self, headers: HeaderPairs) -> None:
        """200 and the head of an event stream, with no event in it yet."""
        self.stream.write(self.head(200, EVENT_STREAM + UNBUFFERED + encode_headers(headers), None))

    def comment(self, text: str) -> None:
        """A comment in the event stream."""
        self.stream.write(self.body(stream_comment(text)))

    def fail_stream(self, problem: Problem, format_: ApiFormat) -> None:
        """An error event as the end of the event stream."""
        self.stream.write(self.body(stream_error(problem, format_)) + self.end())

    def cut(self) -> None:
        """Close in the middle."""
        self.stream.abort()
