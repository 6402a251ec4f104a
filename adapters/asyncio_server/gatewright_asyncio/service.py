"""What all client connections of a server share."""

import itertools
import secrets

from gatewright.config import Config
from gatewright.ids import RequestId
from gatewright_asyncio.driver import Driver
from gatewright_asyncio.upstreams import UpstreamPool
from gatewright_host.back_office import BackOffice
from gatewright_host.dumps import Dumps
from gatewright_host.store import Keeper


class Service:
    """Shared by all connections of one server.

    Args:
        config: Present configuration.
        driver: Driver of the Gateway.

    Attributes:
        config: Present configuration; replaced by a reload.
        driver: Driver of the Gateway.
        pool: Connections to upstreams.
        local_hosts: Addresses that the server listens on, which `Host` may name.
        dumps: Where requests and answers are written for debugging; None writes none.
        office: Keeps records, and asks estimators; None where nobody does.
        closing: The server takes no new requests.
        started_at: Unix seconds; shown as the models' creation time.
    """

    def __init__(self, config: Config, driver: Driver, started_at: int) -> None:
        self.config = config
        self.driver = driver
        self.pool = UpstreamPool()
        self.local_hosts: frozenset[str] = frozenset()
        self.closing = False
        self.dumps: Dumps | None = None
        self.office: BackOffice | None = None
        self.started_at = started_at
        self._nonce = secrets.token_hex(4)
        self._count = itertools.count(1)

    @property
    def keeper(self) -> Keeper | None:
        """What this process has of the store."""
        return self.office.keeper if self.office is not None else None

    def new_request_id(self) -> RequestId:
        """An id that no other process has given."""
        return RequestId(f"req_{self._nonce}{next(self._count):08x}")
