"""What all requests of one process share."""

import itertools
import secrets
from collections.abc import Callable
from typing import Self

from gatewright.api.facts import RequestFacts
from gatewright.config import Config
from gatewright.events import ConfigReplaced
from gatewright.ids import RequestId
from gatewright.leases import LeaseNews
from gatewright.tracing.trace import Trace
from gatewright.wire.server import RequestHead
from gatewright_host.back_office import BackOffice
from gatewright_host.blocking.driver import Driver
from gatewright_host.blocking.exchange import Exchange
from gatewright_host.blocking.host_link import Connect, HostLink
from gatewright_host.blocking.own_requests import ask
from gatewright_host.blocking.sink import Sink
from gatewright_host.blocking.upstreams import UpstreamPool
from gatewright_host.driving import make_gateway
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Keeper
from gatewright_host.upstream_calls import ClientRequest


class Service:
    """A Gateway, its driver, and its ways to the engine host and to upstreams. Use it as a context manager.

    It belongs to the process that makes it: a server that forks makes one in each child. Nothing is connected
    before the first request.

    Args:
        config: Configuration.
        connect: Attaches to the engine host, and starts one if need be.
        trace: Told of every event of the Gateway and its commands.
        on_news: Hears news of leases before the Gateway does, in the thread that brings them; must return at once.
        state: Where records are kept; None keeps none.

    Attributes:
        config: Present configuration, with the models that the store knows.
        driver: Driver of the Gateway.
        pool: Connections to upstreams.
        office: Keeps records, and asks estimators; None where nobody does.
    """

    def __init__(
        self,
        config: Config,
        connect: Connect,
        *,
        trace: Trace | None = None,
        on_news: Callable[[LeaseNews], None] | None = None,
        state: StateDir | None = None,
    ) -> None:
        self.config = config
        self.driver = Driver(make_gateway(config, trace), trace)
        self.pool = UpstreamPool()
        listener = self.driver if on_news is None else _Overheard(self.driver, on_news)
        self._link = self.driver.link = HostLink(connect, listener)
        self._nonce = secrets.token_hex(4)
        self._count = itertools.count(1)
        self.office = self._open_office(config, state) if state is not None else None

    def _open_office(self, config: Config, state: StateDir) -> BackOffice:
        def ask_model(body: bytes, task: str, timeout_s: float) -> str:
            return ask(self, office.questions, body, task, timeout_s)

        office = BackOffice(config, state, self.driver.submit, ask_model, on_config=self._use_config)
        office.start()
        return office

    def _use_config(self, config: Config) -> None:
        """The store knows other models now."""
        self.config = config
        self.driver.submit(ConfigReplaced(config=config))

    @property
    def keeper(self) -> Keeper | None:
        """What this process has of the store."""
        return self.office.keeper if self.office is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def new_request_id(self) -> RequestId:
        """An id that no other process has given."""
        return RequestId(f"req_{self._nonce}{next(self._count):08x}")

    def exchange(
        self,
        sink: Sink,
        head: RequestHead,
        facts: RequestFacts,
        body: bytes,
        request_id: RequestId | None = None,
    ) -> Exchange:
        """A new request, to be carried through by the calling thread.

        Args:
            sink: Way back to the client.
            head: Request line and headers.
            facts: What it asks.
            body: All of it.
            request_id: From `new_request_id`, where the request had one before it was understood.
        """
        request = ClientRequest(request_id or self.new_request_id(), head, facts, body)
        return Exchange(self.driver, self.pool, sink, request, self.office)

    def close(self) -> None:
        """Give back what is held; requests under way hear nothing more."""
        if self.office is not None:
            self.office.close()
        self._link.close()
        self.pool.close()


class _Overheard:
    """A driver whose news somebody else hears too."""

    def __init__(self, driver: Driver, on_news: Callable[[LeaseNews], None]) -> None:
        self._driver = driver
        self._on_news = on_news

    def deliver(self, news: LeaseNews) -> None:
        self._on_news(news)
        self._driver.deliver(news)

    def wake(self) -> None:
        self._driver.wake()
