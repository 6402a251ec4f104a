"""The ways to reach the gateway, each with the same configuration behind it, and what a test gets to hold of it."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from gatewright.fleet import EngineStatus
from gatewright_cli.verification.check import CHAT, Probe
from gatewright_cli.verification.client import Answer, Client
from gatewright_cli.verification.target import Target
from tests.conformance.scripted import KEY_VARIABLE, PROVIDER_KEY, Provider
from tests.support.gateway import Gateway, model_lua
from tests.support.gunicorn import GunicornGateway

KEYS = ("sk-conformance-1", "sk-conformance-2")
MAX_BODY_BYTES = 2_000_000
MAX_WAITING = 2
TIMEOUT_S = 20.0
HOST_LINGER_S = 120.0
"""Between two tests an engine host must not find that it has nothing left to do."""

SERVER = f'api_keys = {{ "{KEYS[0]}", "{KEYS[1]}" }}, max_body_bytes = {MAX_BODY_BYTES}, max_waiting = {MAX_WAITING}'


@frozen
class Models:
    """Files of tiny models."""

    tiny: Path
    other: Path
    slow: Path
    embedder: Path
    reranker: Path

    def lua(self) -> list[str]:
        """Models of the configuration that engines of this machine serve; two of them share the primary place."""
        liar = "margin = 1, engine_idle_timeout = 20"
        return [
            model_lua("tiny", self.tiny, (512, 2048), slots=2, extra='aliases = { "gpt-4o" }, margin = 16'),
            model_lua("other", self.other, (512,)),
            _secondary(model_lua("slow", self.slow, (4096,))),
            _secondary(model_lua("embedder", self.embedder, (512,), args=', "--embeddings"')),
            _secondary(model_lua("reranker", self.reranker, (512,), args=', "--rerank"')),
            # What the configuration promises is twice of what the smaller variant has.
            *(
                _secondary(model_lua(name, self.tiny, (1024, 4096), extra=liar)).replace(
                    '"-c", "1024"', '"-c", "512"'
                )
                for name in ("liar", "liar-stream")
            ),
        ]


def _secondary(lua: str) -> str:
    return lua.replace("presets.engines.llamacpp", "presets.engines.llamacpp_secondary")


@frozen
class World:
    """A running gateway, its provider, and a client with a key.

    Attributes:
        transport: Name of the way to it.
        gateway: The process.
        provider: Behind its remote models.
        client: Talks to it.
    """

    transport: str
    gateway: Gateway
    provider: Provider
    client: Client

    @property
    def stranger(self) -> Client:
        """A client without a key."""
        return self.client.with_key(None)

    @property
    def probe(self) -> Probe:
        """What the checks of `gw-cli verify` are run with."""
        return Probe(self.client, "tiny", "embedder")

    def body(self, model: str, text: str = "hi", **members: Any) -> dict[str, Any]:
        """The body of a question."""
        return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **members}

    def chat(self, model: str, text: str = "hi", **members: Any) -> Answer:
        """Ask a question."""
        return self.client.post(CHAT, self.body(model, text, **members))

    def events(self, model: str, text: str = "hi", **members: Any) -> tuple[dict[str, str], list[str]]:
        """Headers and events of a stream."""
        with self.client.stream(CHAT, self.body(model, text, **members)) as stream:
            assert stream.status == 200, stream.answer()
            return dict(stream.headers), [event.data for event in stream.events()]

    def engines(self, *models: str) -> list[EngineStatus]:
        """Engines of these models, as the engine host sees them."""
        return self.gateway.engine_statuses(*models)


Start = Callable[..., "contextlib.AbstractContextManager[tuple[Gateway, str]]"]
"""Runs a gateway with these models and settings; yields it and its URL."""


@contextmanager
def _asyncio_tcp(*models: str, **settings: Any) -> Iterator[tuple[Gateway, str]]:
    with Gateway(*models, **settings) as gateway:
        yield gateway, gateway.url


@contextmanager
def _asyncio_unix(*models: str, **settings: Any) -> Iterator[tuple[Gateway, str]]:
    directory = Path(tempfile.mkdtemp(prefix="gwu-"))  # pytest's own are too long for a socket
    path = directory / "s"
    listen = f'listen_v4 = "127.0.0.1:0", listen_v6 = "none", listen_unix = "{path}"'
    try:
        with Gateway(*models, listen=listen, **settings) as gateway:
            yield gateway, f"unix:{path}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _gunicorn(worker_class: str) -> Start:
    @contextmanager
    def start(*models: str, **settings: Any) -> Iterator[tuple[Gateway, str]]:
        with GunicornGateway(
            *models, worker_class=worker_class, workers=2, host_linger_s=HOST_LINGER_S, **settings
        ) as gateway:
            yield gateway, gateway.url

    return start


TRANSPORTS: Mapping[str, Start] = {
    "asyncio-tcp": _asyncio_tcp,
    "asyncio-unix": _asyncio_unix,
    "gunicorn-gthread": _gunicorn("gthread"),
    "gunicorn-sync": _gunicorn("sync"),
}


@contextmanager
def running(transport: str, models: Models) -> Iterator[World]:
    """The world as seen over a transport."""
    with (
        Provider() as provider,
        TRANSPORTS[transport](
            *models.lua(), *provider.models(), server=SERVER, env={KEY_VARIABLE: PROVIDER_KEY}
        ) as (gateway, url),
    ):
        yield World(transport, gateway, provider, Client(Target.parse(url), KEYS[0], TIMEOUT_S))
