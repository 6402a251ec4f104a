import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from gatewright.leases import LeaseGranted, LeaseLost, LeaseNews, LeaseProgress, LeaseRefused, ReleaseLease
from gatewright_host import host_client
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_lock import Announcement, HostLock
from gatewright_host.host_protocol import HostLost, HostRefused
from gatewright_host.records import Records
from gatewright_host.state_dir import StateDir
from tests.support.host import (
    PATIENCE_S,
    ask,
    fake_spec,
    is_running,
    processes_with,
    until_blocking,
)


def end_of(client: BlockingHostClient) -> LeaseNews:
    """The next news that is no progress."""
    while True:
        news = client.receive(PATIENCE_S)
        assert news is not None, "waited in vain"
        if not isinstance(news, LeaseProgress):
            return news


@pytest.fixture
def hosts(state: StateDir) -> Iterator[StateDir]:
    """A state directory whose detached hosts are gone at the test's end, killed if need be."""
    yield state
    for pid in processes_with(str(state.path)):
        os.kill(pid, signal.SIGTERM)
    until_blocking(lambda: not processes_with(str(state.path)))


def test_it_starts_a_host_and_leases(hosts: StateDir) -> None:
    with BlockingHostClient.connect(hosts) as client:
        client.send(ask(1))
        granted = end_of(client)
        assert isinstance(granted, LeaseGranted)
        status = client.status()
        assert (status.pid, status.detached, status.holders) == (client.host_pid, True, 1)
        (report,) = status.engines
        assert report.pid is not None
        assert is_running(report.pid)
        assert client.paths().engines_log == str(hosts.engines_log)
        client.send(ReleaseLease(lease_id=granted.lease_id))
        assert client.receive(0) is None
        assert os.getsid(client.host_pid) != os.getsid(0)
        assert os.getppid() != client.host_pid


def test_a_host_stays_for_its_clients_and_is_shared(hosts: StateDir) -> None:
    with (
        BlockingHostClient.connect(hosts, linger_s=0.1) as first,
        BlockingHostClient.connect(hosts) as second,
    ):
        assert first.host_pid == second.host_pid
        for client in (first, second):
            client.send(ask(1))
            assert isinstance(end_of(client), LeaseGranted)


def test_nothing_is_left_of_a_host_that_nobody_needs(hosts: StateDir) -> None:
    with BlockingHostClient.connect(hosts, linger_s=0.1) as client:
        client.send(ask(1, fake_spec(idle_s=0.1)))
        granted = end_of(client)
        assert isinstance(granted, LeaseGranted)
    until_blocking(lambda: not is_running(client.host_pid))
    assert processes_with(granted.base_url.rpartition(":")[2]) == []
    assert Records(hosts.records_dir).all() == []
    assert [path for path in hosts.path.rglob("*") if path.is_socket()] == []
    assert "nobody attached" in hosts.host_log.read_text()


