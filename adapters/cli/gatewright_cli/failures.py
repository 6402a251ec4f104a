"""Failures that people can do something about, in one line each."""

from attrs import frozen

from gatewright.errors import ConfigError, GatewrightError
from gatewright_cli import exits
from gatewright_host.host_protocol import HostLost, HostRefused
from gatewright_host.state_dir import StateDirError
from gatewright_host.store.vocabulary import StoreError


@frozen
class Explained:
    """What to say of a failure.

    Attributes:
        text: A line; of a configuration with several problems one for each.
        status: Exit code.
    """

    text: str
    status: int


def explain(error: Exception) -> Explained | None:
    """What to say of an exception; None if it should not have happened."""
    match error:
        case ConfigError(problems=problems):
            return Explained("\n".join(problems), exits.USAGE)
        case GatewrightError(problem=problem):
            return Explained(problem.message, exits.FAILED)
        case HostLost() | HostRefused() | StateDirError() | StoreError():
            return Explained(str(error), exits.FAILED)
        case OSError(filename=name, strerror=str(reason)):
            return Explained(reason if name is None else f"{name}: {reason}", exits.FAILED)
        case _:
            return None
