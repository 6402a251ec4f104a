import asyncio
import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from gatewright_host import host_socket
from gatewright_host.engine_host import EngineHost
from gatewright_host.host_link import AsyncHostLink
from gatewright_host.host_protocol import HostLost
from gatewright_host.state_dir import StateDir
from tests.host.conftest import Run
from tests.support.host import News, until


async def link_to(path: Path) -> AsyncHostLink:
    return await AsyncHostLink.connect(path, News(), lambda _: None)


def test_it_is_for_its_owner_and_gone_at_the_end(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state):
            assert state.choose_socket().stat().st_mode & 0o777 == 0o600
        assert not state.choose_socket().exists()

    run(main())


def test_many_connect_at_once(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            links = await asyncio.gather(*(link_to(state.choose_socket()) for _ in range(100)))
            assert host.driver.holders == 100
            for link in links:
                link.close()
            await until(lambda: host.driver.holders == 0)

    run(main())


def test_a_client_that_comes_at_the_end_is_turned_away_at_once(run: Run, state: StateDir) -> None:
    """However far its connection has come: in the backlog, accepted, or about to be told of."""

    async def main() -> None:
        for steps in range(8):
            host = EngineHost(state)
            await host.__aenter__()
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)  # noqa: FBT003  # a positional-only argument
            client.connect(os.fspath(state.choose_socket()))
            for _ in range(steps):
                await asyncio.sleep(0)
            await host.__aexit__(None, None, None)
            client.settimeout(0)
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""
            client.close()

    run(main())


def test_a_client_that_left_already_harms_nobody(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            for _ in range(20):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(os.fspath(state.choose_socket()))
            link = await link_to(state.choose_socket())
            assert host.driver.holders == 1
            link.close()

    run(main())


def test_without_descriptors_it_waits_for_some(
    run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_socket, "_ACCEPT_PAUSE_S", 0.05)

    class Poor(socket.socket):
        """A listener in a process that has too many files open, once."""

        failures = 1

        def accept(self) -> tuple[socket.socket, object]:
            if Poor.failures:
                Poor.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(host_socket.socket, "socket", Poor)
            host = EngineHost(state)
            await host.__aenter__()
        link = await link_to(state.choose_socket())
        assert "Too many open files" in caplog.text
        link.close()
        await host.__aexit__(None, None, None)
        with pytest.raises(HostLost):
            await link_to(state.choose_socket())

    run(main())
