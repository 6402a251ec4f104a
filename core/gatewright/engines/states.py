"""The states of one engine and every transition between them.

::

    Stopped --> Starting --> Loading --> Ready <--> Draining
       ^           |            |          |           |
       |           +------------+----------+-----------+--> Stopping --> Stopped | Crashed | Refused
       |           |            |          |           |
       |           +--> Refused +----------+-----------+--> Crashed (the process died by itself)
       +--- Crashed, Refused (both may also go to Starting again)

A state holds only what is true in that state; `TRANSITIONS` is the whole graph, and `check_transition` raises
on anything else.
"""

from types import MappingProxyType
from typing import Final

from attrs import frozen

from gatewright.errors import Problem
from gatewright.ids import CommandId, EngineId


@frozen
class Probing:
    """Where health probing of a process stands: either one is under way, or the next one is due.

    Attributes:
        command_id: Of the probe under way, or None.
        due_at: When the next one is due.
        failed: Probes in a row that found no engine.
    """

    command_id: CommandId | None
    due_at: float
    failed: int = 0


@frozen
class Stopped:
    """There is no process."""


@frozen
class Starting:
    """The process is being spawned, or runs and nobody listens yet.

    Attributes:
        engine_id: The process.
        spawn_id: `SpawnEngine` that is not completed yet, or None.
        since: When the start began.
        give_up_at: End of the start-up timeout.
        base_url: Where it will listen, once it is spawned.
        probing: Health probes, once it is spawned.
    """

    engine_id: EngineId
    spawn_id: CommandId | None
    since: float
    give_up_at: float
    base_url: str = ""
    probing: Probing | None = None


@frozen
class Loading:
    """It listens, and says that it loads its model."""

    engine_id: EngineId
    since: float
    give_up_at: float
    base_url: str
    probing: Probing


@frozen
class Ready:
    """It answers.

    Attributes:
        engine_id: The process; None for a remote provider.
        base_url: Where it listens.
        since: When it became ready.
        slots: Requests at a time; None for no limit.
        idle_since: When its last lease came back; None while leased.
        suspect: Somebody saw its connection break: nobody gets it before a probe has found it well.
        probing: Health probes, made while it is leased or suspect; None for a remote provider.
    """

    engine_id: EngineId | None
    base_url: str
    since: float
    slots: int | None
    idle_since: float | None
    suspect: bool
    probing: Probing | None


@frozen
class Draining:
    """It answers and is leased, but nobody gets a new lease: another engine's turn has come."""

    ready: Ready


@frozen
class Stopping:
    """It was told to end.

    Attributes:
        engine_id: The process.
        spawn_id: `SpawnEngine` that is not completed yet, or None.
        kill_at: When SIGKILL follows; None once it was sent.
        then: State to take when the process has ended.
    """

    engine_id: EngineId
    spawn_id: CommandId | None
    kill_at: float | None
    then: "Stopped | Crashed | Refused"


@frozen
class Crashed:
    """The process died by itself, or hung and was killed.

    Attributes:
        problem: What its users are told.
        was_ready: Whether it had been ready; if not, its start failed.
        retry_at: When it may be started again.
    """

    problem: Problem
    was_ready: bool
    retry_at: float


@frozen
class Refused:
    """It cannot be run, or never became ready: not tried again soon, unless the operator changes something.

    Attributes:
        problem: What its users are told.
        retry_at: When another try is made after all.
    """

    problem: Problem
    retry_at: float


_ENDED: Final = (Stopped, Crashed, Refused)
_PROBED: Final = (Starting, Loading, Ready)

EngineState = Stopped | Starting | Loading | Ready | Draining | Stopping | Crashed | Refused

TRANSITIONS: Final = MappingProxyType(
    {
        Stopped: frozenset({Starting, Ready}),  # straight to Ready: a remote provider
        Starting: frozenset({Starting, Loading, Ready, Stopping, Crashed, Refused}),
        Loading: frozenset({Loading, Ready, Stopping, Crashed}),
        Ready: frozenset({Ready, Draining, Stopping, Crashed, Stopped}),  # straight to Stopped: remote
        Draining: frozenset({Draining, Ready, Stopping, Crashed, Stopped}),
        Stopping: frozenset({Stopping, Stopped, Crashed, Refused}),
        Crashed: frozenset({Starting, Stopped}),
        Refused: frozenset({Starting, Stopped}),
    }
)


def check_transition(old: EngineState, new: EngineState) -> None:
    """Raise unless the graph has this edge.

    Raises:
        AssertionError: A programming error: no such transition exists.
    """
    if type(new) not in TRANSITIONS[type(old)]:
        raise AssertionError(f"no transition from {type(old).__name__} to {type(new).__name__}")


def state_name(state: EngineState) -> str:
    """The state's name for people: `ready`, `loading`, ..."""
    return type(state).__name__.lower()


def has_process(state: EngineState) -> bool:
    """Whether the engine takes up its place: a process runs, is being spawned or has not ended yet."""
    return not isinstance(state, _ENDED)


def probed_part(state: EngineState) -> Starting | Loading | Ready | None:
    """The part of a state that probes are about, in the states that have one."""
    if isinstance(state, Draining):
        return state.ready
    return state if isinstance(state, _PROBED) else None


def probe_id_of(state: EngineState) -> CommandId | None:
    """The probe under way, if there is one."""
    part = probed_part(state)
    return part.probing.command_id if part is not None and part.probing is not None else None


def spawn_id_of(state: EngineState) -> CommandId | None:
    """The spawn under way, if there is one."""
    return state.spawn_id if isinstance(state, Starting | Stopping) else None


def engine_id_of(state: EngineState) -> EngineId | None:
    """The process, if there is one."""
    if isinstance(state, Stopping):
        return state.engine_id
    part = probed_part(state)
    return part.engine_id if part is not None else None