def test_a_client_that_dies_frees_its_leases(hosts: StateDir) -> None:
    dying = (
        "import os, sys\n"
        "from gatewright_host.host_client import BlockingHostClient\n"
        "from gatewright_host.state_dir import StateDir\n"
        "from tests.host.test_host_client import ask, end_of\n"
        "client = BlockingHostClient.connect(StateDir.at(sys.argv[1]), start=False)\n"
        "client.send(ask(1)); client.send(ask(2)); end_of(client); end_of(client)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    with BlockingHostClient.connect(hosts) as client:
        subprocess.run([sys.executable, "-c", dying, str(hosts.path)], check=False, timeout=PATIENCE_S)
        client.send(ask(1))
        assert isinstance(end_of(client), LeaseGranted)
        until_blocking(lambda: client.status().holders == 1)


def test_engines_are_stopped_and_replaced(hosts: StateDir) -> None:
    with (
        BlockingHostClient.connect(hosts) as client,
        BlockingHostClient.connect(hosts, watch=True, start=False) as watcher,
    ):
        client.send(ask(1))
        end_of(client)
        watcher.stop_engines("fake", force=True)
        assert isinstance(end_of(client), LeaseLost)
        client.send(ask(2))
        assert isinstance(end_of(client), LeaseGranted)
        watcher.replace_specs((fake_spec(),), ())
        client.send(ReleaseLease(lease_id=ask(2).lease_id))
        until_blocking(lambda: all(report.pid is None for report in watcher.status().engines))


def test_shutdown_ends_host_and_engines(hosts: StateDir) -> None:
    with BlockingHostClient.connect(hosts) as client:
        client.send(ask(1))
        end_of(client)
        (report,) = client.status().engines
        assert report.pid is not None
        with BlockingHostClient.connect(hosts, watch=True) as watcher:
            watcher.shutdown()
        assert isinstance(end_of(client), LeaseLost)
        with pytest.raises(HostLost):
            client.receive(PATIENCE_S)
        with pytest.raises(HostLost):
            client.status()
    until_blocking(lambda: not is_running(client.host_pid))
    assert not is_running(report.pid)


def test_the_next_client_gets_the_next_host(hosts: StateDir) -> None:
    """While one host is still ending, another is asked for."""
    with BlockingHostClient.connect(hosts) as client:
        client.send(ask(1, fake_spec("deaf", stop_s=0.5)))
        end_of(client)
        client.shutdown()
        assert isinstance(end_of(client), LeaseLost)
        client.send(ask(2))
        assert isinstance(end_of(client), LeaseRefused)
        until_blocking(lambda: not is_attachable(hosts))
        with BlockingHostClient.connect(hosts) as next_client:
            assert next_client.host_pid != client.host_pid
            until_blocking(
                lambda: not is_running(client.host_pid)
            )  # it gave its lock up as the last thing but one


def is_attachable(state: StateDir) -> bool:
    try:
        BlockingHostClient.connect(state, start=False, watch=True).close()
    except HostLost:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux only")
def test_engines_die_with_a_killed_host(hosts: StateDir) -> None:
    with BlockingHostClient.connect(hosts) as client:
        client.send(ask(1, fake_spec("deaf")))
        end_of(client)
        (report,) = client.status().engines
        assert report.pid is not None
        os.kill(client.host_pid, signal.SIGKILL)
        until_blocking(lambda: not is_running(report.pid or 0))
        with pytest.raises(HostLost):
            client.receive(PATIENCE_S)
        with pytest.raises(HostLost):
            client.send(ask(2))
    with BlockingHostClient.connect(hosts) as client:
        assert client.status().engines == ()
        assert Records(hosts.records_dir).all() == []


def test_what_outlives_a_killed_host_is_swept_by_the_next(hosts: StateDir) -> None:
    unkind = (
        "import gatewright_host.process as p, sys; p.die_with_parent = lambda: None\n"
        "from gatewright_host.host_main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", unkind, "--state-dir", str(hosts.path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as host:
        until_blocking(lambda: is_attachable(hosts))
        with BlockingHostClient.connect(hosts, start=False) as client:
            assert client.host_pid == host.pid
            client.send(ask(1, fake_spec("deaf")))
            end_of(client)
            (report,) = client.status().engines
        host.kill()
    assert report.pid is not None
    assert is_running(report.pid)
    with BlockingHostClient.connect(hosts) as client:
        assert not is_running(report.pid)
        assert "of a host that was killed" in hosts.host_log.read_text()


def test_many_at_once_start_one_host(hosts: StateDir) -> None:
    def lease(_: int) -> int:
        with BlockingHostClient.connect(hosts) as client:
            client.send(ask(1))
            assert isinstance(end_of(client), LeaseGranted)
            return client.host_pid

    with ThreadPoolExecutor(20) as threads:
        pids = set(threads.map(lease, range(20)))
    assert len(pids) == 1
    assert hosts.host_log.read_text().count("engine host started") == 1


def test_many_hosts_at_once_become_one(hosts: StateDir) -> None:
    """Even if all clients start one: the lock decides, and the others end."""
    command = [sys.executable, "-m", "gatewright_host.host_main", "--state-dir", str(hosts.path)]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(8)]
    with BlockingHostClient.connect(hosts) as client:
        losers = [host for host in started if host.pid != client.host_pid]
        assert [host.wait(PATIENCE_S) for host in losers] == [0] * len(losers)
        client.shutdown()
    for host in started:
        host.wait(PATIENCE_S)


def test_without_a_host_and_without_starting_one(state: StateDir) -> None:
    with pytest.raises(HostLost, match="no engine host runs"):
        BlockingHostClient.connect(state, start=False)


def test_a_stale_announcement_and_socket_are_overcome(hosts: StateDir) -> None:
    path = hosts.choose_socket()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    lock = HostLock(hosts.lock_file)
    lock.acquire()
    lock.announce(Announcement(1, str(path)))
    assert lock._fd is not None
    os.close(lock._fd)  # as the kernel does when its holder is killed
    with BlockingHostClient.connect(hosts) as client:
        assert client.status().holders == 1


def test_a_host_that_does_not_come_up_is_explained(hosts: StateDir) -> None:
    hosts.records_dir.touch()
    (hosts.path / "host.sock").mkdir()
    if hosts.choose_socket().parent != hosts.path:
        pytest.skip("sockets lie elsewhere here")
    with pytest.raises(HostLost, match="the engine host cannot run"):
        BlockingHostClient.connect(hosts, timeout_s=1.0)


def test_a_long_log_is_put_aside(hosts: StateDir) -> None:
    hosts.host_log.write_bytes(b"x" * (host_client._HOST_LOG_BYTES + 1))
    with BlockingHostClient.connect(hosts):
        assert hosts.host_log.stat().st_size < 1000
        assert hosts.host_log.with_suffix(".log.1").stat().st_size > host_client._HOST_LOG_BYTES


def test_an_interpreter_that_cannot_be_started(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/absent/python")
    with pytest.raises(HostLost, match="cannot start an engine host with /absent/python"):
        BlockingHostClient.connect(state)


@pytest.fixture
def fake_host(state: StateDir) -> Iterator[socket.socket]:
    """A listening socket that is announced as a host's."""
    path = str(state.path / "fake")
    lock = HostLock(state.lock_file)
    lock.acquire()
    lock.announce(Announcement(1, path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield listener
    lock.release()


def answer(listener: socket.socket, *lines: bytes) -> threading.Thread:
    """Answer one connection's words, one line each, then close it."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for line in lines:
                connection.recv(65_536)
                connection.sendall(line)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


WELCOME = b'{"welcome":{"protocol":2,"pid":1}}\n'


def test_a_refusal_is_passed_on(state: StateDir, fake_host: socket.socket) -> None:
    thread = answer(fake_host, b'{"error":"of another version"}\n')
    with pytest.raises(HostRefused, match="of another version"):
        BlockingHostClient.connect(state, start=False)
    thread.join()


def test_nonsense_loses_the_host(state: StateDir, fake_host: socket.socket) -> None:
    thread = answer(fake_host, WELCOME, b'{"Nonsense":{}}\n')
    with BlockingHostClient.connect(state, start=False) as client:
        client.send(ask(1))
        with pytest.raises(HostLost, match="talks nonsense"):
            client.receive(PATIENCE_S)
    thread.join()


def test_a_silent_host_is_not_waited_for(
    state: StateDir, fake_host: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_client, "_WELCOME_TIMEOUT_S", 0.05)
    with pytest.raises(HostLost):
        BlockingHostClient.connect(state, start=False)


def test_a_question_is_not_waited_on_for_ever(hosts: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_client, "_REPLY_TIMEOUT_S", 0)
    with (
        BlockingHostClient.connect(hosts) as client,
        pytest.raises(HostLost, match="did not answer"),
    ):
        client.status()


def test_news_can_be_selected_for(hosts: StateDir) -> None:
    with BlockingHostClient.connect(hosts) as client:
        client.send(ask(1))
        ready, _, _ = select.select([client], [], [], PATIENCE_S)
        assert ready == [client]
        assert client.receive(0) is not None


def test_threads_send_while_one_receives(hosts: StateDir) -> None:
    with BlockingHostClient.connect(hosts) as client:
        heard: list[LeaseNews] = []

        def receive() -> None:
            with suppress(HostLost):
                while (news := client.receive()) is not None:
                    heard.append(news)

        receiver = threading.Thread(target=receive)
        receiver.start()
        client.send(ask(1))
        until_blocking(lambda: any(isinstance(news, LeaseGranted) for news in heard))

        def lease(first: int) -> None:
            for number in range(first, first + 50):
                client.send(ask(number))
                client.send(ReleaseLease(lease_id=ask(number).lease_id))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lease, (100, 200, 300, 400)))
        with BlockingHostClient.connect(hosts, watch=True) as watcher:
            until_blocking(
                lambda: (
                    (watcher.status().engines[0].engine.leases, watcher.status().engines[0].engine.waiting)
                    == (1, 0)
                )
            )
        client.close()
        receiver.join(PATIENCE_S)
        assert not receiver.is_alive()
