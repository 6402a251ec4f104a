"""A health probe: one or two small HTTP requests to an engine, on a connection of their own."""

import asyncio
import ssl
from typing import Final
from urllib.parse import urlsplit

import h11
import msgspec
from attrs import frozen

from gatewright.commands import ProbeEngine
from gatewright.events import EngineProbed, Health

_OK: Final = 200
_UNAVAILABLE: Final = 503
_READ_BYTES: Final = 65_536
_LARGEST_BODY_BYTES: Final = 4 * 1024 * 1024
"""`/props` holds the chat template, which may be long."""
_LONGEST_DETAIL: Final = 200


class _BadAnswer(Exception):  # no failure of ours: a finding
    """What came is no HTTP, or too much of it."""


@frozen
class _Reply:
    status: int
    body: bytes


class _SettingsShape(msgspec.Struct):
    n_ctx: int | None = None


class _PropsShape(msgspec.Struct):
    default_generation_settings: _SettingsShape | None = None
    total_slots: int | None = None


async def probe_engine(command: ProbeEngine) -> EngineProbed:
    """Carry out a probe; whatever is found, and nothing as well, is a finding."""
    health, detail, properties = Health.UNREACHABLE, "", _PropsShape()
    try:
        async with asyncio.timeout(command.timeout_s):
            health, detail = await _ask_health(command.base_url)
            if health is Health.READY and command.ask_properties:
                properties = await _ask_properties(command.base_url)
    except TimeoutError:
        # Properties are optional: an engine that is slow to tell them is ready all the same.
        detail = detail or f"no answer within {command.timeout_s:g} s"
    except OSError as error:
        detail = error.strerror or str(error)
    except (ValueError, h11.ProtocolError) as error:  # of a URL that is none
        health, detail = Health.WRONG, str(error)
    settings = properties.default_generation_settings
    return EngineProbed(
        command_id=command.command_id,
        health=health,
        slots=_positive(properties.total_slots),
        context_tokens=_positive(settings.n_ctx if settings is not None else None),
        detail=" ".join(detail.split())[:_LONGEST_DETAIL],
    )


async def _ask_health(base_url: str) -> tuple[Health, str]:
    try:
        reply = await _get(base_url, "/health")
    except _BadAnswer as error:
        return Health.WRONG, str(error)
    if reply.status == _OK:
        return Health.READY, ""
    if reply.status == _UNAVAILABLE:
        return Health.LOADING, ""
    return Health.WRONG, f"GET /health: status {reply.status}"


async def _ask_properties(base_url: str) -> _PropsShape:
    try:
        reply = await _get(base_url, "/props")
        if reply.status == _OK:
            return msgspec.json.decode(reply.body, type=_PropsShape)
    except (_BadAnswer, OSError, msgspec.DecodeError):
        pass  # no llama.cpp, then, or one that does not tell
    return _PropsShape()


def _positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


async def _get(base_url: str, path: str) -> _Reply:
    """The answer to a GET.

    Raises:
        OSError: Nobody is there, or the connection broke before an answer began.
        _BadAnswer: What came is no HTTP.
    """
    url = urlsplit(base_url)
    secure = url.scheme == "https"
    host, port = url.hostname or "", url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        host, port, ssl=ssl.create_default_context() if secure else None
    )
    try:
        connection = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method="GET",
            target=url.path.rstrip("/") + path,
            headers=[("Host", url.netloc), ("Connection", "close"), ("Accept", "application/json")],
        )
        writer.write(connection.send(request) + connection.send(h11.EndOfMessage()))
        try:
            return await _read_reply(connection, reader)
        except h11.RemoteProtocolError as error:
            raise _BadAnswer(f"GET {path}: no HTTP: {error}") from error
    finally:
        # Closed without its ceremony: nobody waits for it, and TLS engines may never answer it.
        writer.transport.abort()


async def _read_reply(connection: h11.Connection, reader: asyncio.StreamReader) -> _Reply:
    status, body, begun = 0, bytearray(), False
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                data = await reader.read(_READ_BYTES)
                if not data and not begun:
                    raise ConnectionResetError("closed without an answer")
                begun = True
                connection.receive_data(data)
            case h11.Response(status_code=status):
                pass
            case h11.Data(data=data):
                body += data
                if len(body) > _LARGEST_BODY_BYTES:
                    raise _BadAnswer("too long an answer")
            case h11.EndOfMessage():
                return _Reply(status, bytes(body))
            case _:
                pass  # 1xx
