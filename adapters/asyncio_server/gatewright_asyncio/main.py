"""`gw-server`: the command."""

import contextlib
import gc
import logging
import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

import anyio
import click
from attrs import evolve

from gatewright.config import Config, Listener, LogFormat, LogLevel, ServerConfig
from gatewright.configuration.schema import read_config
from gatewright.errors import ConfigError
from gatewright_asyncio.listeners import CannotListen
from gatewright_asyncio.server import Server
from gatewright_host.config_choice import ChosenConfig, choose_config
from gatewright_host.config_files import load_config
from gatewright_host.host_protocol import HostLost, HostRefused
from gatewright_host.log_setup import set_up_logging
from gatewright_host.state_dir import StateDirError
from gatewright_host.trace_file import open_trace

SWITCH_INTERVAL_S: Final = 0.0005
EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2

NO_CONFIG: Final = (
    "there is no configuration: name one with --config FILE, serve a model with --model FILE.gguf, "
    "try the bundled one with --demo, or put a gatewright.lua here or into the user's configuration directory"
)

NO_LISTENER: Final = "server.listen_v4 and server.listen_v6: both are 'none' and there is no server.listen_unix: nothing to listen on"

logger: Final = logging.getLogger("gatewright.server")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c", "--config", "config_path", type=click.Path(path_type=Path), help="Configuration file (Lua)."
)
@click.option(
    "-m", "--model", "gguf", type=click.Path(path_type=Path), help="Serve this GGUF, without a configuration."
)
@click.option("--demo", is_flag=True, help="Serve the bundled demo model.")
@click.option(
    "-l", "--listen", multiple=True, metavar="HOST:PORT", help="Listen here instead; may be repeated."
)
@click.option(
    "--state-dir",
    envvar="GATEWRIGHT_STATE_DIR",
    type=click.Path(path_type=Path),
    help="Directory of the engine host, instead of server.state_dir; also $GATEWRIGHT_STATE_DIR.",
)
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
@click.option(
    "--log-level", type=click.Choice([level.value for level in LogLevel]), help="Least severity logged."
)
@click.option(
    "--log-format", type=click.Choice([format_.value for format_ in LogFormat]), help="Shape of log lines."
)
@click.version_option(version("gatewright"), prog_name="gw-server")
def command(  # noqa: PLR0917  # click passes options by name
    config_path: Path | None,
    gguf: Path | None,
    demo: bool,
    listen: tuple[str, ...],
    state_dir: Path | None,
    check: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """An LLM gateway for your own hardware: serves the OpenAI API and runs the engines that answer it."""
    overrides = _Overrides(listen, state_dir, log_level, log_format)
    try:
        chosen = choose_config(explicit=config_path, gguf=gguf, demo=demo, env=os.environ, cwd=Path.cwd())
        config = overrides.apply(chosen.config) if chosen is not None else None
    except ConfigError as error:
        _refuse(error.problems)
    if chosen is None or config is None:
        _refuse((NO_CONFIG,))
    if not config.server.listen:
        _refuse((NO_LISTENER,))
    if check:
        for warning in chosen.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{chosen.path or 'configuration'}: {len(config.models)} models, no errors")
        return
    sys.exit(_serve(config, chosen, overrides))


def _refuse(problems: tuple[str, ...]) -> NoReturn:
    for problem in problems:
        click.echo(f"gw-server: {problem}", err=True)
    sys.exit(EXIT_CONFIG)


class _Overrides:
    """What the command line says over the configuration."""

    def __init__(
        self,
        listen: tuple[str, ...],
        state_dir: Path | None,
        log_level: str | None,
        log_format: str | None,
    ) -> None:
        self._listen = listen
        self._state_dir = state_dir
        self._log_level = log_level
        self._log_format = log_format

    def apply(self, config: Config) -> Config:
        """The configuration with the command line's settings.

        Raises:
            ConfigError: An address is none, or needs a key that is not there.
        """
        server = config.server
        if self._listen:
            server = evolve(server, listen=_parse_listen(self._listen, server))
        if self._state_dir is not None:
            server = evolve(server, state_dir=str(self._state_dir.expanduser().absolute()))
        if self._log_level is not None:
            server = evolve(server, log_level=LogLevel(self._log_level))
        if self._log_format is not None:
            server = evolve(server, log_format=LogFormat(self._log_format))
        return evolve(config, server=server)


def _parse_listen(listen: tuple[str, ...], server: ServerConfig) -> tuple[Listener, ...]:
    """Read addresses by the rules of the configuration file, the one about keys included."""
    v4 = [address for address in listen if not address.startswith(("[", "/", "./"))]
    v6 = [address for address in listen if address.startswith("[")]
    unix = [address for address in listen if address.startswith(("/", "./"))]
    raw: dict[str, object] = {"open": server.open, "api_keys": list(server.api_keys)}
    raw |= {"listen_v4": v4 or "none", "listen_v6": v6 or "none"}
    if unix:
        raw["listen_unix"] = [str(Path(path).absolute()) for path in unix]
    stand_in = {"name": "-", "engine": "openai", "connect": "http://127.0.0.1:1"}
    return read_config({"server": raw, "models": [stand_in]}).server.listen


def _serve(config: Config, chosen: ChosenConfig, overrides: _Overrides) -> int:
    set_up_logging(config.server.log_level, config.server.log_format)
    for warning in chosen.warnings:
        logger.warning("configuration: %s", warning)
    path = chosen.path

    def reload() -> Config:
        assert path is not None
        loaded = load_config(path)
        for warning in loaded.warnings:
            logger.warning("configuration: %s", warning)
        return overrides.apply(loaded.config)

    def freeze() -> None:
        # What start-up made stays for good: the collector need not look at it again and again (4 ms each time).
        gc.collect()
        gc.freeze()

    def announce(urls: tuple[str, ...]) -> None:
        freeze()
        # The store's thread works beside the event loop: it is not to keep it waiting for Python's usual 5 ms.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        names = ", ".join(model.name for model in config.models)
        logger.info("listening on %s; models: %s", ", ".join(urls), names)

    async def run() -> None:
        with open_trace(os.environ) or contextlib.nullcontext() as trace:
            server = Server(
                config,
                reload=reload if path is not None else None,
                on_listening=announce,
                on_settled=freeze,
                trace=trace,
            )
            await server.run()

    problems: list[str] = []
    try:
        anyio.run(run, backend="asyncio", backend_options={"use_uvloop": find_spec("uvloop") is not None})
    except* (CannotListen, HostLost, HostRefused, StateDirError, OSError) as group:
        problems = [str(error) for error in group.exceptions]
    for problem in problems:
        click.echo(f"gw-server: {problem}", err=True)
    return EXIT_FAILED if problems else 0


def main() -> None:
    """Entry point of `gw-server`."""
    command()
