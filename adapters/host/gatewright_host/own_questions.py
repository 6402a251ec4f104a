"""Requests of our own to models that we serve: estimators and judges ask them like any client, over no socket."""

from collections.abc import Callable
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
    if status >= FIRST_ERROR_STATUS or not status:
        raise QuestionFailed(f"the model answered {status}: {body[:200].decode('utf-8', 'replace')}")
    text = answer_text(ApiFormat.CHAT, find_header(headers, b"content-type"), body)
    if not text:
        raise QuestionFailed("the answer holds no text")
    return text
