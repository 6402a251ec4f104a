"""The server: its life from the first listener to the last engine."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import anyio
import anyio.abc

from gatewright.api.errors import render_problem
from gatewright.config import Config
from gatewright.engines.spec import EngineSpec
from gatewright.errors import ConfigError, TooManyConnections
from gatewright.events import ConfigReplaced, GatewayEvent, ShutdownRequested
from gatewright.tracing.trace import Trace
from gatewright.wire.server import ServerConnection
from gatewright_asyncio.connection import ClientConnection
from gatewright_asyncio.driver import Driver
from gatewright_asyncio.listeners import CannotListen, Listeners
from gatewright_asyncio.own_requests import ask
from gatewright_asyncio.service import Service
from gatewright_asyncio.streams import Stream
from gatewright_host.back_office import BackOffice
from gatewright_host.driving import make_gateway
from gatewright_host.dumps import Dumps
from gatewright_host.log_setup import set_up_logging
from gatewright_host.membership import FleetMembership
from gatewright_host.state_dir import StateDir

logger: Final = logging.getLogger("gatewright.server")

CUT_S: Final = 5.0
"""How long cut requests may take to come to their end, and clients to take the last bytes of answers."""

_SETTLED_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.2

LoadConfig = Callable[[], Config]


class Server:
    """One `gw-server`.

    Args:
        config: First configuration.
        reload: Reads the configuration again; None where it did not come from a file.
        on_listening: Called with the URLs once requests are taken.
        on_settled: Called once all that start-up loads in the background is there.
        trace: Told of every step of both machines; None tells nobody.
    """

    def __init__(
        self,
        config: Config,
        *,
        reload: LoadConfig | None = None,
        on_listening: Callable[[tuple[str, ...]], None] | None = None,
        on_settled: Callable[[], None] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._trace = trace
        self._config = config
        self._reload = reload
        self._on_listening = on_listening
        self._on_settled = on_settled
        self._connections: set[ClientConnection] = set()
        self._stopping = asyncio.Event()
        self._cutting = asyncio.Event()
        self._unconnected = asyncio.Event()
        self._grace_until = 0.0
        self._driver = Driver(make_gateway(config, trace), trace)
        self._service = Service(config, self._driver, int(time.time()))
        self._open_dumps(config)
        if self._service.dumps is not None and config.server.clear_dumps_on_start:
            self._service.dumps.clear()

    async def run(self) -> None:
        """Serve until a signal ends it.

        Raises:
            CannotListen: An address cannot be listened on.
        """
        state = StateDir.at(self._config.server.state_dir)
        async with (
            anyio.create_task_group() as tasks,
            FleetMembership(state, self._driver.deliver, trace=self._trace) as fleet,
        ):
            self._fleet = fleet
            self._driver.link = fleet
            self._tasks = tasks
            office = self._service.office = self._open_office(state)
            office.keep_figures()
            office.start()
            self._listeners = Listeners(
                lambda stream: self._accept(stream, over_unix_socket=False),
                lambda stream: self._accept(stream, over_unix_socket=True),
            )
            with self._signals():
                try:
                    await self._listeners.change(self._config.server.listen)
                    self._service.local_hosts = self._listeners.hosts
                    if self._on_listening is not None:
                        self._on_listening(self._listeners.urls)
                    tasks.start_soon(self._settle, office)
                    await self._stopping.wait()
                    await self._drain()
                    await self._flush()
                finally:
                    self._listeners.close()
                    for connection in list(self._connections):
                        connection.abort()
                    self._service.pool.close()
                    self._driver.close()
                    with anyio.CancelScope(shield=True):
                        await self._stop_engines()
                        await anyio.to_thread.run_sync(office.close)

    async def _settle(self, office: BackOffice) -> None:
        """Wait for the store, which loads beside the first requests."""
        with anyio.move_on_after(_SETTLED_WITHIN_S):
            while not office.keeper.is_ready and not self._stopping.is_set():  # noqa: ASYNC110  # set by another thread
                await anyio.sleep(_LOOK_S)
        if self._on_settled is not None and not self._stopping.is_set():
            self._on_settled()

    def _open_office(self, state: StateDir) -> BackOffice:
        loop = asyncio.get_running_loop()

        def submit(event: GatewayEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
                loop.call_soon_threadsafe(self._driver.submit, event)

        def use_config(config: Config) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._use_config, config)

        def ask_model(body: bytes, task: str, timeout_s: float) -> str:
            return ask(self._service, office.questions, loop, body, task=task, timeout_s=timeout_s)

        office = BackOffice(self._config, state, submit, ask_model, on_config=use_config)
        return office

    def _use_config(self, config: Config) -> None:
        """The store knows other models now."""
        self._service.config = config
        self._driver.submit(ConfigReplaced(config=config))

    def _open_dumps(self, config: Config) -> None:
        directory = config.server.dumps_dir
        self._service.dumps = Dumps(Path(directory)) if directory is not None else None

    # --- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._start_reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Begin to stop; called again, cut what still runs."""
        if self._stopping.is_set():
            self._cutting.set()
        else:
            self._stopping.set()

    def _start_reload(self) -> None:
        if not self._stopping.is_set():
            self._tasks.start_soon(self._reload_config)

    async def _reload_config(self) -> None:
        if self._reload is None:
            logger.warning("there is no configuration file to read again")
            return
        try:
            config = await anyio.to_thread.run_sync(self._reload)
            await self._listeners.change(config.server.listen)
        except ConfigError as error:
            for problem in error.problems:
                logger.error("configuration not replaced: %s", problem)  # noqa: TRY400  # the text says it all
            return
        except CannotListen as error:
            logger.error("configuration not replaced: %s", error)  # noqa: TRY400  # the text says it all
            return
        office = self._service.office
        joined = office.replace_config(config) if office is not None else config
        old, self._config, self._service.config = self._config, config, joined
        self._service.local_hosts = self._listeners.hosts
        self._open_dumps(config)
        set_up_logging(config.server.log_level, config.server.log_format)
        self._driver.submit(ConfigReplaced(config=joined))
        self._fleet.replace_specs(_specs(old), _specs(config))
        logger.info("configuration replaced: %d models", len(config.models))

    # --- connections

    def _accept(self, stream: Stream, *, over_unix_socket: bool) -> None:
        if len(self._connections) >= self._config.server.max_connections:
            refusal = TooManyConnections("too many connections (server.max_connections)", retry_after_s=1.0)
            wire = ServerConnection(max_head_bytes=1, max_body_bytes=1)
            stream.write(wire.response(*render_problem(refusal.problem)))
            stream.close()
            return
        self._unconnected.clear()
        connection = ClientConnection(self._service, stream, over_unix_socket=over_unix_socket)
        self._connections.add(connection)
        self._tasks.start_soon(self._serve, connection)

    async def _serve(self, connection: ClientConnection) -> None:
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._unconnected.set()

    # --- the end

    async def _drain(self) -> None:
        """Let requests finish, then cut them."""
        self._grace_until = time.monotonic() + self._config.server.shutdown_timeout_s
        self._listeners.close()
        self._service.closing = True
        for connection in list(self._connections):
            if connection.is_idle:
                connection.close()
        if self._service.office is not None:
            self._service.office.questions.give_up()
        self._driver.submit(ShutdownRequested())
        if self._driver.active:
            logger.info("stopping: %d requests may finish; a second signal cuts them", self._driver.active)
        with anyio.move_on_after(self._config.server.shutdown_timeout_s):
            await _first_of(self._driver.drained.wait, self._cutting.wait)
        if not self._driver.drained.is_set():
            logger.warning("cutting %d requests", self._driver.active)
            self._driver.submit(ShutdownRequested(force=True))
            with anyio.move_on_after(CUT_S):
                await self._driver.drained.wait()

    async def _flush(self) -> None:
        """Let clients take the ends of their answers, for a while."""
        if self._connections:
            with anyio.move_on_after(CUT_S):
                await _first_of(self._unconnected.wait, self._cutting.wait)

    async def _stop_engines(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._kill_engines_when_cut)
            grace_s = max(0.0, self._grace_until - time.monotonic())  # for other processes' requests
            await self._fleet.shutdown(force=False, grace_s=grace_s)
            group.cancel_scope.cancel()

    async def _kill_engines_when_cut(self) -> None:
        await self._cutting.wait()
        await self._fleet.shutdown(force=True)


async def _first_of(*conditions: Callable[[], Awaitable[object]]) -> None:
    """Wait until one of them is true."""
    async with anyio.create_task_group() as group:

        async def wait(condition: Callable[[], Awaitable[object]]) -> None:
            await condition()
            group.cancel_scope.cancel()

        for condition in conditions:
            group.start_soon(wait, condition)


def _specs(config: Config) -> tuple[EngineSpec, ...]:
    return tuple(spec for model in config.models for spec in model.variants)
