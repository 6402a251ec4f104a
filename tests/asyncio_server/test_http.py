"""The server as HTTP sees it: good and bad requests, limits, listeners, slow and vanished clients."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.gateway import Gateway, stream_lines, wait_until
from tests.support.upstream import CHUNK, LAST, STREAM_HEAD, Upstream, chunked, reply

ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'
ASK = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def post(body: bytes = ASK, path: bytes = b"/v1/chat/completions", headers: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (path, len(body), headers) + body


def serve(connection: socket.socket, head: bytes, body: bytes) -> None:
    if b'"stream": true' in body or b'"stream":true' in body:
        connection.sendall(STREAM_HEAD + chunked(CHUNK) + chunked(LAST) + b"0\r\n\r\n")
    else:
        connection.sendall(
            reply(ANSWER, headers=b"Server: secret/1\r\nX-Keep: yes\r\nConnection: X-Gone\r\nX-Gone: 1\r\n")
        )


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(serve) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: Upstream) -> Iterator[Gateway]:
    limits = "max_body_bytes = 100000, head_timeout = 1, body_timeout = 1, keep_alive_timeout = 2"
    with Gateway(upstream.lua("m"), server=limits) as running:
        yield running


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_kept_alive_and_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    answer = gateway.raw(
        post() + post(b"{bad") + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 400, 200]
    assert answer.endswith(b'{"status":"ok"}')


def test_expect_continue(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        head, body = post(headers=b"Expect: 100-continue\r\nConnection: close\r\n").split(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_refusal_costs_a_request_without_a_body_no_connection(gateway: Gateway) -> None:
    lost = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = gateway.raw(lost + lost + last)
    assert (answers.count(b"HTTP/1.1 404"), answers.count(b"HTTP/1.1 200")) == (2, 1)


def test_a_body_announced_too_large_is_refused_before_it_is_sent(gateway: Gateway) -> None:
    answer = gateway.raw(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n"
    )
    assert status_of(answer) == 413
    assert b"100 Continue" not in answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (
            b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (post(b"[]"), 400),
        (post(b'{"model": 1, "messages": []}'), 400),
        (post(b"\xff\xfe"), 400),
        (
            b"PUT /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            405,
        ),
    ],
)
def test_bad_requests_get_an_answer_of_openais_shape(gateway: Gateway, data: bytes, status: int) -> None:
    if status == 400 and b"Connection" not in data:
        data = data.replace(b"Content-Type", b"Connection: close\r\nContent-Type")
    answer = gateway.raw(data)
    assert status_of(answer) == status
    assert b"x-request-id: req_" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_slow_head_and_a_slow_body_time_out(gateway: Gateway) -> None:
    assert status_of(gateway.raw(b"GET /health HT")) == 408
    assert status_of(gateway.raw(post()[:-5])) == 408


def test_an_idle_connection_is_closed(gateway: Gateway) -> None:
    assert gateway.raw(b"") == b""


def test_half_a_request_and_gone_leaves_nothing(gateway: Gateway) -> None:
    for data in (b"GET", post()[:40], post()[:-3]):
        with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
            sock.sendall(data)
    assert gateway.request("GET", "/health")[0] == 200


def test_headers_of_the_upstream_are_cleaned(gateway: Gateway, upstream: Upstream) -> None:
    headers = {
        "Authorization": "Bearer client-secret",
        "X-Api-Key": "client-secret",
        "Cookie": "a=b",
        "Accept": "x/y",
    }
    _, answered, _ = gateway.request("POST", "/v1/chat/completions", json.loads(ASK), headers)
    assert answered["x-keep"] == "yes"
    assert not {"server", "x-gone", "connection"} & answered.keys()
    head, body = upstream.requests[-1]
    assert b"client-secret" not in head
    assert b"cookie" not in head.lower()
    assert json.loads(body) == json.loads(ASK)


def test_credentials_and_model_name_of_a_provider(upstream: Upstream) -> None:
    lua = upstream.lua("mine", 'api_key_env = "PROVIDER_KEY", upstream_model = "theirs"')
    with Gateway(lua, env={"PROVIDER_KEY": "sk-provider"}) as gateway:
        assert gateway.chat("mine")[0] == 200
        head, body = upstream.requests[-1]
        assert b"authorization: bearer sk-provider" in head.lower()
        assert json.loads(body)["model"] == "theirs"
        assert "sk-provider" not in gateway.log


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(gateway: Gateway) -> None:
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    answer = gateway.raw(post(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"transfer-encoding" not in answer.lower()
    assert answer.endswith(b"data: [DONE]\n\n")


def test_all_kinds_of_listeners_and_keys(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen = f'listen_v4 = {{ "127.0.0.1:0", "127.0.0.2:0" }}, listen_v6 = "[::1]:0", listen_unix = "{path}"'
    with Gateway(upstream.lua("m"), listen=listen, server='api_keys = { "k1", "k2" }') as gateway:
        line = next(line for line in gateway.log.splitlines() if "listening on" in line)
        assert f"unix:{path}" in line
        assert line.count("http://") == 3
        assert gateway.chat("m")[0] == 401
        assert gateway.request("GET", "/health")[0] == 200
        auth = {"Authorization": "Bearer k2"}
        assert gateway.request("GET", "/v1/models", headers=auth)[0] == 200
        assert gateway.request("GET", "/v1/models", headers={"x-api-key": "k1"})[0] == 200
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: anything\r\nAuthorization: Bearer k1\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        port = int(line.split("http://[::1]:")[1].split(",")[0].split(";")[0])
        with socket.create_connection(("::1", port)) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: [::1]\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert not path.exists()


def test_too_many_connections_are_turned_away(upstream: Upstream) -> None:
    with Gateway(upstream.lua("m"), server="max_connections = 2") as gateway:
        held = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(2)]
        time.sleep(0.2)
        status, headers, body = gateway.request("GET", "/health")
        assert (status, headers["retry-after"]) == (503, "1")
        assert "max_connections" in json.loads(body)["error"]["message"]
        for sock in held:
            sock.close()
        wait_until(lambda: gateway.request("GET", "/health")[0] == 200, "room again")


def test_a_slow_client_slows_the_upstream_and_not_the_memory() -> None:
    sent = [0]
    blocked = threading.Event()

    def endless(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(STREAM_HEAD)
        connection.settimeout(2)
        try:
            for _ in range(4000):
                connection.sendall(chunked(CHUNK * 200))
                sent[0] += len(CHUNK) * 200
        except TimeoutError:
            blocked.set()

    with Upstream(endless) as upstream, Gateway(upstream.lua("m")) as gateway:
        assert (
            gateway.request("GET", "/api/keys")[0] == 200
        )  # the store is open, and loaded with all it needs
        before = psutil.Process(gateway.pid).memory_info().rss
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        with stream_lines(gateway, body) as response:
            response.read(10)
            assert blocked.wait(30)
            grown = psutil.Process(gateway.pid).memory_info().rss - before
        assert sent[0] < 40_000_000
        assert grown < 16_000_000
        wait_until(lambda: " canceled " in gateway.log, "the client is noticed to be gone")


def test_a_client_that_vanishes_while_it_waits_is_noticed() -> None:
    gone = threading.Event()

    def silent(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.settimeout(20)
        if connection.recv(1) == b"":
            gone.set()

    with Upstream(silent) as upstream, Gateway(upstream.lua("m")) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
            sock.sendall(post())
            wait_until(lambda: upstream.requests, "the upstream has the request")
        assert gone.wait(15), "the upstream's connection is closed"
        wait_until(lambda: " canceled " in gateway.log, "the record")


def test_a_stream_that_breaks_off_ends_with_an_error_event_and_a_body_is_never_begun() -> None:
    def broken(connection: socket.socket, head: bytes, body: bytes) -> None:
        if b'"stream": true' in body:
            connection.sendall(STREAM_HEAD + chunked(CHUNK))
        else:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
        connection.shutdown(socket.SHUT_RDWR)

    with Upstream(broken) as upstream, Gateway(upstream.lua("m")) as gateway:
        with stream_lines(gateway, json.loads(ASK)) as response:
            events = response.read().split(b"\n\n")
        assert json.loads(events[1].removeprefix(b"data: "))["error"]["code"] == "upstream_broke"
        assert events[2] == b""
        status, headers, body = gateway.chat("m")
        assert (status, body["error"]["code"]) == (502, "upstream_unreachable")
        assert headers["x-gw-attempts"] == str(len(body["error"]["attempts"])) == "3"


def test_a_stream_without_its_end_is_no_success() -> None:
    def short(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunked(CHUNK) + b"0\r\n\r\n")

    with (
        Upstream(short) as upstream,
        Gateway(upstream.lua("m")) as gateway,
        stream_lines(gateway, json.loads(ASK)) as response,
    ):
        assert b"upstream_broke" in response.read()


def test_a_kept_connection_that_was_closed_is_replaced_unseen(tmp_path: Path) -> None:
    def once(connection: socket.socket, head: bytes, body: bytes) -> None:
        if len(upstream.requests) % 2 == 0:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        else:
            connection.sendall(reply(ANSWER))

    with Upstream(once) as upstream, Gateway(upstream.lua("m")) as gateway:
        assert gateway.chat("m")[0] == 200
        status, headers, _ = gateway.chat("m")
        assert (status, headers["x-gw-attempts"]) == (200, "1")
        assert upstream.connections == 2


def test_errors_of_the_upstream_are_passed_on_as_they_came() -> None:
    def refuse(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(reply(b'{"error":{"message":"no","code":418}}', b"418 No", b"Retry-After: 7\r\n"))

    with Upstream(refuse) as upstream, Gateway(upstream.lua("m")) as gateway:
        status, headers, body = gateway.chat("m")
        assert (status, headers["retry-after"], body) == (418, "7", {"error": {"message": "no", "code": 418}})
        status, headers, body = gateway.chat("m", stream=True)
        assert status == 418


def test_nobody_listens_upstream() -> None:
    with Upstream(serve) as upstream:
        lua = upstream.lua("m")
    with Gateway(lua) as gateway:
        status, headers, reply_ = gateway.chat("m")
        assert (status, headers["x-gw-attempts"]) == (502, "3")
        assert reply_["error"]["code"] == "upstream_unreachable"


def test_a_unix_socket_left_by_a_killed_server_is_taken_over(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen = f'listen_v4 = "127.0.0.1:0", listen_v6 = "none", listen_unix = "{path}"'
    with Gateway(upstream.lua("m"), listen=listen) as gateway:
        os.kill(gateway.pid, 9)
        gateway.stop()
        assert path.exists()
        gateway.start()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))


def test_dumps_hold_the_request_and_the_answer(upstream: Upstream, tmp_path: Path) -> None:
    old, foreign = tmp_path / "req_old.request", tmp_path / "notes.txt"
    old.touch()
    foreign.touch()
    settings = f'dumps_dir = "{tmp_path}", clear_dumps_on_start = true'
    with Gateway(upstream.lua("m"), server=settings) as gateway:
        _, headers, _ = gateway.request("POST", "/v1/chat/completions", ASK)
        name = headers["x-request-id"]
    assert (tmp_path / f"{name}.request").read_bytes() == ASK
    assert (tmp_path / f"{name}.answer").read_bytes() == ANSWER
    assert foreign.exists()
    assert not old.exists()


def test_an_upstream_behind_tls_is_verified_and_used(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [openssl, *command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Upstream(serve, tls) as secure:
        with Gateway(secure.lua("m"), env={"SSL_CERT_FILE": str(certificate)}) as gateway:
            assert gateway.chat("m")[0] == 200
            assert gateway.chat("m")[0] == 200
            assert secure.connections == 1
        assert "eof_received" not in gateway.log_at_end
        with Gateway(secure.lua("m")) as stranger:
            status, _, reply_ = stranger.chat("m")
            assert (status, reply_["error"]["code"]) == (502, "upstream_unreachable")
            assert "certificate" in reply_["error"]["message"]


def test_a_shutdown_lets_a_slow_client_take_the_rest_of_its_answer() -> None:
    size = 3_000_000

    def large(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(reply(b'{"text":"' + b"x" * size + b'"}'))

    with Upstream(large) as upstream, Gateway(upstream.lua("m")) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.sendall(post())
            received = len(sock.recv(1000))
            os.kill(gateway.pid, signal.SIGTERM)
            while piece := sock.recv(65536):
                received += len(piece)
                time.sleep(0.005)
        assert received > size
        assert gateway.process is not None
        # It was told to end; told again while it does, it could be cut off.
        assert gateway.process.wait(20) == 0
