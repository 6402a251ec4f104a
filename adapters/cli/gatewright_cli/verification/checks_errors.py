"""Checks of what is told to clients who are wrong."""

from http import HTTPStatus
from typing import Any

from gatewright_cli.verification.check import CHAT, NO_MODEL, Checks, Need, Probe
from gatewright_cli.verification.outcome import CLIENT_ERRORS, error_of, expect_status

checks = Checks()

_REFUSALS = frozenset((HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY))


def _expect_refusal(probe: Probe, body: object) -> dict[str, Any]:
    return error_of(probe.client.post(CHAT, body), _REFUSALS, "400 and an error")


@checks.check("unknown-model", "a model that does not exist is an error of the client's", Need.ACCESS)
def _unknown_model(probe: Probe) -> None:
    error_of(probe.chat(model=NO_MODEL), CLIENT_ERRORS, "a status of 4xx")


@checks.check("bad-json", "a body that is no JSON is refused", Need.ACCESS)
def _bad_json(probe: Probe) -> None:
    for body in (b"{nonsense", b"\xff\xfe", b"[]"):
        _expect_refusal(probe, body)


@checks.check("wrong-types", "members of the wrong type are refused")
def _wrong_types(probe: Probe) -> None:
    _expect_refusal(probe, probe.chat_body(messages="Say hello."))
    _expect_refusal(probe, probe.chat_body(messages=[{"role": "user", "content": 1}]))


@checks.check("no-messages", "a question without messages is refused")
def _no_messages(probe: Probe) -> None:
    body = probe.chat_body()
    del body["messages"]
    _expect_refusal(probe, body)


@checks.check("unknown-path", "a path that does not exist is 404", Need.ACCESS)
def _unknown_path(probe: Probe) -> None:
    expect_status(probe.client.get("/no/such/path"), (HTTPStatus.NOT_FOUND,), "404")


@checks.check("wrong-method", "a method that a path does not take is 405, or 404", Need.ACCESS)
def _wrong_method(probe: Probe) -> None:
    wrong = (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_FOUND)
    expect_status(probe.client.get(CHAT), wrong, "405")
    expect_status(probe.client.send("DELETE", CHAT), wrong, "405")
