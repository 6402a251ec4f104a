import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewright.leases import LeaseGranted, LeaseLost, ReleaseLease
from gatewright_host import host_link
from gatewright_host.engine_host import EngineHost
from gatewright_host.host_link import AsyncHostLink
from gatewright_host.host_protocol import HostLost, HostRefused
from gatewright_host.state_dir import StateDir
from tests.host.conftest import Run
from tests.support.host import News, ask, fake_spec, until

WELCOME = b'{"welcome":{"protocol":2,"pid":1}}\n'


class Client:
    """A link, its news and its end."""

    def __init__(self) -> None:
        self.news = News()
        self.lost: list[str] = []

    async def connect(self, path: Path, *, watch: bool = False) -> AsyncHostLink:
        return await AsyncHostLink.connect(path, self.news, self.lost.append, watch=watch)


@asynccontextmanager
async def fake_host(path: Path, *answers: bytes) -> AsyncIterator[None]:
    """Answers each line of each connection with the next answer, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readline()
            writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, str(path)):
        yield
    await asyncio.sleep(0.01)  # the connections' last steps


def test_it_leases_asks_and_closes(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            client = Client()
            link = await client.connect(state.choose_socket())
            link.send(ask(1))
            assert isinstance(await client.news.end(), LeaseGranted)
            status = await link.status()
            assert status.engines[0].engine.leases == 1
            await link.stop_engines("fake", force=True)
            assert isinstance(await client.news.end(2), LeaseLost)
            link.send(ask(2))
            await client.news.end(3)
            link.replace_specs((fake_spec(),), ())
            link.send(ReleaseLease(lease_id=ask(2).lease_id))
            link.close()
            link.close()
            await until(lambda: host.driver.holders == 0)
            link.send(ask(3))
            link.replace_specs((), ())
            with pytest.raises(HostLost):
                await link.status()
        assert client.lost == []

    run(main())


def test_the_hosts_end_is_told_once(run: Run, state: StateDir) -> None:
    async def main() -> None:
        client = Client()
        async with EngineHost(state):
            await client.connect(state.choose_socket())
        await until(lambda: client.lost)
        await asyncio.sleep(0.01)
        assert client.lost == ["the engine host closed the connection"]

    run(main())


def test_nobody_there(run: Run, state: StateDir) -> None:
    async def main() -> None:
        client = Client()
        with pytest.raises(HostLost, match="No such file"):
            await client.connect(state.path / "absent")
        assert client.lost == []

    run(main())


def test_an_end_before_the_welcome(run: Run, state: StateDir) -> None:
    async def main() -> None:
        client, path = Client(), state.path / "s"
        async with fake_host(path, b""):
            with pytest.raises(HostLost, match="closed the connection"):
                await client.connect(path)
        assert client.lost == []

    run(main())


def test_silence_before_the_welcome(run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_link, "WELCOME_TIMEOUT_S", 0.05)

    async def main() -> None:
        client, path = Client(), state.path / "s"
        async with fake_host(path, b"", b""):
            with pytest.raises(HostLost, match="no welcome"):
                await client.connect(path)
        assert client.lost == []

    run(main())


def test_a_refusal_of_the_connection(run: Run, state: StateDir) -> None:
    async def main() -> None:
        client, path = Client(), state.path / "s"
        async with fake_host(path, b'{"error":"of another version"}\n'):
            with pytest.raises(HostRefused, match="of another version"):
                await client.connect(path)
        assert client.lost == []

    run(main())


def test_a_refusal_of_a_question(run: Run, state: StateDir) -> None:
    async def main() -> None:
        client, path = Client(), state.path / "s"
        async with fake_host(
            path, WELCOME, b'{"reply":{"id":9}}\n{"reply":{"id":1,"error":"not now"}}\n', b""
        ):
            link = await client.connect(path, watch=True)
            with pytest.raises(HostRefused, match="not now"):
                await link.status()
            link.close()

    run(main())


def test_an_end_while_a_question_is_open(run: Run, state: StateDir) -> None:
    async def main() -> None:
        client, path = Client(), state.path / "s"
        async with fake_host(path, WELCOME, b'{"error":"it is late"}\n'):
            link = await client.connect(path)
            with pytest.raises(HostLost, match="it is late"):
                await link.status()
        assert client.lost == ["the engine host closed the connection: it is late"]

    run(main())


def test_nonsense_ends_the_connection(run: Run, state: StateDir) -> None:
    async def main() -> None:
        client, path = Client(), state.path / "s"
        async with fake_host(path, WELCOME + b'{"Nonsense":{}}\n', b""):
            await client.connect(path)
            await until(lambda: client.lost)
        assert "talks nonsense" in client.lost[0]

    run(main())
