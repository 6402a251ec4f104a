"""Asking a model that this server serves, from one of its worker threads."""

import asyncio
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Final

from gatewright.api.errors import render_problem
from gatewright.api.facts import ApiFormat
from gatewright.errors import Problem
from gatewright.wire.fields import Headers
from gatewright.wire.server import ServerConnection
from gatewright_asyncio.answer import Answer, HeaderPairs
from gatewright_asyncio.exchange import Exchange
from gatewright_asyncio.streams import Stream
from gatewright_host.own_questions import OwnQuestions, QuestionFailed, question, read_answer
from gatewright_host.upstream_calls import ClientRequest

if TYPE_CHECKING:
    from gatewright_asyncio.service import Service

MOST_BYTES: Final = 1_048_576
"""Of an answer to a question of our own."""
_STOPPING: Final = "the server is stopping"
_LAST_WORDS_S: Final = 2.0
"""What a question may take longer than its time: the Gateway ends it."""


class _Nowhere(Stream):
    """A connection that takes everything; its answer is kept elsewhere."""

    def write(self, data: bytes) -> None:
        pass

    async def drain(self, timeout_s: float | None = None) -> None:
        pass


class CollectingAnswer(Answer):
    """Keeps an answer.

    Attributes:
        status: HTTP status; 0 until the head has come.
        headers: Of the answer.
        kept: What has come of its body.
    """

    def __init__(self) -> None:
        super().__init__(ServerConnection(max_head_bytes=1, max_body_bytes=1), _Nowhere())
        self.status = 0
        self.headers: Headers = ()
        self.kept = bytearray()

    def head(self, status: int, headers: Headers, content_length: int | None) -> bytes:  # noqa: ARG002  # an answer's
        """See `Answer`."""
        self.begun, self.status, self.headers = True, status, headers
        return b""

    def body(self, data: bytes) -> bytes:
        """See `Answer`."""
        self.kept += data[: MOST_BYTES - len(self.kept)]
        return b""

    def end(self) -> bytes:
        """See `Answer`."""
        return b""

    def problem(self, problem: Problem, format_: ApiFormat, headers: HeaderPairs) -> None:  # noqa: ARG002  # an answer's
        """See `Answer`."""
        self.status, self.headers, body = render_problem(problem, format_)
        self.kept = bytearray(body)

    def fail_stream(self, problem: Problem, format_: ApiFormat) -> None:
        """See `Answer`."""
        self.problem(problem, format_, ())

    def cut(self) -> None:
        """See `Answer`."""
        self.status = 0


async def _ask(service: "Service", questions: OwnQuestions, body: bytes, task: str, timeout_s: float) -> str:
    head, facts = question(body, task, timeout_s)
    answer = CollectingAnswer()
    request = ClientRequest(service.new_request_id(), head, facts, body)
    exchange = Exchange(service.driver, service.pool, answer, request, service.office)
    loop = asyncio.get_running_loop()
    # Not at once: `run` has told the Gateway of the request by the time that the loop gets to it.
    with questions.under_way(lambda: loop.call_soon_threadsafe(exchange.client_lost)):
        await exchange.run()
    return read_answer(answer.status, answer.headers, bytes(answer.kept))


def ask(
    service: "Service",
    questions: OwnQuestions,
    loop: asyncio.AbstractEventLoop,
    body: bytes,
    *,
    task: str,
    timeout_s: float,
) -> str:
    """Ask a model, and wait for its answer; not to be called by the event loop's thread.

    Args:
        service: Of this server.
        questions: Where it can be given up.
        loop: Its event loop.
        body: Of a chat request.
        task: What it is for, for the records.
        timeout_s: After this it is given up.

    Raises:
        QuestionFailed: There is no answer.
    """
    question_of_ours = _ask(service, questions, body, task, timeout_s)
    try:
        asked = asyncio.run_coroutine_threadsafe(question_of_ours, loop)
    except RuntimeError:  # the loop has ended
        question_of_ours.close()
        raise QuestionFailed(_STOPPING) from None
    try:
        return asked.result(timeout_s + _LAST_WORDS_S)
    except TimeoutError:
        raise QuestionFailed(f"no answer within {timeout_s:g} s") from None
    except CancelledError:
        raise QuestionFailed(_STOPPING) from None
