"""Checks of the other ways to ask: where a gateway does not know them, they are skipped."""

from http import HTTPStatus
from typing import Any

from gatewright_cli.verification.check import Checks, Probe
from gatewright_cli.verification.outcome import (
    Failed,
    Skipped,
    document_of,
    expect,
    expect_status,
    parse_object,
    shown,
)

checks = Checks()

_UNKNOWN = frozenset((HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED))


def _ask(probe: Probe, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = probe.client.post(path, body)
    if answer.status in _UNKNOWN:
        raise Skipped(f"{path} is not known here ({answer.status})")
    expect_status(answer, (HTTPStatus.OK,), "200 and an answer")
    return document_of(answer)


def _last_type(probe: Probe, path: str, body: dict[str, Any]) -> str:
    """The type of the last event of a stream."""
    with probe.client.stream(path, body) as stream:
        if stream.status != HTTPStatus.OK:
            expect_status(stream.answer(), (HTTPStatus.OK,), "200 and a stream")
        events = [event.data for event in stream.events()]
    typed = [parse_object(data).get("type") for data in events if data != "[DONE]"]
    if not typed:
        raise Failed("events", "none")
    return str(typed[-1])


@checks.check("completions", "POST /v1/completions goes on with a text")
def _completions(probe: Probe) -> None:
    body = {"model": probe.model, "prompt": "Once upon a time", "max_tokens": 4}
    choices = _ask(probe, "/v1/completions", body).get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0].get("text"), str):
        raise Failed("a choice with a text", shown(choices))


@checks.check("responses", "POST /v1/responses answers, in a stream up to its last event")
def _responses(probe: Probe) -> None:
    body = {"model": probe.model, "input": "Say hello.", "max_output_tokens": 16}
    document = _ask(probe, "/v1/responses", body)
    expect(document.get("object") == "response", "the object response", document.get("object"))
    last = _last_type(probe, "/v1/responses", body)
    expect(last in {"response.completed", "response.incomplete"}, "response.completed at the end", last)


@checks.check("anthropic", "POST /v1/messages answers, in a stream up to message_stop")
def _messages(probe: Probe) -> None:
    body = {
        "model": probe.model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
    }
    document = _ask(probe, "/v1/messages", body)
    expect(document.get("type") == "message", "the type message", document.get("type"))
    last = _last_type(probe, "/v1/messages", body)
    expect(last == "message_stop", "message_stop at the end", last)
