"""The way back to one client, whoever that is: a WSGI server, a terminal."""

from typing import Protocol

from gatewright.api.facts import ApiFormat
from gatewright.errors import Problem
from gatewright.wire.fields import Headers


class ClientLost(Exception):
    """The client takes nothing any more; the message is one line for people."""


class Sink(Protocol):
    """Takes one answer: `begin`, any number of `write` and `comment`, and `end`; or `problem` instead of all.

    Whoever cannot pass something on raises `ClientLost`.
    """

    @property
    def begun(self) -> bool:
        """Whether the client has the head."""
        ...

    def begin(self, status: int, headers: Headers, content_length: int | None) -> None:
        """Take the head.

        Args:
            status: HTTP status.
            headers: Names in lower case, none of the connection's own.
            content_length: Size of the body where it is known.
        """
        ...

    def write(self, data: bytes) -> None:
        """Take a piece of the body; it waits for a slow client."""
        ...

    def end(self) -> None:
        """The answer is complete."""
        ...

    def comment(self, text: str) -> None:
        """Say something in an event stream that is not part of the answer."""
        ...

    def problem(self, problem: Problem, format: ApiFormat, headers: Headers) -> None:  # noqa: A002  # as in facts
        """Take an error as the whole answer."""
        ...

    def fail_stream(self, problem: Problem, format: ApiFormat) -> None:  # noqa: A002  # as in facts
        """Take an error as the end of an event stream that has begun."""
        ...

    def cut(self) -> None:
        """The answer ends here, in its middle, and nothing can be said about it."""
        ...
