import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewright.commands import ProbeEngine
from gatewright.events import EngineProbed, Health
from gatewright.ids import CommandId, EngineId
from gatewright_host import probe as module
from gatewright_host.probe import probe_engine
from tests.host.conftest import Run

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class FakeServer:
    """Answers each path with bytes, and remembers what it was asked."""

    def __init__(self, answers: dict[str, bytes], port: int) -> None:
        self.answers = answers
        self.port = port
        self.heads: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            answer = self.answers.get(
                head.split(" ")[1], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            )
            if answer == b"silence":
                await reader.read()
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(**answers: bytes) -> AsyncIterator[FakeServer]:
    fake = FakeServer({f"/{path.replace('__', '/')}": answer for path, answer in answers.items()}, 0)
    async with await asyncio.start_server(fake.answer, "127.0.0.1") as server:
        fake.port = server.sockets[0].getsockname()[1]
        yield fake
        server.close()
    await asyncio.sleep(0.01)  # the connections' last steps


async def probe(url: str, *, properties: bool = False, timeout_s: float = 20.0) -> EngineProbed:
    command = ProbeEngine(
        command_id=CommandId(7),
        engine_id=EngineId(1),
        base_url=url,
        timeout_s=timeout_s,
        ask_properties=properties,
    )
    probed = await probe_engine(command)
    assert probed.command_id == 7
    return probed


@pytest.mark.parametrize(
    ("answer", "health", "detail"),
    [
        (OK, Health.READY, ""),
        (b"HTTP/1.0 200 OK\r\n\r\nfine", Health.READY, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, Health.READY, ""),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Health.LOADING, ""),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Health.WRONG, "GET /health: status 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Health.WRONG, "GET /health: no HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Health.WRONG, "GET /health: no HTTP: "),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000_000, Health.WRONG, "too long an answer"),
        (b"", Health.UNREACHABLE, "closed without an answer"),
    ],
)
def test_what_it_sees(run: Run, answer: bytes, health: Health, detail: str) -> None:
    async def main() -> None:
        async with serving(health=answer) as server:
            probed = await probe(f"http://127.0.0.1:{server.port}")
        assert probed.health is health
        assert probed.detail.startswith(detail)
        assert bool(probed.detail) == bool(detail)

    run(main())


def test_nobody_there(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            pass
        probed = await probe(f"http://127.0.0.1:{server.port}")
        assert probed.health is Health.UNREACHABLE
        assert probed.detail

    run(main())


def test_silence_ends_with_the_timeout(run: Run) -> None:
    async def main() -> None:
        async with serving(health=b"silence") as server:
            probed = await probe(f"http://127.0.0.1:{server.port}", timeout_s=0.05)
        assert (probed.health, probed.detail) == (Health.UNREACHABLE, "no answer within 0.05 s")

    run(main())


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", f"http://{'x' * 70}.invalid", "http://a b:1"])
def test_a_url_that_is_none(run: Run, url: str) -> None:
    async def main() -> None:
        assert (await probe(url)).health in {Health.WRONG, Health.UNREACHABLE}

    run(main())


PROPS = b'{"default_generation_settings": {"n_ctx": 4096, "x": 1}, "total_slots": 4, "chat_template": "..."}'


@pytest.mark.parametrize(
    ("body", "slots", "context"),
    [
        (PROPS, 4, 4096),
        (b'{"total_slots": 4}', 4, None),
        (b'{"total_slots": 0, "default_generation_settings": {}}', None, None),
        (b'{"total_slots": "many"}', None, None),
        (b"hello", None, None),
        (b"", None, None),
    ],
)
def test_properties_of_a_ready_engine(run: Run, body: bytes, slots: int | None, context: int | None) -> None:
    async def main() -> None:
        props = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        async with serving(health=OK, props=props) as server:
            probed = await probe(f"http://127.0.0.1:{server.port}", properties=True)
        assert (probed.health, probed.slots, probed.context_tokens) == (Health.READY, slots, context)

    run(main())


@pytest.mark.parametrize(
    "props", [b"", b"garbage", b"HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n", b"silence"]
)
def test_properties_are_optional(run: Run, props: bytes) -> None:
    async def main() -> None:
        async with serving(health=OK, props=props) as server:
            probed = await probe(f"http://127.0.0.1:{server.port}", properties=True, timeout_s=0.5)
        assert (probed.health, probed.slots, probed.context_tokens) == (Health.READY, None, None)

    run(main())


def test_a_loading_engine_is_not_asked_for_properties(run: Run) -> None:
    async def main() -> None:
        async with serving(health=b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") as server:
            await probe(f"http://127.0.0.1:{server.port}", properties=True)
        assert len(server.heads) == 1

    run(main())


def test_the_path_of_a_base_url_is_kept(run: Run) -> None:
    async def main() -> None:
        async with serving(api__health=OK) as server:
            probed = await probe(f"http://localhost:{server.port}/api/")
        assert probed.health is Health.READY
        assert f"host: localhost:{server.port}\r\n" in server.heads[0].lower()

    run(main())


def test_https_is_spoken_and_checked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = []
    original = ssl.create_default_context

    def note() -> ssl.SSLContext:
        contexts.append(original())
        return contexts[-1]

    monkeypatch.setattr(module.ssl, "create_default_context", note)

    async def main() -> None:
        async with serving(health=OK) as server:
            probed = await probe(f"https://127.0.0.1:{server.port}", timeout_s=0.5)
        assert probed.health is Health.UNREACHABLE
        assert len(contexts) == 1

    run(main())
