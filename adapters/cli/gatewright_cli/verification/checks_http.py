"""Checks of HTTP itself, of which proxies and the rarer clients make use."""

import contextlib
import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.client import RemoteDisconnected
from typing import Final

from gatewright_cli.verification.check import CHAT, Checks, Need, Probe
from gatewright_cli.verification.client import Answer
from gatewright_cli.verification.outcome import CLIENT_ERRORS, Failed, expect, expect_status
from gatewright_cli.verification.raw_answers import read_answer, read_answers

checks = Checks()

_MODELS: Final = "/v1/models"
_CLOSE: Final = "Connection: close"
_HOP_BY_HOP: Final = ("proxy-authenticate", "proxy-connection", "te", "trailer", "upgrade")
_QUIET_S: Final = 2.0
"""How long to wait for an answer that may rightly never come."""
_HUGE_FIELD_BYTES: Final = 200_000


def _closing(
    probe: Probe, method: str, path: str, body: bytes = b"", fields: Sequence[str] = ()
) -> tuple[Answer, bytes]:
    """The one answer of a connection that is to be closed after it, and all its bytes."""
    data = probe.client.raw(probe.client.request_bytes(method, path, body, [*fields, _CLOSE]))
    return read_answer(data, method), data


def _chat_bytes(probe: Probe, *, stream: bool = False) -> bytes:
    return json.dumps(probe.chat_body(max_tokens=2, stream=stream)).encode()


@checks.check("framing", "answers are well-formed: each header once, the length true, the end marked")
def _framing(probe: Probe) -> None:
    for stream in (False, True):
        answer, _ = _closing(probe, "POST", CHAT, _chat_bytes(probe, stream=stream))
        expect_status(answer, (HTTPStatus.OK,), "200")
        found = [name for name in _HOP_BY_HOP if answer.get(name) is not None]
        expect(not found, "no headers of another connection", found)


@checks.check("framing-local", "lists and errors are well-formed, too", Need.ACCESS)
def _framing_local(probe: Probe) -> None:
    _closing(probe, "GET", _MODELS)
    _closing(probe, "GET", "/no/such/path")
    _closing(probe, "POST", CHAT, b"{nonsense")


@checks.check("head", "an answer to HEAD has no body", Need.ACCESS)
def _head(probe: Probe) -> None:
    _closing(probe, "HEAD", _MODELS)


@checks.check("keep-alive", "a connection is kept for the next request, or its end is announced", Need.ACCESS)
def _keep_alive(probe: Probe) -> None:
    with probe.client.session() as connection:
        for number in range(3):
            response = probe.client.exchange(connection, "GET", _MODELS)
            response.read()
            expect(response.status == HTTPStatus.OK, f"200 for request {number + 1}", response.status)
            # http.client opens another connection by itself if the end of this one was announced, and only then.


@checks.check("keep-alive-stream", "so is a connection after a stream, and after an error")
def _keep_alive_stream(probe: Probe) -> None:
    bodies = (probe.chat_body(stream=True), b"{nonsense", probe.chat_body())
    statuses = []
    with probe.client.session() as connection:
        for body in bodies:
            try:
                response = probe.client.exchange(connection, "POST", CHAT, body)
                response.read()
            except RemoteDisconnected:
                raise Failed("a connection that is kept, or its end announced", "neither") from None
            statuses.append(response.status)
    expect(statuses[0] == statuses[2] == HTTPStatus.OK, "200, an error and 200", statuses)


@checks.check("pipelining", "requests sent at once are answered in their order", Need.ACCESS)
def _pipelining(probe: Probe) -> None:
    client = probe.client
    requests = client.request_bytes("GET", "/no/such/path") + client.request_bytes(
        "GET", _MODELS, fields=[_CLOSE]
    )
    answers = read_answers(client.raw(requests), "GET", "GET")
    expect(answers, "answers", "none")
    statuses = [answer.status for answer in answers]
    is_announced = len(answers) == 1 and "close" in (answers[0].get("connection") or "").lower()
    expect(
        statuses == [HTTPStatus.NOT_FOUND, HTTPStatus.OK] or is_announced,
        "404 and 200, or connection: close with the first",
        statuses,
    )


