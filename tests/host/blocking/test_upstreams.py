"""Connections to upstreams: what is kept, for how long, and by whom."""

import contextlib
import os
import select
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewright.wire.client import BodyData, ResponseEnd, ResponseHead
from gatewright.wire.server import NeedData
from gatewright_host.blocking import upstreams
from gatewright_host.blocking.streams import Stream, StreamLost, StreamTimeout, connect
from gatewright_host.blocking.upstreams import Connection, UpstreamPool
from gatewright_host.upstream_calls import Address, parse_address
from tests.host.blocking.fakes import PATIENCE_S, Upstream, says, upstream
from tests.support.host import until_blocking

CERTIFICATE = Path(__file__).with_name("localhost.pem")

# --- streams


def pair() -> tuple[Stream, socket.socket]:
    ours, theirs = socket.socketpair()
    return Stream(ours), theirs


def test_reading_waits_no_longer_than_it_may() -> None:
    stream, theirs = pair()
    with pytest.raises(StreamTimeout):
        stream.read(0.01)
    with pytest.raises(StreamTimeout):
        stream.read(0)
    theirs.send(b"x")
    assert stream.read(None) == b"x"
    theirs.close()
    assert stream.read(None) == b""
    assert not stream.is_open
    stream.close()


def test_abort_wakes_a_reader_at_once() -> None:
    stream, theirs = pair()
    caught: list[Exception] = []

    def read() -> None:
        try:
            stream.read(None)
        except StreamLost as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    stream.abort()
    reader.join(PATIENCE_S)
    assert caught
    assert theirs.recv(1) == b""
    stream.close()
    stream.abort()
    theirs.close()


def test_a_peer_whose_window_is_closed_hears_at_once_of_an_abort() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with peer:
        while select.select((), (peer,), (), 0.3)[1]:
            peer.send(b"x" * 1000)
        stream = Stream(ours)
        stream.abort()
        # As by a reader that was on its way: data that nobody has read would make any close a reset.
        with contextlib.suppress(BlockingIOError):
            while ours.recv(65_536, socket.MSG_DONTWAIT):
                pass
        stream.close()
        peer.settimeout(PATIENCE_S)
        with pytest.raises(ConnectionError):
            peer.sendall(b"x" * 10_000_000)


def test_abort_wakes_a_writer_at_once() -> None:
    stream, theirs = pair()
    began = threading.Event()
    caught: list[Exception] = []

    def write() -> None:
        began.set()
        try:
            stream.write(b"x" * 50_000_000)
        except StreamLost as error:
            caught.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    assert began.wait(PATIENCE_S)
    stream.abort()
    writer.join(PATIENCE_S)
    assert caught
    stream.close()
    theirs.close()


def test_writing_waits_no_longer_than_it_may() -> None:
    stream, theirs = pair()
    with pytest.raises(StreamTimeout):
        stream.write(b"x" * 50_000_000, 0.01)
    stream.close()
    theirs.close()


def test_a_peer_that_does_not_listen_may_have_answered_all_the_same() -> None:
    stream, theirs = pair()
    theirs.send(b"answer")
    theirs.shutdown(socket.SHUT_RD)
    stream.write(b"x" * 100_000)
    assert stream.read(None) == b"answer"
    stream.close()
    theirs.close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connect("127.0.0.1", port, tls=None, timeout_s=1)


# --- the pool


def get(pool: UpstreamPool, server: Upstream) -> tuple[Connection, bytes]:
    """A whole exchange on a kept or new connection, which is not given back."""
    address = pool.addresses.find(server.url)
    connection = pool.take_idle(address) or pool.open(address, 5)
    for piece in connection.exchange.request_bytes("GET", address.authority, "/", ()):
        connection.stream.write(piece)
    body = b""
    while True:
        match connection.exchange.next_event():
            case NeedData():
                connection.exchange.receive(connection.stream.read(5))
            case BodyData(data=data):
                body += data
            case ResponseHead():
                pass
            case ResponseEnd():
                return connection, body
            case event:
                raise AssertionError(event)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "http://127.0.0.1:8081",
            Address("127.0.0.1", 8081, tls=False, authority="127.0.0.1:8081", prefix=""),
        ),
        (
            "https://api.example.com",
            Address("api.example.com", 443, tls=True, authority="api.example.com", prefix=""),
        ),
        ("http://[::1]:9/a/", Address("::1", 9, tls=False, authority="[::1]:9", prefix="/a")),
    ],
)
def test_base_urls(url: str, address: Address) -> None:
    assert parse_address(url) == address


