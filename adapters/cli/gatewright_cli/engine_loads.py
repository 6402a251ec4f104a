"""What it would cost now to run the engines of a choice: from the engine host, if one runs."""

from typing import Final

from attrs import frozen

from gatewright.engines.spec import EngineSpec
from gatewright.ids import LeaseId
from gatewright.leases import AskLoads, EngineLoad, LoadState, LoadsTold
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost, HostRefused
from gatewright_host.state_dir import StateDir

_PATIENCE_S: Final = 2.0
_QUESTION: Final = LeaseId(1)
"""The only one on its connection."""


@frozen
class EngineLoads:
    """How the engines stand.

    Attributes:
        loads: One for each engine that was asked for.
        note: Where that comes from, for people; empty where no engine was asked for.
    """

    loads: tuple[EngineLoad, ...]
    note: str


def look_at_engines(state: StateDir, engines: tuple[EngineSpec, ...]) -> EngineLoads:
    """How these engines stand; nothing is started for it.

    Args:
        state: Whose engine host is asked.
        engines: The engines.
    """
    if not engines:
        return EngineLoads((), "")
    try:
        with BlockingHostClient.connect(state, start=False) as client:
            client.send(AskLoads(lease_id=_QUESTION, variants=engines))
            told = client.receive(_PATIENCE_S)
    except (HostLost, HostRefused, OSError):
        told = None
    if isinstance(told, LoadsTold):
        return EngineLoads(told.loads, "as they are now")
    return EngineLoads(
        tuple(
            EngineLoad(
                model=engine.model,
                context_tokens=engine.context_tokens,
                state=LoadState.READY if engine.is_remote else LoadState.STOPPED,
                free_slots=engine.parallel,
            )
            for engine in engines
        ),
        "none runs: those that run here would have to be loaded",
    )
