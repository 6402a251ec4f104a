"""Requests of our own to models that we serve: estimators and judges ask them like any client, over no socket."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from attrs import evolve

from gatewright.api.answer_text import answer_text
from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.api.facts import FIRST_ERROR_STATUS, ApiFormat, RequestFacts, Wishes
from gatewright.api.request import read_request
from gatewright.wire.fields import Headers, find_header
from gatewright.wire.server import RequestHead

PATH: Final = "/v1/chat/completions"

Ask = Callable[[bytes, str, float], str]
"""Ask a model: body of a chat request, name of the task that it is, seconds; gives the answer's text.

It may be called by any thread but that of an event loop, and raises `QuestionFailed`.
"""


class QuestionFailed(Exception):
    """There is no answer; the message is one line for people."""


class OwnQuestions:
    """What one process asks models on its own behalf, to be given up when the process is told to end. For any thread.

    A judge may take a minute; nobody who waits for the end of a process waits for a verdict.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[object, Callable[[], object]] = {}
        self._given_up = False

    @property
    def given_up(self) -> bool:
        """Whether nobody is asked any more."""
        return self._given_up

    @contextmanager
    def under_way(self, give_up: Callable[[], object]) -> Iterator[None]:
        """While a question is; the Gateway has to know of it before `give_up` takes effect.

        Args:
            give_up: Brings it to its end at once; called by any thread, right here where all have been given up.
        """
        mark = object()
        with self._lock:
            is_late = self._given_up
            self._under_way[mark] = give_up
        try:
            if is_late:
                give_up()
            yield
        finally:
            with self._lock:
                del self._under_way[mark]

    def give_up(self) -> None:
        """Bring those under way to their ends, and whatever is asked from now on."""
        with self._lock:
            self._given_up = True
            under_way = list(self._under_way.values())
        for give_up in under_way:
            give_up()


def question(body: bytes, task: str, timeout_s: float) -> tuple[RequestHead, RequestFacts]:
    """Head and facts of a question of our own, as if it had come from a client.

    Args:
        body: Of a chat request.
        task: What it is for, for the records.
        timeout_s: After this it is given up.
    """
    head = RequestHead(
        method="POST",
        target=PATH,
        headers=((b"content-type", b"application/json"), (b"user-agent", b"gatewright")),
        http_version="1.1",
        expects_continue=False,
        content_length=len(body),
    )
    endpoint = match_endpoint("POST", PATH)
    assert isinstance(endpoint, Endpoint)  # the path is ours
    facts = read_request(endpoint, head.headers, body)
    return head, evolve(facts, wishes=Wishes(task=task), client_timeout_s=timeout_s)


def read_answer(status: int, headers: Headers, body: bytes) -> str:
    """The text of the answer to a question of our own.

    Raises:
        QuestionFailed: It is an error, or holds no text.
    """
    if not status:
        raise QuestionFailed("the question was broken off")
    if status >= FIRST_ERROR_STATUS:
        raise QuestionFailed(f"the model answered {status}: {body[:200].decode('utf-8', 'replace')}")
    text = answer_text(ApiFormat.CHAT, find_header(headers, b"content-type"), body)
    if not text:
        raise QuestionFailed("the answer holds no text")
    return text
