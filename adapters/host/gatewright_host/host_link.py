"""The asynchronous client's end of an engine host's socket."""

import asyncio
import os
from collections.abc import Callable
from itertools import count
from typing import Any, Final, Self, cast

from gatewright import codec
from gatewright.engines.spec import EngineSpec
from gatewright.events import SpecsReplaced
from gatewright.leases import LeaseNews, LeaseRequest
from gatewright_host.host_protocol import (
    ASK,
    ERROR,
    HELLO,
    PROTOCOL,
    REPLY,
    WELCOME,
    Ask,
    Hello,
    HostLost,
    HostRefused,
    LineBuffer,
    ProtocolError,
    Reply,
    Welcome,
    read_content,
    read_tag,
    write_line,
)
from gatewright_host.host_status import HostStatus

WELCOME_TIMEOUT_S: Final = 10.0


class AsyncHostLink(asyncio.Protocol):
    """A connection to an engine host. Made by `connect`; belongs to the event loop's thread.

    Args:
        deliver: Takes the news of leases; must return at once and must not raise.
        lost: Called once when the connection is over without `close`, with the reason.
    """

    def __init__(self, deliver: Callable[[LeaseNews], None], lost: Callable[[str], None]) -> None:
        self._deliver = deliver
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._lines = LineBuffer()
        self._welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._ids = count(1)
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._reason = "the engine host closed the connection"

    @classmethod
    async def connect(
        cls,
        path: str | os.PathLike[str],
        deliver: Callable[[LeaseNews], None],
        lost: Callable[[str], None],
        *,
        watch: bool = False,
    ) -> Self:
        """Connect and be welcomed; until then `lost` is not called.

        Raises:
            HostLost: Nobody is there, or nobody answers.
            HostRefused: It is of another version.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, link = await loop.create_unix_connection(lambda: cls(deliver, lost), os.fspath(path))
        except OSError as error:
            raise HostLost(f"{path}: {error.strerror or error}") from error
        try:
            transport.write(write_line(HELLO, Hello(PROTOCOL, watch)))
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                await link._welcome  # noqa: SLF001  # its own class
        except TimeoutError as error:
            transport.abort()
            raise HostLost(f"{path}: no welcome within {WELCOME_TIMEOUT_S:g} s") from error
        except BaseException:
            transport.abort()
            raise
        return link

    def send(self, request: LeaseRequest) -> None:
        """Say something about leases; lost where the connection is."""
        if self._transport is not None:
            self._transport.write(codec.encode(request) + b"\n")

    def replace_specs(self, old: tuple[EngineSpec, ...], new: tuple[EngineSpec, ...]) -> None:
        """The configuration was reloaded; see `HostLink`."""
        if self._transport is not None:
            self._transport.write(codec.encode(SpecsReplaced(old=old, new=new)) + b"\n")

    async def status(self) -> HostStatus:
        """What the host and its engines do now.

        Raises:
            HostLost: The connection is over.
            HostRefused: It does not say.
        """
        status = await self._ask(Ask(next(self._ids), "status"), HostStatus)
        return cast("HostStatus", status)

    async def stop_engines(self, model: str | None = None, *, force: bool = False) -> None:
        """Have engines stopped; see `EngineHost`.

        Raises:
            HostLost: The connection is over.
            HostRefused: It does not do so.
        """
        await self._ask(Ask(next(self._ids), "stop", model=model, force=force), None)

    def close(self) -> None:
        """Give back all leases and hear nothing more."""
        self._lost = lambda _: None
        self._deliver = lambda _: None
        if self._transport is not None:
            self._transport.close()

    async def _ask(self, ask: Ask, kind: Any) -> Any:
        if self._transport is None:
            raise HostLost(self._reason)
        future = self._replies[ask.id] = asyncio.get_running_loop().create_future()
        self._transport.write(write_line(ASK, ask))
        try:
            reply = await future
        finally:
            del self._replies[ask.id]
        if reply.error is not None:
            raise HostRefused(reply.error)
        return read_content(reply.result, kind)

    # --- told by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent

    def data_received(self, data: bytes) -> None:
        """Bytes of the host."""
        try:
            for line in self._lines.feed(data):
                self._take(line)
        except (ProtocolError, codec.CodecError) as error:
            self._reason = f"the engine host talks nonsense: {error}"
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._transport = None
        if exc is not None:
            self._reason = f"the connection to the engine host broke: {exc}"
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(HostLost(self._reason))
        if self._welcome.done() and not self._welcome.cancelled() and self._welcome.exception() is None:
            self._lost(self._reason)
        elif not self._welcome.done():
            self._welcome.set_exception(HostLost(self._reason))

    def _take(self, line: bytes) -> None:
        tag, content = read_tag(line)
        if tag == REPLY:
            reply = read_content(content, Reply)
            future = self._replies.get(reply.id)
            if future is not None and not future.done():
                future.set_result(reply)
        elif tag == WELCOME:
            if not self._welcome.done():
                self._welcome.set_result(read_content(content, Welcome))
        elif tag == ERROR:
            self._refused(read_content(content, str))
        else:
            self._deliver(cast("LeaseNews", codec.decode(line)))

    def _refused(self, reason: str) -> None:
        self._reason = f"the engine host closed the connection: {reason}"
        if not self._welcome.done():
            self._welcome.set_exception(HostRefused(reason))
