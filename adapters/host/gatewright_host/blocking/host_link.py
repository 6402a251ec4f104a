"""The way to the Fleet in the engine host's process, and the one thread that listens to it."""

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from select import POLLIN, poll
from time import monotonic
from typing import Final, Protocol

from gatewright.errors import EngineStartFailed
from gatewright.ids import LeaseId
from gatewright.leases import (
    AskLoads,
    LeaseEngine,
    LeaseGranted,
    LeaseNews,
    LeaseRefused,
    LeaseRequest,
    ReleaseLease,
    ReportCall,
    granted_at_once,
)
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost, HostRefused
from gatewright_host.open_leases import OpenLeases

_CLOSE_TIMEOUT_S: Final = 1.0

_logger: Final = logging.getLogger("gatewright.host")

Connect = Callable[[], BlockingHostClient]
"""Attaches to the engine host, and starts one if need be; raises `HostLost`, `HostRefused` or `OSError`."""


class Listener(Protocol):
    """What the link tells its driver of, from its own thread."""

    def deliver(self, news: LeaseNews) -> None:
        """News of the Fleet."""

    def wake(self) -> None:
        """The time given to `wake_at` has come."""


class HostLink:
    """Connects with the first lease, and again after the host was lost.

    What a lost host leaves open is made good: each lease asked for is refused, each one granted is lost, as if the
    host had said so. All news of the host come from the link's own thread, in order, and none arrives out of `send`.

    Args:
        connect: Attaches to the engine host.
        listener: Hears the news.
    """

    def __init__(self, connect: Connect, listener: Listener) -> None:
        self._connect = connect
        self._listener = listener
        self._lock = threading.Lock()  # over everything below
        self._client: BlockingHostClient | None = None
        self._open = OpenLeases()
        self._own_news: deque[LeaseNews] = deque()
        self._at_once: deque[LeaseGranted] = deque()
        self._alarm_at: float | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._doorbell, self._bell_rope = socket.socketpair()
        for end in (self._doorbell, self._bell_rope):
            end.settimeout(0)

    # --- called by the driver

    def send(self, request: LeaseRequest) -> None:
        """Pass a message on; never fails. Waits where a host has to be started first.

        The caller sees to it that only one thread at a time is in here.
        """
        match request:
            case LeaseEngine() if (granted := granted_at_once(request)) is not None:
                self._at_once.append(granted)
                return
            case LeaseEngine(lease_id=lease_id) | AskLoads(lease_id=lease_id):
                client = self._attached_for(lease_id)
            case ReleaseLease(lease_id=lease_id):
                with self._lock:
                    client = self._client
                    if not self._open.give_back(lease_id):
                        return  # it died with its host
            case ReportCall():
                client = self._client
        if client is None:
            return
        try:
            client.send(request)
        except HostLost as error:
            self._lose(client, str(error))

    def deliver_at_once(self) -> None:
        """Deliver, in the calling thread, the news for which no host was asked; after `send`, and not from within."""
        while True:
            try:
                granted = self._at_once.popleft()
            except IndexError:
                return
            self._listener.deliver(granted)

    def wake_at(self, at: float) -> None:
        """Call `Listener.wake` at this time. One that comes early does no harm, so only an earlier one counts."""
        with self._lock:
            if self._alarm_at is not None and self._alarm_at <= at:
                return
            self._alarm_at = at
        self._start_listening()
        self._ring()

    def close(self) -> None:
        """Give back all leases and hear nothing more. Not to be called by the listener's thread."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        self._ring()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)
        if client is not None:
            client.close()
        self._doorbell.close()
        self._bell_rope.close()

    # --- connecting and losing

    def _attached_for(self, lease_id: LeaseId) -> BlockingHostClient | None:
        """A connection on which this lease counts as asked for; without one it is refused."""
        while True:
            client = self._client or self._attach(lease_id)
            with self._lock:
                if client is None:
                    return None
                if self._client is client:  # else it was lost just now
                    self._open.ask(lease_id)
                    return client

    def _attach(self, lease_id: LeaseId) -> BlockingHostClient | None:
        client: BlockingHostClient | None = None
        reason = "the connection was closed by ourselves"
        if not self._closed:
            try:
                client = self._connect()
            except (HostLost, HostRefused, OSError) as error:
                reason = str(error)
        with self._lock:
            if client is not None and not self._closed:
                self._client = client
            else:
                # No `EngineHostLost`: that would be tried again at once, and so it was.
                problem = EngineStartFailed(f"no engine host: {reason}").problem
                self._own_news.append(LeaseRefused(lease_id=lease_id, problem=problem))
        if client is not None and self._closed:
            client.close()
            client = None
        self._start_listening()
        self._ring()
        return client

    def _lose(self, client: BlockingHostClient, reason: str) -> None:
        """The host is gone: refuse and lose what it leaves open. Both threads may notice it."""
        with self._lock:
            if self._client is not client:
                return
            self._client = None
            self._own_news += self._open.lose()
        _logger.warning("%s", reason)
        client.close()
        self._ring()

    # --- the listening thread

    def _start_listening(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._listen, name="gatewright-host-link", daemon=True)
                self._thread.start()

    def _ring(self) -> None:
        with suppress(OSError):  # where so much waits that no more fits in, it rings as well
            self._bell_rope.send(b"!")

    def _listen(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                client, alarm_at = self._client, self._alarm_at
            if client is not None:
                self._hear(client)
            while self._own_news:
                self._listener.deliver(self._own_news.popleft())
            if alarm_at is not None and monotonic() >= alarm_at:
                with self._lock:
                    self._alarm_at = None
                self._listener.wake()
            else:
                self._wait(client, alarm_at)

    def _hear(self, client: BlockingHostClient) -> None:
        """Pass on what the host has said by now."""
        try:
            while (news := client.receive(0)) is not None:
                with self._lock:
                    self._open.hear(news)
                self._listener.deliver(news)
        except (HostLost, HostRefused) as error:
            self._lose(client, str(error))

    def _wait(self, client: BlockingHostClient | None, alarm_at: float | None) -> None:
        """Until the host says something, the bell rings or it is time."""
        poller = poll()
        for number in (self._doorbell.fileno(), client.fileno() if client is not None else -1):
            if number >= 0:  # else it was closed just now, and the bell has rung
                poller.register(number, POLLIN)
        rest_ms = None if alarm_at is None else ceil(max(0.0, alarm_at - monotonic()) * 1000)
        poller.poll(rest_ms)
        with suppress(OSError):
            self._doorbell.recv(4096)
