"""The engine host as operators see it: looked at and given orders, never started and never kept from ending."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gatewright.fleet import EngineStatus
from gatewright_cli.choosing import choose_model
from gatewright_cli.options import Common
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost
from gatewright_host.host_status import HostStatus

NO_HOST: Final = "no engine host is running"


@contextmanager
def watching(common: Common) -> Iterator[BlockingHostClient | None]:
    """A connection to the engine host; None if none runs.

    Raises:
        ConfigError: The configuration is not valid.
        StateDirError: The state directory cannot be used.
        HostRefused: The host belongs to somebody else.
    """
    state = common.operators_state()
    try:
        client = BlockingHostClient.connect(state, start=False, watch=True)
    except HostLost:
        yield None
        return
    with client:
        yield client


def label_of(engine: EngineStatus) -> str:
    """Short name of an engine, such as `qwen3@8192`."""
    return f"{engine.model}@{engine.context_tokens}"


def engine_model(common: Common, name: str, status: HostStatus | None) -> str:
    """The model that an operator means: one with an engine, or one of the configuration, by name, alias or file.

    Args:
        common: Common options.
        name: What the operator said.
        status: Of the engine host, if one runs.

    Raises:
        Misuse: There is no such model.
    """
    if status is not None and any(report.engine.model == name for report in status.engines):
        return name
    return choose_model(common, name).model.name
