"""The blocking client's end of an engine host's socket, which starts a host where none runs. No asyncio in it."""

import fcntl
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from types import TracebackType
from typing import Any, Final, Self, cast

from gatewright import codec
from gatewright.engines.spec import EngineSpec
from gatewright.events import SpecsReplaced
from gatewright.leases import LeaseNews, LeaseRequest
from gatewright_host.host_lock import read_announcement
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
    Paths,
    ProtocolError,
    Reply,
    Welcome,
    read_content,
    read_tag,
    write_line,
)
from gatewright_host.host_status import HostStatus
from gatewright_host.state_dir import StateDir

CONNECT_TIMEOUT_S: Final = 30.0
"""A host that starts may have to wait for one that ends, and that one for its engines."""
DEFAULT_LINGER_S: Final = 10.0
_WELCOME_TIMEOUT_S: Final = 10.0
_REPLY_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.01
_START_AGAIN_S: Final = 5.0
_READ_BYTES: Final = 65_536
_HOST_LOG_BYTES: Final = 8 * 1024 * 1024


class BlockingHostClient:
    """A connection to an engine host. Made by `connect`; use it as a context manager.

    Any thread may `send`. `receive` and what asks something belong to one thread at a time.

    Args:
        connection: Connected to the host and welcomed.
        host_pid: The host's process.
    """

    def __init__(self, connection: socket.socket, host_pid: int = 0) -> None:
        self.host_pid = host_pid
        self._socket = connection
        self._lines = LineBuffer()
        self._news: deque[LeaseNews] = deque()
        self._replies: dict[int, Reply] = {}
        self._welcome: Welcome | None = None
        self._ids = count(1)
        self._send_lock = threading.Lock()

    @classmethod
    def connect(
        cls,
        state: StateDir,
        *,
        start: bool = True,
        watch: bool = False,
        timeout_s: float = CONNECT_TIMEOUT_S,
        linger_s: float = DEFAULT_LINGER_S,
    ) -> Self:
        """Attach to the engine host of a state directory.

        Args:
            state: Which.
            start: Start a detached host if none runs; without it that is `HostLost` at once.
            watch: Ask and order only: no leases, and no reason for the host to stay.
            timeout_s: How long to wait for a host that starts or ends.
            linger_s: Of the host that is started.

        Raises:
            HostLost: There is no host, or it did not come up in time.
            HostRefused: It is of another version, or belongs to another user.
        """
        client = cls._attach(state, watch=watch)
        if client is not None:
            return client
        if not start:
            raise HostLost("no engine host runs")
        give_up_at = time.monotonic() + timeout_s
        with _starting(state) as may_start:
            start_at = 0.0
            while True:
                if may_start() and time.monotonic() >= start_at:
                    _start_host(state, linger_s)
                    start_at = time.monotonic() + _START_AGAIN_S
                client = cls._attach(state, watch=watch)
                if client is not None:
                    return client
                if time.monotonic() >= give_up_at:
                    raise HostLost(_why_not(state, timeout_s))
                time.sleep(_POLL_S)

    @classmethod
    def _attach(cls, state: StateDir, *, watch: bool) -> Self | None:
        """A client of the host that runs; None if none does, or is only about to."""
        announcement = read_announcement(state.lock_file)
        if announcement is None:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client = cls(connection, announcement.pid)
        try:
            connection.connect(announcement.socket)
            client._greet(watch=watch)  # its own class
        except (OSError, HostLost):
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return client

    def _greet(self, *, watch: bool) -> None:
        self._write(write_line(HELLO, Hello(PROTOCOL, watch)))
        while self._welcome is None:
            if not self._fetch(_WELCOME_TIMEOUT_S):
                raise HostLost(f"no welcome within {_WELCOME_TIMEOUT_S:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """For `select`; look for news with `receive(0)` first, since some may have been read already."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give back all leases, and wake a thread that waits in `receive`. Closing twice is closing once."""
        with suppress(OSError):  # not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    # --- leases

    def send(self, request: LeaseRequest) -> None:
        """Say something about leases.

        Raises:
            HostLost: The host is gone.
        """
        self._write(codec.encode(request) + b"\n")

    def receive(self, timeout_s: float | None = None) -> LeaseNews | None:
        """The next news of leases; None if there is none in time.

        Args:
            timeout_s: How long to wait; 0 not at all, None for ever.

        Raises:
            HostLost: The host is gone.
        """
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._news:
            rest_s = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            if not self._fetch(rest_s) and rest_s == 0:
                return None
        return self._news.popleft()

    # --- what operators ask

    def status(self) -> HostStatus:
        """What the host and its engines do now.

        Raises:
            HostLost: The host is gone.
        """
        return cast("HostStatus", self._ask(Ask(next(self._ids), "status"), HostStatus))

    def paths(self) -> Paths:
        """Where the host logs.

        Raises:
            HostLost: The host is gone.
        """
        return cast("Paths", self._ask(Ask(next(self._ids), "paths"), Paths))

    def stop_engines(self, model: str | None = None, *, force: bool = False) -> None:
        """Have engines stopped: of one model or all, once nobody holds them or by force at once.

        Raises:
            HostLost: The host is gone.
        """
        self._ask(Ask(next(self._ids), "stop", model=model, force=force), None)

    def replace_specs(self, old: tuple[EngineSpec, ...], new: tuple[EngineSpec, ...]) -> None:
        """The configuration was reloaded: engines that only `old` names end once nobody holds them.

        Raises:
            HostLost: The host is gone.
        """
        self._write(codec.encode(SpecsReplaced(old=old, new=new)) + b"\n")

    def shutdown(self, *, force: bool = False) -> None:
        """Have a detached host end all engines and itself.

        Raises:
            HostLost: The host is gone.
            HostRefused: It is part of a server.
        """
        self._ask(Ask(next(self._ids), "shutdown", force=force), None)

    def _ask(self, ask: Ask, kind: Any) -> Any:
        self._write(write_line(ASK, ask))
        give_up_at = time.monotonic() + _REPLY_TIMEOUT_S
        while ask.id not in self._replies:
            rest_s = give_up_at - time.monotonic()
            if rest_s <= 0:
                raise HostLost(f"the engine host did not answer within {_REPLY_TIMEOUT_S:g} s")
            self._fetch(rest_s)
        reply = self._replies.pop(ask.id)
        if reply.error is not None:
            raise HostRefused(reply.error)
        return read_content(reply.result, kind)

    # --- the socket

    def _write(self, line: bytes) -> None:
        try:
            with self._send_lock:
                self._socket.sendall(line)
        except OSError as error:
            raise HostLost(f"the engine host is gone: {error.strerror or error}") from error

    def _fetch(self, timeout_s: float | None) -> bool:
        """Wait for bytes and sort their lines; False if none came in time.

        Raises:
            HostLost: The host is gone.
            HostRefused: It says that it wants nothing to do with us.
        """
        # The socket itself stays without a timeout: other threads send on it meanwhile.
        try:
            waiting = select.poll()
            waiting.register(self._socket, select.POLLIN)
            if not waiting.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)):
                return False
            data = self._socket.recv(_READ_BYTES)
        except (OSError, ValueError) as error:  # the latter where it is closed
            raise HostLost(f"the engine host is gone: {error}") from error
        if not data:
            raise HostLost("the engine host closed the connection")
        try:
            for line in self._lines.feed(data):
                self._take(line)
        except (ProtocolError, codec.CodecError) as error:
            raise HostLost(f"the engine host talks nonsense: {error}") from error
        return True

    def _take(self, line: bytes) -> None:
        tag, content = read_tag(line)
        if tag == REPLY:
            reply = read_content(content, Reply)
            self._replies[reply.id] = reply
        elif tag == WELCOME:
            self._welcome = read_content(content, Welcome)
        elif tag == ERROR:
            raise HostRefused(read_content(content, str))
        else:
            self._news.append(cast("LeaseNews", codec.decode(line)))


