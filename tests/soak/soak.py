"""One transport under mixed traffic for some time, and what it holds on to afterwards."""

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
from attrs import define, field, frozen

from gatewright_host.host_protocol import HostLost
from tests.faults.upstream import FaultUpstream
from tests.soak.http import Connect, SoakClient
from tests.soak.judging import Expected, Violation, judge
from tests.soak.leaks import Rest, find_leaks, leases_of, left_in, load_of
from tests.soak.traffic import Models, Tally, choices_lua, models_lua, run_traffic
from tests.support.gateway import Gateway
from tests.support.gunicorn import GunicornGateway

SERVER: Final = "stall_timeout = 3, body_timeout = 2, head_timeout = 2"
SETTLE_S: Final = 15.0
"""Time until everything must be at rest: more than any timeout above."""
STOP_S: Final = 10.0
"""A gateway that has nothing to do stops within that time; one that waits for lost requests takes 30 s."""
WARM_UP: Final = 0.4
"""Share of the traffic before memory and the like are looked at for the first time."""
FINISH_S: Final = 3.5
"""What starting, resting and stopping take."""
HOST_LINGER_S: Final = 120.0


@frozen
class Transport:
    """A way to the gateway.

    Attributes:
        make: Makes the gateway.
        clients: That visit it at the same time.
        at_a_time: Requests that each of its processes serves at a time.
        over_unix: Whether clients come over a Unix socket.
    """

    make: Callable[[list[str], Path], Gateway]
    clients: int
    at_a_time: int
    over_unix: bool = False


def _async(models: list[str], directory: Path) -> Gateway:
    listen = f'listen_v4 = "127.0.0.1:0", listen_v6 = "none", listen_unix = "{directory / "s"}"'
    return Gateway(*models, server=SERVER, listen=listen, more=choices_lua())


def _gunicorn(worker_class: str) -> Callable[[list[str], Path], Gateway]:
    def make(models: list[str], _directory: Path) -> Gateway:
        return GunicornGateway(
            *models,
            worker_class=worker_class,
            workers=2,
            threads=4,
            server=SERVER,
            host_linger_s=HOST_LINGER_S,
            more=choices_lua(),
        )

    return make


TRANSPORTS: Final = {
    "async-tcp": Transport(_async, clients=8, at_a_time=8),
    "async-unix": Transport(_async, clients=8, at_a_time=8, over_unix=True),
    "gthread": Transport(_gunicorn("gthread"), clients=8, at_a_time=4),
    "sync": Transport(_gunicorn("sync"), clients=4, at_a_time=1),
}


@define
class Report:
    """What came of it.

    Attributes:
        tally: Of the traffic, warming up included.
        leaks: What should be gone and is not.
        before: At rest, after warming up.
        after: At rest, after the traffic; empty if that was not worth the while.
        stop_s: How long the gateway took to stop.
    """

    tally: Tally = field(factory=Tally)
    leaks: list[str] = field(factory=list)
    before: Rest = field(factory=Rest)
    after: Rest = field(factory=Rest)
    stop_s: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong."""
        slow = [f"stopping took {self.stop_s:.1f} s"] if self.stop_s > STOP_S else []
        return [*self.tally.violations, *self.leaks, *slow]


@frozen
class _Site:
    """A gateway and what is around it."""

    gateway: Gateway
    upstream: FaultUpstream
    transport: Transport
    directory: Path

    def connect(self) -> socket.socket:
        """A client's connection."""
        if not self.transport.over_unix:
            return socket.create_connection(("127.0.0.1", self.gateway.port), timeout=10)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(self.directory / "s"))
        except OSError:
            sock.close()
            raise
        return sock


def soak(name: str, seconds: float, models: Models, directory: Path, seed: int = 0) -> Report:
    """Soak one transport.

    Args:
        name: Of the transport.
        seconds: How long it may take in all.
        models: For the engines.
        directory: For a Unix socket; its path must be short.
        seed: Other traffic for other seeds.
    """
    transport = TRANSPORTS[name]
    traffic_s = max(1.0, seconds - FINISH_S)
    report = Report()
    with FaultUpstream() as upstream:
        gateway = transport.make(models_lua(models, upstream), directory)
        try:
            with gateway:
                site = _Site(gateway, upstream, transport, directory)
                report.tally = run_traffic(site.connect, transport.clients, traffic_s * WARM_UP, seed)
                report.before = _at_rest(site, None, report.leaks)
                if not report.problems:
                    later = run_traffic(site.connect, transport.clients, traffic_s * (1 - WARM_UP), seed + 1)
                    report.tally.add(later)
                    report.after = _at_rest(site, report.before, report.leaks)
                report.stop_s = _stop(gateway)
        except (AssertionError, HostLost) as error:
            report.leaks.append(f"the gateway broke down: {str(error)[:1000]}")
    report.leaks += [
        line for line in gateway.log_at_end.splitlines() if "a bug" in line or "a defect" in line
    ]
    return report


def _stop(gateway: Gateway) -> float:
    began = time.monotonic()
    gateway.stop()
    return time.monotonic() - began


def _at_rest(site: _Site, before: Rest | None, problems: list[str]) -> Rest:
    """Wait until nothing is left, or as long as that may take; what there is then.

    Args:
        site: The gateway.
        before: What there was at the time before.
        problems: Is told what is left.
    """
    end = time.monotonic() + SETTLE_S
    try:
        _ask_engine(site.connect)  # the same engine runs each time
        # A worker connects to the engine host with its first request for an engine, and stays so: no leak.
        while not _all_are_attached(site.gateway) and time.monotonic() < end:
            _ask_engine(site.connect)
    except Violation as violation:
        problems.append(f"the engine at rest: {violation}")
    while True:
        rest = _look(site.gateway, site.upstream)
        at_a_time = dict.fromkeys(rest.loads, site.transport.at_a_time)
        leaks = find_leaks(before or rest, rest, at_a_time=at_a_time)
        if not leaks or time.monotonic() > end:
            problems += leaks
            return rest
        time.sleep(0.1)


def _ask_engine(connect: Connect) -> None:
    client = SoakClient(connect)
    body = {"model": "one", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    try:
        judge(client.ask(body), Expected(), streamed=False)
    finally:
        client.close()


def _all_are_attached(gateway: Gateway) -> bool:
    servers = len(gateway.workers()) if isinstance(gateway, GunicornGateway) else 1
    return gateway.host_status().holders >= servers


def _look(gateway: Gateway, upstream: FaultUpstream) -> Rest:
    status = gateway.host_status()
    engines = {report.pid for report in status.engines if report.pid is not None}
    named = {status.pid: "engine host", gateway.pid: "gw-server"}
    if isinstance(gateway, GunicornGateway):
        named[gateway.pid] = "gunicorn"
        named |= {worker.pid: f"worker {number}" for number, worker in enumerate(gateway.workers(), 1)}
    loads, strangers = {}, []
    for process in gateway.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid in named:
                loads[named[process.pid]] = load_of(process, frozenset({gateway.port}))
            elif process.pid not in engines:
                strangers.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
    return Rest(
        loads=loads,
        strangers=tuple(strangers),
        leases=leases_of([report.engine for report in status.engines]),
        under_way=tuple(upstream.under_way),
        left=left_in(gateway.state, named),
    )
