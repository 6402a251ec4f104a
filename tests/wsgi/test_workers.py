"""Worker processes: they share engines, and come, go and are killed without taking anything along."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gatewright_host.host_client import BlockingHostClient
from tests.support.gateway import model_lua, stream_lines, wait_until
from tests.support.gunicorn import GunicornGateway
from tests.support.upstream import CHUNK, STREAM_HEAD, Upstream, chunked, reply

HI = [{"role": "user", "content": "hi"}]
ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'
LONG = {"model": "slow", "messages": HI, "max_tokens": 3000}


def leases(gateway: GunicornGateway) -> int:
    """Requests that hold an engine."""
    with BlockingHostClient.connect(gateway.state, start=False, watch=True) as client:
        return sum(report.engine.leases for report in client.status().engines)


def answering(connection: socket.socket, head: bytes, body: bytes) -> None:
    connection.sendall(reply(ANSWER))


def served_by(gateway: GunicornGateway, number: int = 2) -> set[str]:
    """Ask until so many workers have answered; each numbers its requests by a name of its own."""
    seen: set[str] = set()
    for _ in range(200):
        seen.add(gateway.chat("tiny")[1]["x-request-id"][:12])
        if len(seen) == number:
            break
    return seen


@pytest.mark.engine
@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
@pytest.mark.parametrize("args", [(), ("--preload",)])
def test_workers_share_one_host_and_its_engines(
    tiny_model: Path, worker_class: str, args: tuple[str, ...]
) -> None:
    lua = model_lua("tiny", tiny_model, (1024,), slots=2)
    with GunicornGateway(lua, worker_class=worker_class, args=args) as gateway:
        assert len(served_by(gateway)) == 2
        assert len(gateway.workers()) == 2
        assert len(gateway.engines()) == 1
        # The master, its workers, the host and the engine: nobody started another.
        assert len(gateway.processes()) == 5


@pytest.mark.engine
def test_a_killed_worker_frees_its_engine_and_its_successor_attaches(slow_model: Path) -> None:
    with GunicornGateway(model_lua("slow", slow_model, (4096,)), workers=1) as gateway:
        gateway.chat("slow")
        (engine,) = gateway.engines()
        (worker,) = gateway.workers()
        with stream_lines(gateway, LONG) as response:
            response.read(10)
            assert leases(gateway) == 1
            worker.kill()
            wait_until(lambda: leases(gateway) == 0, "the lease is freed", 3)
        wait_until(lambda: gateway.workers() not in ([], [worker]), "gunicorn starts another worker")
        status, headers, _ = gateway.chat("slow")
        assert status == 200
        assert int(headers["x-gw-wait-ms"]) < 1000  # the engine has let go of the answer that nobody wanted
        assert [process.pid for process in gateway.engines()] == [engine.pid]


@pytest.mark.engine
@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_recycled_workers_drop_nothing(tiny_model: Path, worker_class: str) -> None:
    lua = model_lua("tiny", tiny_model, (1024,), slots=2)
    recycling = ("--max-requests", "5", "--max-requests-jitter", "3")
    answers: list[bytes] = []
    with GunicornGateway(lua, worker_class=worker_class, args=recycling) as gateway:

        def ask() -> None:
            for _ in range(10):
                with stream_lines(gateway, {"model": "tiny", "messages": HI, "max_tokens": 8}) as response:
                    answers.append(response.read())

        first = {process.pid for process in gateway.workers()}
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(answers) == 60
        assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
        assert not first & {process.pid for process in gateway.workers()}
        wait_until(lambda: leases(gateway) == 0, "all leases are given back")
        assert len(gateway.engines()) == 1
        assert gateway.log.count(" answered 200") == 60


@pytest.mark.engine
def test_the_last_one_out_leaves_no_process(tiny_model: Path) -> None:
    lua = model_lua("tiny", tiny_model, (1024,), extra="engine_idle_timeout = 1")
    with GunicornGateway(lua, host_linger_s=2) as gateway:
        assert gateway.chat("tiny")[0] == 200
        host = gateway.host()
        assert host is not None
        assert gateway.stop() == 0
        assert gateway.engines()
        wait_until(lambda: not gateway.processes(), "engine and host end by themselves")


@pytest.mark.engine
def test_the_end_lets_requests_finish(slow_model: Path) -> None:
    with GunicornGateway(model_lua("slow", slow_model, (4096,)), workers=1) as gateway:
        with stream_lines(gateway, {**LONG, "max_tokens": 200}) as response:
            response.read(10)
            os.kill(gateway.pid, signal.SIGTERM)
            assert response.read().endswith(b"data: [DONE]\n\n")
        assert gateway.stop() == 0


@pytest.mark.engine
def test_what_outlasts_the_graceful_timeout_is_cut_and_frees_its_engine(slow_model: Path) -> None:
    lua = model_lua("slow", slow_model, (4096,))
    with GunicornGateway(lua, workers=1, args=("--graceful-timeout", "1")) as gateway:
        with stream_lines(gateway, LONG) as response:
            response.read(10)
            assert gateway.stop() == 0
        wait_until(lambda: leases(gateway) == 0, "the lease is freed")


def test_hup_reads_the_configuration_again() -> None:
    with Upstream(answering) as upstream, GunicornGateway(upstream.lua("old"), workers=1) as gateway:
        assert gateway.chat("old")[0] == 200
        gateway.write_config(upstream.lua("new"))
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: gateway.chat("new")[0] == 200, "new workers serve the new configuration")
        wait_until(lambda: gateway.chat("old")[0] == 404, "and only that")


def silent(gone: threading.Event) -> Callable[[socket.socket, bytes, bytes], None]:
    """An upstream that never answers."""

    def serve(connection: socket.socket, head: bytes, body: bytes) -> None:
        if connection.recv(1) == b"":
            gone.set()

    return serve


def endless(gone: threading.Event) -> Callable[[socket.socket, bytes, bytes], None]:
    """An upstream that never ends."""

    def serve(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(STREAM_HEAD)
        try:
            while True:
                connection.sendall(chunked(CHUNK))
                time.sleep(0.05)
        except OSError:
            gone.set()

    return serve


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
@pytest.mark.parametrize("behave", [silent, endless])
@pytest.mark.parametrize("stream", [False, True])
def test_a_vanished_client_cancels_its_upstream(
    worker_class: str,
    behave: Callable[[threading.Event], Callable[[socket.socket, bytes, bytes], None]],
    stream: bool,
) -> None:
    gone = threading.Event()
    ask = json.dumps({"model": "m", "messages": HI, "stream": stream}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(ask)
    with (
        Upstream(behave(gone)) as upstream,
        GunicornGateway(upstream.lua("m"), worker_class=worker_class, workers=1) as gateway,
    ):
        with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
            sock.sendall(head + ask)
            wait_until(lambda: upstream.requests, "the upstream has the request")
            if behave is endless:
                sock.recv(1000)
            # The beginning of another request: that more is to be read must not hide that there is no reader.
            sock.sendall(b"GET /hea")
        assert gone.wait(15), "the upstream's connection is closed"
        wait_until(lambda: " canceled " in gateway.log, "the record")


def test_a_client_that_takes_nothing_is_dropped() -> None:
    gone = threading.Event()

    def flood(connection: socket.socket, head: bytes, body: bytes) -> None:
        connection.sendall(STREAM_HEAD)
        try:
            while True:
                connection.sendall(chunked(CHUNK * 1000))
        except OSError:
            gone.set()

    with (
        Upstream(flood) as upstream,
        GunicornGateway(upstream.lua("m"), workers=1, server="stall_timeout = 1") as gateway,
        stream_lines(gateway, {"model": "m", "messages": HI}) as response,
    ):
        (worker,) = gateway.workers()
        before = worker.memory_info().rss
        response.read(10)
        assert gone.wait(20)
        assert worker.memory_info().rss - before < 16_000_000
        wait_until(lambda: " canceled " in gateway.log, "the record")


def test_connections_to_upstreams_are_kept_between_requests() -> None:
    with (
        Upstream(answering) as upstream,
        GunicornGateway(upstream.lua("m"), workers=1, args=("--preload",)) as gateway,
    ):
        for _ in range(5):
            assert gateway.chat("m")[0] == 200
        assert upstream.connections == 1


def test_the_master_of_preloaded_workers_holds_nothing(tiny_model: Path) -> None:
    """No thread that a fork would lose, and no connection that its children would share."""
    with GunicornGateway(
        model_lua("tiny", tiny_model, (512,)), args=("--preload", "--threads", "2")
    ) as gateway:
        master = psutil.Process(gateway.pid)
        assert master.num_threads() == 1
        assert [c.status for c in master.net_connections("tcp")] == [psutil.CONN_LISTEN]