def test_what_is_given_back_is_used_again() -> None:
    with upstream(says(200, "x")) as server:
        pool = UpstreamPool()
        for _ in range(3):
            connection, body = get(pool, server)
            assert body == b'"x"'
            pool.give_back(connection)
        assert server.connections == 1
        pool.close()
        assert server.dropped.wait(PATIENCE_S)


def test_what_cannot_be_used_again_is_closed() -> None:
    with upstream(says(200, "x", "connection: close")) as server:
        pool = UpstreamPool()
        connection, _ = get(pool, server)
        pool.give_back(connection)
        assert pool.take_idle(connection.address) is None


def test_what_the_upstream_has_closed_is_not_used_again() -> None:
    with upstream(says(200, "x")) as server:
        pool = UpstreamPool()
        connection, _ = get(pool, server)
        pool.give_back(connection)
        server.close()
        until_blocking(lambda: not connection.stream.is_open)
        assert pool.take_idle(connection.address) is None


def test_what_has_been_idle_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(upstreams, "monotonic", lambda: now[0])
    with upstream(says(200, "x")) as old, upstream(says(200, "x")) as new:
        pool = UpstreamPool()
        pool.give_back(get(pool, old)[0])
        now[0] += upstreams.IDLE_S + 1
        pool.give_back(get(pool, new)[0])
        assert old.dropped.wait(PATIENCE_S)
        assert pool.take_idle(pool.addresses.find(old.url)) is None
        pool.close()
        assert new.dropped.wait(PATIENCE_S)


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "IDLE_PER_UPSTREAM", 1)
    with upstream(says(200, "x")) as server:
        pool = UpstreamPool()
        both = [get(pool, server)[0], get(pool, server)[0]]
        for connection in both:
            pool.give_back(connection)
        assert server.dropped.wait(PATIENCE_S)
        pool.close()


def test_a_forked_child_begins_with_none() -> None:
    with upstream(says(200, "x")) as server:
        pool = UpstreamPool()
        kept, _ = get(pool, server)
        pool.give_back(kept)
        with warnings.catch_warnings():
            # Python 3.12 and later, of threads: the upstream's are not needed in the child.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            # No assertion may leave this process, which is a copy of the test run.
            os._exit(0 if pool.take_idle(kept.address) is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pool.take_idle(kept.address) is kept
        kept.stream.close()


# --- encrypted


@pytest.fixture
def secure_port() -> Iterator[int]:
    """A port at which a TLS server sends back what it gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener:
            while True:
                plain, _ = listener.accept()
                with (
                    plain,
                    contextlib.suppress(OSError),
                    context.wrap_socket(plain, server_side=True) as secure,
                ):
                    while data := secure.recv(65536):
                        secure.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_an_encrypted_connection_can_be_read_written_and_aborted(
    secure_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    pool = UpstreamPool()
    stream = pool.open(pool.addresses.find(f"https://localhost:{secure_port}"), 5).stream
    stream.write(b"hello", 5)
    assert stream.read(5) == b"hello"
    with pytest.raises(StreamTimeout):
        stream.read(0.01)
    caught: list[Exception] = []

    def read() -> None:
        try:
            stream.read(None)
        except StreamLost as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    stream.abort()
    reader.join(PATIENCE_S)
    assert caught
    stream.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_port: int) -> None:
    pool = UpstreamPool()
    with pytest.raises(ssl.SSLCertVerificationError):
        pool.open(pool.addresses.find(f"https://localhost:{secure_port}"), 5)
