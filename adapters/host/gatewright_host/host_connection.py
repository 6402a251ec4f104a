"""One client of an engine host: a holder of leases, unless it only watches."""

import asyncio
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final, assert_never, cast

import msgspec

from gatewright import codec
from gatewright.events import LeaseAsked, SpecsReplaced
from gatewright.ids import HolderId
from gatewright.leases import LeaseEngine, LeaseNews, LeaseRequest
from gatewright_host.host_protocol import (
    ASK,
    ERROR,
    HELLO,
    PROTOCOL,
    REPLY,
    WELCOME,
    Ask,
    Hello,
    LineBuffer,
    Paths,
    ProtocolError,
    Reply,
    Welcome,
    read_content,
    read_tag,
    write_line,
)

if TYPE_CHECKING:
    from gatewright_host.host_socket import HostSocket

_HELLO_TIMEOUT_S: Final = 10.0
_MOST_UNREAD_BYTES: Final = 16 * 1024 * 1024
"""News that a client has not read; one that lets more pile up is taken for dead."""
_UCRED: Final = struct.Struct("iII")


class HostConnection(asyncio.Protocol):
    """One client.

    Args:
        owner: What it connected to.
    """

    def __init__(self, owner: "HostSocket") -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._lines = LineBuffer()
        self._is_greeted = False
        self._holder: HolderId | None = None
        self._hello_timer: asyncio.TimerHandle | None = None

    # --- told by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent
        if not self._owner.add(self):
            self.drop()
            return
        if not _is_ours(self._transport):
            self._fail("this engine host belongs to another user")
            return
        self._hello_timer = asyncio.get_running_loop().call_later(_HELLO_TIMEOUT_S, self.drop)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        try:
            for line in self._lines.feed(data):
                if self._transport is None or self._transport.is_closing():
                    return
                self._take(line)
        except (ProtocolError, codec.CodecError) as error:
            self._fail(str(error))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why does not matter
        """The client is gone, and its leases with it."""
        self._owner.remove(self)
        self._transport = None
        self._stop_hello_timer()
        if self._holder is not None:
            self._owner.driver.detach(self._holder)

    # --- what it says

    def _take(self, line: bytes) -> None:
        tag, content = read_tag(line)
        if not self._is_greeted:
            if tag != HELLO:
                raise ProtocolError("expected a hello")
            self._greet(read_content(content, Hello))
        elif tag == ASK:
            self._answer(read_content(content, Ask))
        else:
            self._hear(codec.decode(line))

    def _greet(self, hello: Hello) -> None:
        # A watcher of another version may still look, stop engines and end the host: how else to get rid of it?
        if hello.protocol != PROTOCOL and not hello.watch:
            raise ProtocolError(
                f"the engine host (pid {os.getpid()}) speaks protocol {PROTOCOL}, you speak {hello.protocol}: "
                "it is of another version of gatewright; stop it and try again"
            )
        self._stop_hello_timer()
        if self._owner.driver.exit_reason.done():
            self.drop()  # too late; without a welcome the client starts or awaits the next host
            return
        self._is_greeted = True
        self._write(write_line(WELCOME, Welcome(PROTOCOL, os.getpid())))
        if not hello.watch:
            self._holder = self._owner.driver.attach(self._deliver)

    def _hear(self, message: object) -> None:
        if isinstance(message, SpecsReplaced):
            self._owner.driver.feed(message)
        elif not isinstance(message, LeaseRequest):
            raise ProtocolError(f"{type(message).__name__} is not for the engine host")
        elif self._holder is None:
            raise ProtocolError("a watcher holds no leases")
        elif isinstance(message, LeaseEngine) and not message.variants:
            raise ProtocolError("a lease for no variant")
        else:
            self._owner.driver.feed(LeaseAsked(holder=self._holder, request=message))

    def _answer(self, ask: Ask) -> None:
        try:
            reply = Reply(ask.id, result=msgspec.Raw(msgspec.json.encode(self._carry_out(ask))))
        except ProtocolError as error:
            reply = Reply(ask.id, error=str(error))
        self._write(write_line(REPLY, reply))

    def _carry_out(self, ask: Ask) -> Any:
        host = self._owner.host
        match ask.op:
            case "status":
                return host.status()
            case "stop":
                host.stop_engines(ask.model, force=ask.force)
            case "paths":
                return Paths(engines_log=str(host.state.engines_log), host_log=str(host.state.host_log))
            case "shutdown":
                if not host.is_detached:
                    raise ProtocolError(
                        f"the engine host is part of a server (pid {os.getpid()}): stop that one"
                    )
                host.request_shutdown(force=ask.force)
            case _ as unreachable:
                assert_never(unreachable)
        return None

    # --- what it hears

    def _deliver(self, news: LeaseNews) -> None:
        self._write(codec.encode(news) + b"\n")

    def _write(self, line: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(line)
        if self._transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        self._write(write_line(ERROR, reason))
        self.drop()

    def drop(self, *, flush: bool = True) -> None:
        """Close the connection, after what is written or, without `flush`, at once."""
        self._stop_hello_timer()
        if self._transport is None:
            return
        if flush or self._transport.get_write_buffer_size() == 0:
            self._transport.close()
        else:
            self._transport.abort()

    def _stop_hello_timer(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None


def _is_ours(transport: asyncio.Transport) -> bool:
    """Whether the client runs as the same user. The socket's mode says so as well; this holds for root's too."""
    if sys.platform != "linux":
        return True
    peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(peer)
    return bool(uid == os.geteuid())