@checks.check("chunked-request", "a body in chunks is read, or its length is asked for")
def _chunked(probe: Probe) -> None:
    body = _chat_bytes(probe)
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    answer, _ = _closing(probe, "POST", CHAT, data, ["Transfer-Encoding: chunked"])
    expect_status(answer, (HTTPStatus.OK, HTTPStatus.LENGTH_REQUIRED), "200 or 411")


@checks.check("expect-continue", "a client that waits for 100 Continue is not left waiting")
def _expect_continue(probe: Probe) -> None:
    body = _chat_bytes(probe)
    head = probe.client.request_bytes(
        "POST", CHAT, fields=["Expect: 100-continue", f"Content-Length: {len(body)}", _CLOSE]
    )
    with probe.client.connect() as connection:
        connection.sendall(head)
        connection.settimeout(_QUIET_S)
        received = b""
        with contextlib.suppress(TimeoutError):  # clients go on after a while; it has to work then, too
            received = connection.recv(65_536)
        connection.settimeout(probe.client.timeout_s)
        connection.sendall(body)
        while piece := connection.recv(65_536):
            received += piece
    answer = read_answer(received, "POST")
    expect_status(answer, (HTTPStatus.OK, HTTPStatus.EXPECTATION_FAILED), "200 or 417")


@checks.check("http-1.0", "a client of HTTP/1.0 gets a stream without chunks")
def _http_1_0(probe: Probe) -> None:
    body = _chat_bytes(probe, stream=True)
    data = probe.client.raw(probe.client.request_bytes("POST", CHAT, body, version="1.0"))
    answer = read_answer(data, "POST")
    expect_status(answer, (HTTPStatus.OK, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED), "200 or 505")
    coding = answer.get("transfer-encoding")
    expect(coding is None, "no transfer-encoding", coding)


@checks.check("two-lengths", "a request with two lengths is refused: request smuggling", Need.ACCESS)
def _two_lengths(probe: Probe) -> None:
    client = probe.client
    inner = client.request_bytes("GET", _MODELS, fields=[_CLOSE])
    for fields in (
        ["Transfer-Encoding: chunked", f"Content-Length: {len(inner) + 5}"],
        ["Content-Length: 5", f"Content-Length: {len(inner) + 5}"],
    ):
        received = client.raw(
            client.request_bytes("POST", CHAT, b"0\r\n\r\n" + inner, fields), quiet_s=_QUIET_S
        )
        _expect_one_refusal(received)


@checks.check("nonsense", "what is no HTTP is refused, and harms nobody", Need.ACCESS)
def _nonsense(probe: Probe) -> None:
    for data in (
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\n\r\n",
    ):
        began_at_s = time.monotonic()
        received = probe.client.raw(data, quiet_s=_QUIET_S)
        is_closed = time.monotonic() - began_at_s < _QUIET_S
        expect(received or is_closed, "a refusal, or a closed connection", "silence")
    expect_status(probe.client.get(_MODELS), (HTTPStatus.OK,), "200 after that")


@checks.check("huge-header", "a header of 200 kB is refused, and harms nobody", Need.ACCESS)
def _huge_header(probe: Probe) -> None:
    data = probe.client.request_bytes("GET", _MODELS, fields=[f"X-Huge: {'a' * _HUGE_FIELD_BYTES}", _CLOSE])
    received = probe.client.raw(data, quiet_s=_QUIET_S)
    _expect_one_refusal(received)
    expect_status(probe.client.get(_MODELS), (HTTPStatus.OK,), "200 after that")


def _expect_one_refusal(received: bytes) -> None:
    """Go on only if the connection was closed without a word, or with one refusal."""
    if not received:
        return
    answer = read_answer(received, "GET")
    if answer.status not in CLIENT_ERRORS:
        raise Failed("a status of 4xx", str(answer.status))
