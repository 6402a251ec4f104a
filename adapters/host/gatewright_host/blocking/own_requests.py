"""Asking a model that this process serves, from one of its own threads."""

from typing import TYPE_CHECKING, Final

from gatewright.api.errors import render_problem
from gatewright.api.facts import ApiFormat
from gatewright.errors import Problem
from gatewright.wire.fields import Headers
from gatewright_host.blocking.sink import ClientLost
from gatewright_host.own_questions import OwnQuestions, question, read_answer

if TYPE_CHECKING:
    from gatewright_host.blocking.service import Service

MOST_BYTES: Final = 1_048_576
"""Of an answer to a question of our own."""


class CollectingSink:
    """Keeps an answer.

    Attributes:
        status: HTTP status; 0 until the head has come.
        headers: Of the answer.
        body: What has come of its body.
        begun: The head has come.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.body = bytearray()
        self.begun = False

    def begin(self, status: int, headers: Headers, content_length: int | None) -> None:  # noqa: ARG002  # a sink's
        """See `Sink`."""
        self.status, self.headers, self.begun = status, headers, True

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        if len(self.body) + len(data) > MOST_BYTES:
            raise ClientLost("the answer is too long")
        self.body += data

    def end(self) -> None:
        """See `Sink`."""

    def comment(self, text: str) -> None:
        """See `Sink`."""

    def problem(self, problem: Problem, format: ApiFormat, headers: Headers) -> None:  # noqa: A002  # as in facts
        """See `Sink`."""
        status, fields, body = render_problem(problem, format)
        self.begin(status, fields + headers, len(body))
        self.body += body

    def fail_stream(self, problem: Problem, format: ApiFormat) -> None:  # noqa: A002  # as in facts
        """See `Sink`."""
        self.status, self.body = problem.status, bytearray(render_problem(problem, format)[2])

    def cut(self) -> None:
        """See `Sink`."""
        self.status = 0


def ask(service: "Service", questions: OwnQuestions, body: bytes, task: str, timeout_s: float) -> str:
    """Ask a model, and wait for its answer.

    Args:
        service: Of this process.
        questions: Where it can be given up.
        body: Of a chat request.
        task: What it is for, for the records.
        timeout_s: After this it is given up.

    Raises:
        QuestionFailed: There is no answer.
    """
    head, facts = question(body, task, timeout_s)
    sink = CollectingSink()
    exchange = service.exchange(sink, head, facts, body)
    exchange.begin()
    with questions.under_way(exchange.client_lost):
        while exchange.step():
            pass
    return read_answer(sink.status, sink.headers, bytes(sink.body))
