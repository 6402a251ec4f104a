"""Answers that end in their middle, and requests that do: what is on the wire, byte for byte."""

import json
import socket
from pathlib import Path

import pytest

from tests.support.gunicorn import GunicornGateway
from tests.support.upstream import CHUNK, STREAM_HEAD, Upstream, chunked, reply

ASK = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'


def post(body: bytes = ASK, version: bytes = b"1.1") -> bytes:
    head = b"POST /v1/chat/completions HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (version, len(body)) + body


HALF = b'{"text":"' + b"x" * 1_500_000
"""More than is held back for another attempt, so that the client has its beginning when the upstream breaks off."""


def break_off(connection: socket.socket, head: bytes, body: bytes) -> None:
    """An event stream, a body of known size or one in chunks: none of them gets to its end."""
    if b'"stream":true' in body:
        connection.sendall(STREAM_HEAD + chunked(CHUNK))
    elif b"sized" in body:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n" + HALF
        )
    else:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunked(HALF)
        )
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_what_broke_off_never_looks_complete(worker_class: str) -> None:
    with (
        Upstream(break_off) as upstream,
        GunicornGateway(upstream.lua("m"), worker_class=worker_class, workers=1) as gateway,
    ):
        head, _, body = gateway.raw(post(ASK.replace(b"hi", b"sized"))).partition(b"\r\n\r\n")
        assert b"content-length: 3000000" in head.lower()
        assert body == HALF
        head, _, body = gateway.raw(post()).partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        assert body.count(b"x") == HALF.count(b"x")
        assert body.endswith(b"x\r\n")
        assert gateway.log.count(" broke_off ") == 2
        events = gateway.raw(post(STREAM)).partition(b"\r\n\r\n")[2]
        assert b'"upstream_broke"' in events
        assert events.endswith(b"\r\n0\r\n\r\n")
        assert gateway.request("GET", "/health")[0] == 200


def test_a_stream_to_an_http_1_0_client_ends_with_the_connection() -> None:
    def whole(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunked(CHUNK + b"data: [DONE]\n\n") + b"0\r\n\r\n")

    with Upstream(whole) as upstream, GunicornGateway(upstream.lua("m"), workers=1) as gateway:
        answer = gateway.raw(post(STREAM, b"1.0"))
    assert b"transfer-encoding" not in answer.lower()
    assert answer.endswith(CHUNK + b"data: [DONE]\n\n")


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_a_body_that_does_not_come(worker_class: str) -> None:
    with GunicornGateway(
        '{ name = "m", engine = presets.engines.openai, connect = "http://127.0.0.1:1" }',
        worker_class=worker_class,
        workers=1,
        server="body_timeout = 1",
    ) as gateway:
        late = gateway.raw(post()[:-5])
        assert late.startswith(b"HTTP/1.1 408 ")
        assert b'"request_timeout"' in late
        nonsense = post().replace(b"Content-Length: 57", b"Transfer-Encoding: chunked") + b"\r\n"
        answer = gateway.raw(nonsense)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
            sock.sendall(post()[:-5])
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert gateway.request("GET", "/health")[0] == 200


def test_statuses_without_a_body() -> None:
    def nothing(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(b"HTTP/1.1 204 No Content\r\nX-Keep: yes\r\n\r\n")

    with Upstream(nothing) as upstream, GunicornGateway(upstream.lua("m"), workers=1) as gateway:
        answer = gateway.raw(post())
        assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"x-keep: yes" in answer
        assert answer.endswith(b"\r\n\r\n")
        assert "answered 204" in gateway.log


def test_a_megabyte_passes_both_ways() -> None:
    def echo(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(reply(body))

    text = "größer als ein Puffer " * 50_000
    with Upstream(echo) as upstream, GunicornGateway(upstream.lua("m"), workers=1) as gateway:
        status, _, answer = gateway.chat("m", text)
    assert (status, answer["messages"][0]["content"]) == (200, text)


def test_dumps_hold_the_request_and_the_answer(tmp_path: Path) -> None:
    def serve(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(reply(b'{"choices":[]}'))

    with (
        Upstream(serve) as upstream,
        GunicornGateway(upstream.lua("m"), server=f'dumps_dir = "{tmp_path}"') as gateway,
    ):
        _, headers, _ = gateway.request("POST", "/v1/chat/completions", ASK)
    name = headers["x-request-id"]
    assert (tmp_path / f"{name}.request").read_bytes() == ASK
    assert (tmp_path / f"{name}.answer").read_bytes() == b'{"choices":[]}'
