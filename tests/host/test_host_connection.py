import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import msgspec
import pytest

from gatewright import codec
from gatewright.events import HolderGone, SpecsReplaced
from gatewright.leases import CallResult, ReleaseLease, ReportCall
from gatewright_host import host_connection, host_protocol
from gatewright_host.engine_host import EngineHost
from gatewright_host.host_lock import read_announcement
from gatewright_host.host_protocol import ASK, HELLO, PROTOCOL, Ask, Hello, write_line
from gatewright_host.state_dir import StateDir
from tests.host.conftest import Run
from tests.support.host import PATIENCE_S, News, ask, fake_spec, is_running, until

HOLDER = write_line(HELLO, Hello(PROTOCOL))
REPORT = codec.encode(ReportCall(lease_id=ask(1).lease_id, result=CallResult.WELL)) + b"\n"
WATCHER = write_line(HELLO, Hello(PROTOCOL, watch=True))


class RawClient:
    """Speaks lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, state: StateDir, *lines: bytes) -> Self:
        announcement = read_announcement(state.lock_file)
        assert announcement is not None
        client = cls(*await asyncio.open_unix_connection(announcement.socket))
        client.writer.write(b"".join(lines))
        return client

    async def line(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            return msgspec.json.decode(await self.reader.readline())

    async def line_of(self, tag: str) -> Any:
        while tag not in (line := await self.line()):
            assert line
        return line[tag]

    async def end(self) -> bytes:
        """What comes until the host closes."""
        rest = b""
        with suppress(ConnectionError):  # it closed with something of ours unread
            async with asyncio.timeout(PATIENCE_S):
                rest = await self.reader.read()
        self.writer.close()
        return rest


@asynccontextmanager
async def hosting(state: StateDir, **options: Any) -> AsyncIterator[EngineHost]:
    async with EngineHost(state, **options) as host:
        yield host


def test_a_holder_is_welcomed_leased_and_forgotten(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state) as host:
            client = await RawClient.connect(state, HOLDER, codec.encode(ask(1)) + b"\n")
            assert (await client.line())["welcome"]["protocol"] == PROTOCOL
            granted = await client.line_of("LeaseGranted")
            assert granted["lease_id"] == 1
            assert host.driver.holders == 1
            client.writer.write(codec.encode(ReleaseLease(lease_id=ask(1).lease_id)) + b"\n")
            await until(lambda: host.status().engines[0].engine.leases == 0)
            client.writer.write(codec.encode(ask(2)) + b"\n")
            await client.line_of("LeaseGranted")
            client.writer.close()
            await until(lambda: host.driver.holders == 0)
            assert host.status().engines[0].engine.leases == 0

    run(main())


def test_an_ordinary_member_shares_the_engine(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state) as host:
            news = News()
            host.attach(news).send(ask(1))
            client = await RawClient.connect(state, HOLDER, codec.encode(ask(1)) + b"\n")
            await client.line_of("LeaseGranted")
            await news.end()
            assert host.status().engines[0].engine.leases == 2
            client.writer.close()

    run(main())


def test_a_watcher_looks_and_orders(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state) as host:
            news = News()
            host.attach(news).send(ask(1))
            await news.end()
            client = await RawClient.connect(state, WATCHER, write_line(ASK, Ask(1, "status")))
            reply = await client.line_of("reply")
            assert reply["id"] == 1
            (engine,) = reply["result"]["engines"]
            assert engine["engine"]["state"] == "ready"
            assert is_running(engine["pid"])
            assert host.driver.holders == 1

            client.writer.write(write_line(ASK, Ask(2, "paths")))
            assert (await client.line_of("reply"))["result"]["engines_log"] == str(state.engines_log)

            client.writer.write(write_line(ASK, Ask(3, "stop", model="fake", force=True)))
            assert await client.line_of("reply") == {"id": 3, "result": None}
            await until(lambda: not is_running(engine["pid"]))
            client.writer.close()

    run(main())


def test_a_watcher_may_replace_specifications(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state) as host:
            host.attach(News()).send(ask(1))
            replaced = codec.encode(SpecsReplaced(old=(fake_spec(),), new=())) + b"\n"
            client = await RawClient.connect(state, WATCHER, replaced, write_line(ASK, Ask(1, "status")))
            await client.line_of("reply")
            (engine,) = host.driver.fleet._places["primary"].engines.values()
            assert engine.retired
            client.writer.close()

    run(main())


def test_a_server_is_not_shut_down_over_the_socket(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state):
            client = await RawClient.connect(state, WATCHER, write_line(ASK, Ask(1, "shutdown")))
            assert "part of a server" in (await client.line_of("reply"))["error"]
            client.writer.close()

    run(main())


def test_a_detached_host_is(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state, linger_s=600) as host:
            client = await RawClient.connect(state, WATCHER, write_line(ASK, Ask(1, "shutdown", force=True)))
            assert await client.line_of("reply") == {"id": 1, "result": None}
            assert await host.wait_exit() == "shut down"
            late = await RawClient.connect(state, HOLDER)
            assert await late.end() == b""  # no welcome: the client looks for the next host
            client.writer.close()

    run(main())


def test_a_watcher_keeps_no_host_from_ending(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state, linger_s=0.05) as host:
            client = await RawClient.connect(state, WATCHER)
            await client.line_of("welcome")
            await host.wait_exit()
        assert await client.end() == b""

    run(main())


def test_versions_must_agree_to_hold_leases(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with hosting(state):
            client = await RawClient.connect(state, write_line(HELLO, Hello(PROTOCOL + 1)))
            assert f"speaks protocol {PROTOCOL}" in (await client.line_of("error"))
            assert await client.end() == b""
            client = await RawClient.connect(state, write_line(HELLO, Hello(PROTOCOL + 1, watch=True)))
            assert await client.line_of("welcome")
            client.writer.close()

    run(main())


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((b"GET / HTTP/1.1\r\n",), "JSON"),
        ((b"{}\n",), "one member"),
        ((codec.encode(ask(1)) + b"\n",), "expected a hello"),
        ((b'{"hello":{}}\n',), "protocol"),
        ((HOLDER, b"\xff\n"), "JSON"),
        ((HOLDER, b'{"ask":{"id":1,"op":"dance"}}\n'), "dance"),
        ((HOLDER, b'{"Nonsense":{}}\n'), "Nonsense"),
        ((HOLDER, codec.encode(HolderGone(holder=1)) + b"\n"), "HolderGone is not for the engine host"),  # type: ignore[arg-type]
        ((HOLDER, b'{"LeaseEngine":{"lease_id":1,"variants":[]}}\n'), "no variant"),
        ((HOLDER, b"x" * 2000), "more than 1000 bytes"),
        ((WATCHER, codec.encode(ask(1)) + b"\n"), "a watcher holds no leases"),
        ((WATCHER, REPORT), "a watcher holds no leases"),
    ],
)
def test_nonsense_is_answered_and_ends_the_connection(
    run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch, lines: tuple[bytes, ...], reason: str
) -> None:
    monkeypatch.setattr(host_protocol, "LONGEST_LINE_BYTES", 1000)

    async def main() -> None:
        async with hosting(state) as host:
            client = await RawClient.connect(state, *lines, HOLDER)
            error = await client.line_of("error")
            assert reason in error
            assert await client.end() == b""
            assert host.driver.holders == 0

    run(main())


def test_silence_is_not_waited_for(run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_connection, "_HELLO_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with hosting(state):
            client = await RawClient.connect(state)
            assert await client.end() == b""

    run(main())


def test_other_users_are_turned_away(run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_connection, "_is_ours", lambda _: False)

    async def main() -> None:
        async with hosting(state):
            client = await RawClient.connect(state, HOLDER)
            assert "another user" in await client.line_of("error")
            assert await client.end() == b""

    run(main())


def test_who_reads_nothing_is_dropped(run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_connection, "_MOST_UNREAD_BYTES", 100_000)

    async def main() -> None:
        async with hosting(state) as host:
            client = await RawClient.connect(state, HOLDER)
            transport = client.writer.transport
            await until(lambda: host.driver.holders == 1)
            transport.pause_reading()  # type: ignore[attr-defined]
            question = write_line(ASK, Ask(1, "paths")) * 500
            async with asyncio.timeout(PATIENCE_S):
                while host.driver.holders:
                    client.writer.write(question)
                    await asyncio.sleep(0)
            transport.abort()

    run(main())


def test_a_closing_host_drops_what_nobody_reads(run: Run, state: StateDir) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            async with hosting(state):
                announcement = read_announcement(state.lock_file)
                assert announcement is not None
                client.connect(announcement.socket)
                client.sendall(HOLDER + write_line(ASK, Ask(1, "paths")) * 5000)
                await asyncio.sleep(0.05)

    run(main())
