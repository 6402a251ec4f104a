"""The blocking driver as a whole: real sockets upstream, a fake engine host, a client that keeps what it gets."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from attrs import evolve

from gatewright.commands import Outcome
from gatewright.config import Config, EngineKind
from gatewright.errors import EngineHostLost, EngineStopped
from gatewright.leases import (
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseNews,
    LeaseProgress,
    LeasePurpose,
    LeaseRefused,
    ReleaseLease,
)
from gatewright.wire.sse import MAX_PARTIAL_BYTES
from gatewright_host.blocking import driver as driver_module
from gatewright_host.blocking import exchange as exchange_module
from gatewright_host.blocking import streams as streams_module
from gatewright_host.blocking.service import Service
from gatewright_host.host_client import BlockingHostClient
from tests.host.blocking.fakes import (
    EVENTS,
    PATIENCE_S,
    STREAM_HEAD,
    Client,
    FakeHost,
    InThread,
    Upstream,
    chunk,
    cuts,
    event,
    exchange,
    overflow,
    resets,
    says,
    streams,
    two_variants,
    upstream,
)
from tests.support.configs import local_model, read, remote_model, variant
from tests.support.host import until_blocking


@contextmanager
def service_on(
    host: FakeHost, config: Config | None = None, on_news: Callable[[LeaseNews], None] | None = None
) -> Iterator[Service]:
    connect = cast("BlockingHostClient", host)
    with Service(config or two_variants(), lambda: connect, on_news=on_news) as service:
        yield service


def no_host() -> BlockingHostClient:
    raise AssertionError("a provider that is called in any case needs no engine host")


@contextmanager
def granted(server: Upstream, config: Config | None = None) -> Iterator[tuple[Service, FakeHost]]:
    """A service whose leases of the smaller variant are granted at once, with this upstream."""
    host = FakeHost({4096: server.url})
    with service_on(host, config) as service:
        yield service, host


def test_a_stream_comes_through_whole() -> None:
    with upstream(streams()) as server, granted(server) as (service, host):
        client = Client()
        record = exchange(service, client).run()
        assert record.outcome is Outcome.ANSWERED
        assert record.finish_reason == "stop"
        assert client.content == b"".join(EVENTS)
        assert client.calls == ["begin", "write", "end"]
        assert client.headers["x-gw-model"] == "qwen"
        assert client.headers["x-gw-variant"] == "4096"
        assert client.headers["x-accel-buffering"] == "no"
        assert "transfer-encoding" not in client.headers
        assert host.balance == 0
        assert b"Bearer client" not in server.requests[0]


def test_a_body_comes_through_whole() -> None:
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    with upstream(says(200, whole)) as server, granted(server) as (service, _):
        client = Client()
        assert exchange(service, client, stream=False).run().outcome is Outcome.ANSWERED
        assert b"Hello" in client.content


def test_requests_share_a_kept_connection_and_outlive_its_end() -> None:
    def answers_and_closes(connection: socket.socket, request: bytes) -> None:
        streams()(connection, request)

    with upstream(streams(), answers_and_closes, streams()) as server, granted(server) as (service, _):
        for _ in range(3):
            assert exchange(service, Client()).run().outcome is Outcome.ANSWERED
        assert server.connections == 2


def test_a_kept_connection_that_closes_under_a_request_is_replaced() -> None:
    closing = threading.Event()

    def closes_on_the_next(connection: socket.socket, request: bytes) -> bool:
        if closing.is_set():
            return False
        closing.set()
        return bool(streams()(connection, request))

    with (
        upstream(closes_on_the_next, closes_on_the_next, streams()) as server,
        granted(server) as (service, _),
    ):
        assert exchange(service, Client()).run().outcome is Outcome.ANSWERED
        record = exchange(service, Client()).run()
        assert record.outcome is Outcome.ANSWERED
        assert record.attempts == 1
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    "breaks",
    [resets(), cuts(b""), cuts(b"HTTP/1.1 200 OK\r\n"), resets(STREAM_HEAD), cuts(b"nonsense\r\n\r\n")],
)
def test_a_break_before_the_first_byte_is_repeated_once_unseen(breaks: Any) -> None:
    with upstream(breaks, streams()) as server, granted(server) as (service, host):
        client = Client()
        record = exchange(service, client).run()
        assert (record.outcome, record.attempts) == (Outcome.ANSWERED, 2)
        assert client.content == b"".join(EVENTS)
        assert ReleaseLease(lease_id=host.heard[0].lease_id, suspect=True) in host.heard
        assert host.balance == 0


def test_two_breaks_before_the_first_byte_are_a_problem() -> None:
    with upstream(resets()) as server, granted(server) as (service, host):
        client = Client()
        record = exchange(service, client).run()
        assert (record.outcome, record.attempts) == (Outcome.FAILED, 2)
        assert client.calls == ["problem"]
        assert client.trouble is not None
        assert client.trouble.code == "upstream_unreachable"
        assert client.headers["x-gw-attempts"] == "2"
        assert host.balance == 0


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with service_on(FakeHost({4096: url})) as service:
        client = Client()
        assert exchange(service, client).run().outcome is Outcome.FAILED
        assert client.trouble is not None
        assert "refused" in client.trouble.message


@pytest.mark.parametrize("breaks", [resets, cuts])
def test_a_stream_that_breaks_off_ends_with_an_error(breaks: Any) -> None:
    begins = STREAM_HEAD + chunk(EVENTS[0]) + b"20\r\ndata: half an ev"
    config = read(local_model(prefill=False, variants=[variant(context=4096)]))
    with upstream(breaks(begins)) as server, granted(server, config) as (service, host):
        client = Client()
        record = exchange(service, client).run()
        assert record.outcome is Outcome.BROKE_OFF
        assert client.calls == ["begin", "write", "fail_stream"]
        assert client.content == EVENTS[0], "half an event has no place in an answer"
        assert host.balance == 0


def test_half_of_a_huge_event_is_ended_before_the_error() -> None:
    huge = b"data: " + b"x" * (MAX_PARTIAL_BYTES + 1000)
    with (
        upstream(cuts(STREAM_HEAD + chunk(EVENTS[0]) + chunk(huge))) as server,
        granted(server) as (service, _),
    ):
        client = Client()
        assert exchange(service, client).run().outcome is Outcome.BROKE_OFF
        assert client.content.endswith(b"x\n\n")
        assert client.calls == ["begin", "write", "fail_stream"]


def test_a_stream_without_its_end_is_no_success() -> None:
    with upstream(streams(event("Hello"))) as server, granted(server) as (service, _):
        client = Client()
        assert exchange(service, client).run().outcome is Outcome.BROKE_OFF
        assert client.calls[-1] == "fail_stream"


def test_a_body_that_breaks_off_is_cut() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    with upstream(cuts(head + b'{"choices"')) as server, granted(server) as (service, _):
        client = Client()
        assert exchange(service, client, stream=False).run().outcome is Outcome.FAILED
        assert client.calls == ["problem"], "nothing of it went out"


def test_a_long_body_that_breaks_off_is_cut() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3000000\r\n\r\n"
    with (
        upstream(cuts(head + b'{"choices": "' + 2_000_000 * b"x")) as server,
        granted(server) as (service, _),
    ):
        client = Client()
        assert exchange(service, client, stream=False).run().outcome is Outcome.BROKE_OFF
        assert (client.calls[0], client.calls[-1]) == ("begin", "cut")


def test_a_silent_upstream_is_given_up() -> None:
    done = threading.Event()

    def stalls(connection: socket.socket, _: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunk(EVENTS[0]))
        done.wait(PATIENCE_S)

    config = two_variants()
    config = Config(server=evolve(config.server, stall_timeout_s=0.05), models=config.models)
    with upstream(stalls) as server, granted(server, config) as (service, _):
        client = Client()
        record = exchange(service, client).run()
        done.set()
        assert record.outcome is Outcome.BROKE_OFF
        assert client.trouble is not None
        assert "silent for 0.05 s" in client.trouble.message


def test_an_overflow_goes_to_the_larger_variant_unseen() -> None:
    with upstream(overflow(5000, 4096)) as small, upstream(streams()) as large:
        host = FakeHost({4096: small.url, 16384: large.url})
        with service_on(host) as service:
            client = Client()
            record = exchange(service, client).run()
        assert (record.outcome, record.context_tokens, record.attempts) == (Outcome.ANSWERED, 16384, 2)
        assert client.status == 200
        assert client.content == b"".join(EVENTS)
        assert host.balance == 0
        assert small.connections == 1


def test_an_overflow_of_the_largest_is_a_problem_with_its_figures() -> None:
    with upstream(overflow(20_000, 4096)) as server, granted(server) as (service, _):
        client = Client()
        assert exchange(service, client).run().outcome is Outcome.FAILED
        assert client.trouble is not None
        assert client.trouble.code == "context_length_exceeded"
        assert client.trouble.details["n_prompt_tokens"] == 20_000


def test_another_error_of_the_upstream_passes_as_it_is() -> None:
    error = {"error": {"message": "no such parameter", "code": 400, "type": "invalid_request_error"}}
    with upstream(says(400, error)) as server, granted(server) as (service, _):
        client = Client()
        assert exchange(service, client).run().outcome is Outcome.UPSTREAM_ERROR
        assert client.status == 400
        assert b"no such parameter" in client.content


def test_a_remote_provider_gets_its_model_and_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "secret")
    with upstream(streams()) as server:
        model = remote_model(
            connect=server.url, upstream_model="big", api_key_env="PROVIDER_KEY", name="qwen"
        )
        config = read(model)
        assert config.models[0].engine is EngineKind.OPENAI
        with Service(config, no_host) as service:
            assert exchange(service, Client()).run().outcome is Outcome.ANSWERED
        assert server.body()["model"] == "big"
        assert b"authorization: Bearer secret" in server.requests[0]


# --- counting


def prompt_between_variants() -> str:
    """So long that its estimate does not tell which variant it needs."""
    return "word " * 2000


def test_a_doubtful_prompt_is_counted_by_a_ready_engine() -> None:
    with upstream(says(200, {"input_tokens": 9000}), streams()) as server:
        host = FakeHost({4096: server.url, 16384: server.url})
        with service_on(host) as service:
            running = InThread(exchange(service, Client(), prompt=prompt_between_variants()))
            lease = host.next_request()
            assert isinstance(lease, LeaseEngine)
            assert lease.purpose is LeasePurpose.COUNT
            host.grant(lease, 4096)
            record = running.join().record
        assert record is not None
        assert (record.outcome, record.context_tokens) == (Outcome.ANSWERED, 16384)
        assert server.requests[0].startswith(b"POST /v1/chat/completions/input_tokens ")
        assert host.balance == 0


@pytest.mark.parametrize(
    "fails", [resets(), cuts(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{"), says(404, {}), says(200, {})]
)
def test_a_count_that_fails_leaves_it_to_the_length(fails: Any) -> None:
    with upstream(fails, streams()) as server:
        host = FakeHost({4096: server.url, 16384: server.url})
        with service_on(host) as service:
            running = InThread(exchange(service, Client(), prompt=prompt_between_variants()))
            lease = host.next_request()
            assert isinstance(lease, LeaseEngine)
            host.grant(lease, 4096)
            record = running.join().record
        assert record is not None
        assert record.outcome is Outcome.ANSWERED
        assert host.balance == 0


# --- clients that go


def test_a_client_that_goes_while_it_waits_gives_up_its_place() -> None:
    host = FakeHost()
    with service_on(host) as service:
        running = InThread(exchange(service, Client()))
        lease = host.next_request()
        running.exchange.client_lost()
        record = running.join().record
    assert record is not None
    assert record.outcome is Outcome.CANCELED
    assert host.heard == [lease, ReleaseLease(lease_id=lease.lease_id)]


def test_a_client_that_goes_cancels_a_silent_upstream_at_once() -> None:
    server: Upstream

    def never_answers(connection: socket.socket, _: bytes) -> None:
        server.wait_dropped(connection)

    with upstream(never_answers) as server, granted(server) as (service, host):
        running = InThread(exchange(service, Client()))
        host.next_request()
        until_blocking(lambda: server.requests)
        running.exchange.client_lost()
        record = running.join().record
        assert record is not None
        assert record.outcome is Outcome.CANCELED
        assert server.dropped.wait(PATIENCE_S), "the upstream still works for nobody"
        assert host.balance == 0


def test_a_client_that_goes_cancels_a_stream_at_once() -> None:
    server: Upstream

    def begins(connection: socket.socket, _: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunk(EVENTS[0]))
        server.wait_dropped(connection)

    with upstream(begins) as server, granted(server) as (service, host):
        client = Client()
        running = InThread(exchange(service, client))
        assert client.wrote.wait(PATIENCE_S)
        running.exchange.client_lost()
        record = running.join().record
        assert record is not None
        assert record.outcome is Outcome.CANCELED
        assert client.calls == ["begin", "write"]
        assert server.dropped.wait(PATIENCE_S)
        assert host.balance == 0


def test_a_client_that_cannot_be_written_to_cancels_the_stream() -> None:
    server: Upstream

    def goes_on(connection: socket.socket, _: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunk(EVENTS[0]))
        server.wait_dropped(connection)

    with upstream(goes_on) as server, granted(server) as (service, host):
        record = exchange(service, Client(gone_after=0)).run()
        assert record.outcome is Outcome.CANCELED
        assert server.dropped.wait(PATIENCE_S)
        assert host.balance == 0


def test_canceling_too_late_leaves_the_next_request_alone() -> None:
    with upstream(streams()) as server, granted(server) as (service, _):
        first = exchange(service, Client())
        first.run()
        second = exchange(service, Client())
        second.begin()
        first.cancel()
        while second.step():
            pass
        assert second.record is not None
        assert second.record.outcome is Outcome.ANSWERED
        assert server.connections == 1


# --- news of the engine host


def test_an_engine_that_is_stopped_tells_why_the_answer_broke_off() -> None:
    may_break = threading.Event()

    def breaks(connection: socket.socket, _: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunk(EVENTS[0]))
        may_break.wait(PATIENCE_S)

    heard: list[LeaseNews] = []
    with upstream(breaks) as server:
        host = FakeHost({4096: server.url})
        with service_on(host, on_news=heard.append) as service:
            client = Client()
            running = InThread(exchange(service, client))
            lease = host.next_request()
            assert client.wrote.wait(PATIENCE_S)
            problem = EngineStopped("stopped by the operator").problem
            host.say(LeaseLost(lease_id=lease.lease_id, problem=problem))
            # News are taken in one after the other: when this one is heard, that one was handled.
            host.say(LeaseProgress(lease_id=lease.lease_id, position=1, engine="", phase=""))
            until_blocking(lambda: isinstance(heard[-1], LeaseProgress))
            may_break.set()
            record = running.join().record
    assert record is not None
    assert record.outcome is Outcome.BROKE_OFF
    assert client.trouble == problem
    assert host.balance == 1, "a lost lease is not given back"


def test_refused_leases_are_problems() -> None:
    host = FakeHost()
    with service_on(host) as service:
        client = Client()
        running = InThread(exchange(service, client))
        lease = host.next_request()
        problem = EngineStopped("not today").problem
        host.say(LeaseRefused(lease_id=lease.lease_id, problem=problem))
        running.join()
        assert client.trouble == problem


def test_whoever_waits_long_hears_of_it_in_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(driver_module, "monotonic", lambda: now[0])
    with upstream(streams()) as server:
        host = FakeHost()
        with service_on(host) as service:
            client = Client()
            waiting = exchange(service, client)
            waiting.begin()
            lease = host.next_request()
            assert isinstance(lease, LeaseEngine)
            progress = LeaseProgress(lease_id=lease.lease_id, position=2, engine="qwen@4096", phase="loading")
            service.driver.deliver(progress)
            now[0] += 11
            service.driver.wake()
            assert waiting.step()
            assert waiting.step()
            assert client.calls == ["begin", "comment"]
            assert "qwen@4096 loading, position 2" in client.comments[0]
            host.say(LeaseGranted(lease_id=lease.lease_id, context_tokens=4096, base_url=server.url))
            while waiting.step():
                pass
        assert client.calls == ["begin", "comment", "write", "end"]
        assert client.headers["content-type"] == "text/event-stream"


def test_comments_come_while_the_upstream_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(driver_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(exchange_module, "LOOK_UP_S", 0.01)
    monkeypatch.setattr(streams_module, "LOOK_UP_S", 0.01)
    may_answer = threading.Event()

    def thinks(connection: socket.socket, request: bytes) -> bool:
        assert may_answer.wait(PATIENCE_S)
        return bool(streams()(connection, request))

    with upstream(thinks) as server:
        host = FakeHost()
        with service_on(host) as service:
            client = Client()
            running = waiting_in_call(service, host, server, client, now)
            now[0] += 11
            service.driver.wake()
            until_blocking(lambda: len(client.comments) == 2)
            may_answer.set()
            record = running.join().record
    assert record is not None
    assert record.outcome is Outcome.ANSWERED
    assert client.calls == ["begin", "comment", "write", "end"]


def waiting_in_call(
    service: Service, host: FakeHost, server: Upstream, client: Client, now: list[float]
) -> InThread:
    """A request that waited so long for its engine that its stream has begun, and now waits for the answer."""
    running = InThread(exchange(service, client, prompt="hi"))
    lease = host.next_request()
    assert isinstance(lease, LeaseEngine)
    now[0] += 11
    service.driver.wake()
    until_blocking(lambda: client.comments)
    host.say(LeaseGranted(lease_id=lease.lease_id, context_tokens=4096, base_url=server.url))
    until_blocking(lambda: server.requests)
    return running


def test_a_client_that_goes_at_a_comment_cancels_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(driver_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(exchange_module, "LOOK_UP_S", 0.01)
    monkeypatch.setattr(streams_module, "LOOK_UP_S", 0.01)
    server: Upstream

    def never_answers(connection: socket.socket, _: bytes) -> None:
        server.wait_dropped(connection)

    with upstream(never_answers) as server:
        host = FakeHost()
        with service_on(host) as service:
            client = Client()
            running = waiting_in_call(service, host, server, client, now)
            client.gone_after = 0
            now[0] += 11
            service.driver.wake()
            record = running.join().record
        assert record is not None
        assert record.outcome is Outcome.CANCELED
        assert server.dropped.wait(PATIENCE_S)
        assert host.balance == 0


def test_an_upstream_that_is_silent_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "LOOK_UP_S", 0.01)
    done = threading.Event()

    def never_answers(_: socket.socket, __: bytes) -> None:
        done.wait(PATIENCE_S)

    with upstream(never_answers) as server:
        timeouts = {"first_token": 0.05}
        config = read(remote_model(connect=server.url, name="qwen", timeouts=timeouts))
        with Service(config, no_host) as service:
            client = Client()
            assert exchange(service, client).run().outcome is Outcome.FAILED
        done.set()
    assert client.trouble is not None
    assert client.trouble.code == "upstream_timeout"


def test_a_client_that_goes_at_a_comment_gives_up_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(driver_module, "monotonic", lambda: now[0])
    host = FakeHost()
    with service_on(host) as service:
        waiting = exchange(service, Client(gone_after=0))
        waiting.begin()
        now[0] += 11
        service.driver.wake()
        while waiting.step():
            pass
        assert waiting.record is not None
        assert waiting.record.outcome is Outcome.CANCELED
        assert host.balance == 0


def test_a_stream_that_was_begun_early_fails_within(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(driver_module, "monotonic", lambda: now[0])
    host = FakeHost()
    with service_on(host) as service:
        client = Client()
        waiting = exchange(service, client)
        waiting.begin()
        lease = host.next_request()
        now[0] += 11
        service.driver.wake()
        host.say(LeaseRefused(lease_id=lease.lease_id, problem=EngineStopped("not today").problem))
        while waiting.step():
            pass
        assert client.calls == ["begin", "comment", "fail_stream"]


def test_a_lost_host_is_replaced_once() -> None:
    with upstream(streams()) as server:
        first, second = FakeHost(), FakeHost({4096: server.url})
        hosts = iter((first, second))
        with Service(two_variants(), lambda: cast("BlockingHostClient", next(hosts))) as service:
            running = InThread(exchange(service, Client()))
            first.next_request()
            first.die()
            record = running.join().record
        assert record is not None
        assert record.outcome is Outcome.ANSWERED
        assert second.balance == 0


def test_a_host_lost_twice_is_a_problem() -> None:
    made: list[FakeHost] = []

    def connect() -> BlockingHostClient:
        made.append(FakeHost())
        return cast("BlockingHostClient", made[-1])

    with Service(two_variants(), connect) as service:
        client = Client()
        running = InThread(exchange(service, client))
        for number in range(2):
            until_blocking(lambda: len(made) > number)  # noqa: B023  # waited for in this turn
            made[number].next_request()
            made[number].die()
        running.join()
        assert client.trouble is not None
        assert client.trouble.kind == EngineHostLost.__name__


# --- as a generator, and many at once


def test_an_answer_can_be_pulled_step_by_step() -> None:
    with upstream(streams()) as server, granted(server) as (service, _):
        client = Client()
        pulled = exchange(service, client)

        def body() -> Iterator[bytes]:
            pulled.begin()
            try:
                while pulled.step():
                    piece, client.content = client.content, b""
                    if piece:
                        yield piece
            finally:
                if pulled.record is None:
                    pulled.client_lost()
                    while pulled.step():
                        pass

        assert b"".join(body()) == b"".join(EVENTS)


def test_a_generator_that_is_closed_in_the_middle_cancels() -> None:
    server: Upstream

    def begins(connection: socket.socket, _: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunk(EVENTS[0]))
        server.wait_dropped(connection)

    with upstream(begins) as server, granted(server) as (service, host):
        client = Client()
        pulled = exchange(service, client)
        pulled.begin()
        while not client.content:
            assert pulled.step()
        pulled.client_lost()
        while pulled.step():
            pass
        assert pulled.record is not None
        assert pulled.record.outcome is Outcome.CANCELED
        assert server.dropped.wait(PATIENCE_S)
        assert host.balance == 0


def test_many_threads_at_once() -> None:
    with upstream(streams()) as server, granted(server) as (service, host):
        clients = [Client() for _ in range(32)]
        running = [InThread(exchange(service, client)) for client in clients]
        for each in running:
            record = each.join().record
            assert record is not None
            assert record.outcome is Outcome.ANSWERED
        assert all(client.content == b"".join(EVENTS) for client in clients)
        assert host.balance == 0
        assert service.driver.active == 0