@contextmanager
def _starting(state: StateDir) -> Iterator[Callable[[], bool]]:
    """Tells whether it is upon this process to start a host: of many that want one, one at a time."""
    fd = os.open(state.start_lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def may_start() -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        yield may_start
    finally:
        os.close(fd)


def _start_host(state: StateDir, linger_s: float) -> None:
    """Start a detached host. Whether it comes up, or finds that another was faster, shows in the lock file."""
    command = [sys.executable, "-m", "gatewright_host.host_main", "--detach"]
    command += ["--state-dir", str(state.path), "--linger", f"{linger_s:g}"]
    with suppress(OSError):
        if state.host_log.stat().st_size > _HOST_LOG_BYTES:
            state.host_log.replace(state.host_log.with_suffix(".log.1"))
    log = os.open(state.host_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # What we start forks and ends, so that the host is nobody's child and nobody's zombie.
        subprocess.run(  # noqa: S603  # ourselves
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=False
        )
    except OSError as error:
        raise HostLost(f"cannot start an engine host with {sys.executable}: {error.strerror}") from error
    finally:
        os.close(log)


def _why_not(state: StateDir, timeout_s: float) -> str:
    text = f"no engine host came up within {timeout_s:g} s; see {state.host_log}"
    with suppress(OSError):
        lines = state.host_log.read_text("utf-8", "replace").strip().splitlines()
        if lines:
            text = f"{text}: {lines[-1]}"
    return text
