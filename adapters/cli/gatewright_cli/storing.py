"""The store, as commands use it: opened where it is, and never made just to be looked at."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from attrs import frozen

from gatewright.config import Config
from gatewright_cli import exits
from gatewright_cli.options import Common
from gatewright_host.state_dir import StateDirError
from gatewright_host.store.spool import Spool
from gatewright_host.store.vocabulary import StoreError

if TYPE_CHECKING:
    from gatewright_host.store.store import Store  # SQLAlchemy takes its time to load

NOTHING: Final = "nothing is recorded yet"
_SQLITE: Final = "sqlite"


@frozen
class Opened:
    """A store that is open.

    Attributes:
        store: The store.
        config: The configuration, if there is one.
        now_s: Unix time.
    """

    store: "Store"
    config: Config | None
    now_s: float

    def key_names(self) -> dict[str, str]:
        """Names of the API keys by their ids."""
        return {key.id: key.name for key in self.store.keys()}  # noqa: SIM118  # no dict's


@contextmanager
def looking(common: Common, *, quiet: bool = False) -> Iterator[Opened | None]:
    """The store as it is; None where there is none, which a line on standard error says.

    Args:
        common: Common options.
        quiet: The caller says it.

    Raises:
        ConfigError: The configuration is not valid.
        StateDirError: The state directory cannot be used.
        StoreError: The store cannot be used.
        Misuse: The configuration wants none.
    """
    config = _configured(common)
    url, spool = _url(common, config), Spool(common.state(config).path)
    if _is_missing(url) and spool.is_empty:
        if not quiet:
            click.echo(NOTHING, err=True)
        yield None
        return
    with _opened(url, config) as opened:
        # What `gw-cli ask` has left counts as recorded.
        spool.empty_into(lambda batch: opened.store.write(batch, of_others=True))
        yield opened


@contextmanager
def changing(common: Common) -> Iterator[Opened]:
    """The store, to be changed; made where there is none.

    Raises:
        ConfigError: The configuration is not valid.
        StateDirError: The state directory cannot be used.
        StoreError: The store cannot be used.
        Misuse: The configuration wants none.
    """
    config = _configured(common)
    with _opened(_url(common, config), config) as opened:
        yield opened


@contextmanager
def consulting(common: Common, config: Config) -> Iterator[Opened | None]:
    """The store for a command that can do without; None where there is none, or where it cannot be used."""
    try:
        url = _url(common, config) if config.store.enabled else None
        opening = _opened(url, config) if url is not None and not _is_missing(url) else None
        opened = opening.__enter__() if opening is not None else None
    except (StoreError, StateDirError) as error:
        click.echo(f"gw-cli: without what was learnt: {error}", err=True)
        opening = opened = None
    try:
        yield opened
    finally:
        if opening is not None:
            opening.__exit__(None, None, None)


@contextmanager
def _opened(url: str, config: Config | None) -> Iterator[Opened]:
    from gatewright_host.store.store import Store  # noqa: PLC0415  # only those who need it wait for SQLAlchemy

    with Store.open(url) as store:
        yield Opened(store, config, time.time())


def _configured(common: Common) -> Config | None:
    chosen = common.choose()
    if chosen is not None and not chosen.config.store.enabled:
        raise exits.Misuse("nothing is kept: `store.enabled` is false in the configuration")
    return chosen.config if chosen is not None else None


def _url(common: Common, config: Config | None) -> str:
    configured = config.store.url if config is not None else None
    return configured or f"sqlite:///{common.state(config).store_file}"


def _is_missing(url: str) -> bool:
    """Whether it is a file that is not there; a server is asked whether it has the store."""
    scheme, _, rest = url.partition(":///")
    return scheme.partition("+")[0] == _SQLITE and not Path(rest.partition("?")[0]).exists()
