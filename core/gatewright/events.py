"""Facts that the machines are told, in the past tense."""

from enum import StrEnum

from attrs import frozen

from gatewright.api.facts import RequestFacts, UpstreamError, Usage
from gatewright.config import Config
from gatewright.engines.spec import EngineSpec
from gatewright.ids import CommandId, EngineId, HolderId, RequestId
from gatewright.leases import LeaseGranted, LeaseLost, LeaseProgress, LeaseRefused, LeaseRequest

# --- to both machines


@frozen(kw_only=True)
class Woke:
    """The time of `wake_at` may have come."""


@frozen(kw_only=True)
class ShutdownRequested:
    """Take nothing new and come to an end.

    Attributes:
        force: Do not wait for what runs.
    """

    force: bool = False


# --- to the Gateway


@frozen(kw_only=True)
class RequestReceived:
    """A client's request is here, read and authorised; the adapter keeps its body."""

    request_id: RequestId
    facts: RequestFacts


@frozen(kw_only=True)
class ClientGone:
    """The client closed its connection before its answer was complete."""

    request_id: RequestId


@frozen(kw_only=True)
class TokensCounted:
    """Completion of `CountTokens`: the exact number of prompt tokens, template included."""

    command_id: CommandId
    prompt_tokens: int


@frozen(kw_only=True)
class TokenCountFailed:
    """Completion of `CountTokens`: nobody could tell."""

    command_id: CommandId
    reason: str


@frozen(kw_only=True)
class UpstreamAnswered:
    """Completion of `CallUpstream`: status and first byte (or the whole body of an error) are here, held back.

    Attributes:
        command_id: Of the call.
        status: HTTP status.
        error: What the body of a status of 400 or above says.
    """

    command_id: CommandId
    status: int
    error: UpstreamError | None = None


class CallFailure(StrEnum):
    """Why an upstream gave no answer."""

    UNREACHABLE = "unreachable"
    """No connection."""
    BROKEN = "broken"
    """The connection broke, or what came was no HTTP, before the answer's first byte."""
    TIMEOUT = "timeout"
    """Nothing came in time."""
    CANCELED = "canceled"
    """`CancelUpstream` ended it."""


@frozen(kw_only=True)
class UpstreamFailed:
    """Completion of `CallUpstream`: no answer.

    Attributes:
        command_id: Of the call.
        failure: Kind.
        reason: One line for people.
    """

    command_id: CommandId
    failure: CallFailure
    reason: str


class RelayFailure(StrEnum):
    """Why an answer did not come to its end."""

    BROKEN = "broken"
    """The upstream's connection broke, or its framing was wrong."""
    INCOMPLETE = "incomplete"
    """It ended in good form but without the mark that its format ends with."""
    STALLED = "stalled"
    """Silence for longer than the stall timeout."""
    CLIENT_GONE = "client_gone"
    """The client could not be written to."""
    CANCELED = "canceled"
    """`CancelUpstream` ended it."""


@frozen(kw_only=True)
class RelayEnded:
    """Completion of `BeginRelay`.

    Attributes:
        command_id: Of the relay.
        failure: None if the client has the whole answer.
        reason: One line for people where it failed.
        usage: Tokens as the upstream counted them, where it did.
        finish_reason: As the upstream said.
        relayed_bytes: Bytes of body that were passed on.
    """

    command_id: CommandId
    failure: RelayFailure | None = None
    reason: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    relayed_bytes: int = 0


@frozen(kw_only=True)
class ConfigReplaced:
    """A new, valid configuration; requests under way keep what they have."""

    config: Config


GatewayEvent = (
    RequestReceived
    | LeaseGranted
    | LeaseRefused
    | LeaseLost
    | LeaseProgress
    | TokensCounted
    | TokenCountFailed
    | UpstreamAnswered
    | UpstreamFailed
    | RelayEnded
    | ClientGone
    | ConfigReplaced
    | ShutdownRequested
    | Woke
)

# --- to the Fleet


@frozen(kw_only=True)
class HolderAttached:
    """A Gateway is connected and may ask for leases."""

    holder: HolderId


@frozen(kw_only=True)
class HolderGone:
    """A Gateway is gone, and all that it held and waited for with it."""

    holder: HolderId


@frozen(kw_only=True)
class LeaseAsked:
    """A Gateway said something about leases."""

    holder: HolderId
    request: LeaseRequest


@frozen(kw_only=True)
class EngineSpawned:
    """Completion of `SpawnEngine`: the process runs.

    Attributes:
        command_id: Of the spawn.
        pid: Process id, which is also its process group.
        base_url: `connect` with the port filled in.
    """

    command_id: CommandId
    pid: int
    base_url: str


@frozen(kw_only=True)
class EngineSpawnFailed:
    """Completion of `SpawnEngine`: there is no process.

    Attributes:
        command_id: Of the spawn.
        reason: One line for people.
    """

    command_id: CommandId
    reason: str


@frozen(kw_only=True)
class EngineExited:
    """A process that `EngineSpawned` told of has ended, and its whole process group with it.

    Attributes:
        engine_id: Which.
        reason: How it ended and what it said last, one line for people.
    """

    engine_id: EngineId
    reason: str


class Health(StrEnum):
    """What a health probe saw."""

    READY = "ready"
    LOADING = "loading"
    UNREACHABLE = "unreachable"
    """Nobody listens, or no answer within the probe's timeout."""
    WRONG = "wrong"
    """Somebody answers, but not in the way of an engine."""


@frozen(kw_only=True)
class EngineProbed:
    """Completion of `ProbeEngine`.

    Attributes:
        command_id: Of the probe.
        health: What it saw.
        slots: Requests at a time, where the engine told (`/props`).
        context_tokens: Context of one slot, where the engine told.
        detail: One line for people.
    """

    command_id: CommandId
    health: Health
    slots: int | None = None
    context_tokens: int | None = None
    detail: str = ""


@frozen(kw_only=True)
class StopAsked:
    """An operator wants engines stopped; the next request for one starts it again.

    Attributes:
        model: Engines of this model; None for all.
        force: At once, whoever uses or awaits them; otherwise once nobody does.
    """

    model: str | None = None
    force: bool = False


@frozen(kw_only=True)
class SpecsReplaced:
    """A configuration was reloaded.

    Attributes:
        old: Engines that it named before.
        new: Engines that it names now; what is in `old` only is stopped once nobody holds it.
    """

    old: tuple[EngineSpec, ...]
    new: tuple[EngineSpec, ...]


FleetEvent = (
    HolderAttached
    | HolderGone
    | LeaseAsked
    | EngineSpawned
    | EngineSpawnFailed
    | EngineExited
    | EngineProbed
    | StopAsked
    | SpecsReplaced
    | ShutdownRequested
    | Woke
)
