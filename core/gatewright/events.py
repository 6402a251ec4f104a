"""Facts that the machines are told, in the past tense."""

from enum import StrEnum

from attrs import field, frozen

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.api.facts import RequestFacts, Resumable, UpstreamError, Usage
from gatewright.config import Config
from gatewright.engines.spec import EngineSpec
from gatewright.errors import Problem
from gatewright.ids import CommandId, EngineId, HolderId, RequestId
from gatewright.leases import LeaseGranted, LeaseLost, LeaseProgress, LeaseRefused, LeaseRequest, LoadsTold
from gatewright.route_config import ExperimentState
from gatewright.selection.complexity import ComplexityEstimate

# --- to both machines


@frozen(kw_only=True)
class Woke:
    """The time of `wake_at` may have come."""


@frozen(kw_only=True)
class ShutdownRequested:
    """Take nothing new and come to an end.

    Attributes:
        force: Do not wait for what runs.
        grace_s: To the Fleet: seconds for which leases that were granted are left alone.
    """

    force: bool = False
    grace_s: float = 0.0


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
    """Completion of `CallUpstream`: the answer has begun, and is held back.

    That is: the first token of a stream is here, or all of a document, or the whole body of an error.

    Attributes:
        command_id: Of the call.
        status: HTTP status.
        error: What the body says, where the status is 400 or above, or where it is an error all the same.
        usage: Tokens, where all of the answer is here and tells them.
    """

    command_id: CommandId
    status: int
    error: UpstreamError | None = None
    usage: Usage | None = None


class CallFailure(StrEnum):
    """Why an upstream gave no answer."""

    UNREACHABLE = "unreachable"
    """No connection."""
    BROKEN = "broken"
    """The connection broke, or what came was no HTTP, before the answer had begun."""
    MALFORMED = "malformed"
    """What came in good form is no answer."""
    TIMEOUT = "timeout"
    """It was silent for too long."""
    DIFFERENT = "different"
    """It does not begin with what the client has of an earlier answer."""
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
    MALFORMED = "malformed"
    """Events that nobody can read."""
    REFUSED = "refused"
    """The upstream broke it off with an error of its own, which was not passed on."""
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
        relayed_tokens: Tokens of the answer in these, by estimate, where the upstream did not count.
        error: What the upstream said, where it refused.
        resumable: What can be done about a failure.
    """

    command_id: CommandId
    failure: RelayFailure | None = None
    reason: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    relayed_bytes: int = 0
    relayed_tokens: int = 0
    error: UpstreamError | None = None
    resumable: Resumable = Resumable.NO


@frozen(kw_only=True)
class ComplexityEstimated:
    """Completion of `EstimateComplexity`.

    Attributes:
        command_id: Of the estimate.
        estimate: How hard the request is.
        chances: Chance of success by candidate, where the estimator tells them.
    """

    command_id: CommandId
    estimate: ComplexityEstimate
    chances: dict[str, float] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class EstimationFailed:
    """Completion of `EstimateComplexity`: it could not, or not in time."""

    command_id: CommandId
    reason: str


@frozen(kw_only=True)
class SpendReserved:
    """Completion of `ReserveSpend`: the store keeps the amount for this request until its `RecordRequest`.

    Attributes:
        command_id: Of the reservation.
        warnings: Accounts that come near their limit or are beyond a soft one, one line each.
    """

    command_id: CommandId
    warnings: tuple[str, ...] = ()


@frozen(kw_only=True)
class SpendRefused:
    """Completion of `ReserveSpend`: a hard budget or a rate limit does not allow it. Nothing is reserved.

    Attributes:
        command_id: Of the reservation.
        problem: What the client is told.
        is_rate: A rate limit, which no cheaper model helps against.
        left_usd: What is left of the budget that does not allow it.
        is_reserved: The budget would allow it, were it not for what requests under way have reserved.
    """

    command_id: CommandId
    problem: Problem
    is_rate: bool = False
    left_usd: float = 0.0
    is_reserved: bool = False


@frozen(kw_only=True)
class SpendUnknown:
    """Completion of `ReserveSpend`: the store cannot be asked."""

    command_id: CommandId
    reason: str


@frozen(kw_only=True)
class OutcomesLearnt:
    """The store has news: outcomes of other processes, and feedback on anybody's.

    Attributes:
        outcomes: In the order in which they came; `at` is on the Gateway's clock and may be negative.
        feedback: The same.
    """

    outcomes: tuple[ModelOutcome, ...] = ()
    feedback: tuple[Feedback, ...] = ()


@frozen(kw_only=True)
class BudgetsSeen:
    """What is left of the budgets, as the store said a moment ago: advice.

    Attributes:
        left_usd: US dollars by account; accounts that are not named are untouched.
    """

    left_usd: dict[str, float] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class ExperimentsSet:
    """What was done to experiments by hand, all of it: what is not named is left to its own rules."""

    states: tuple[ExperimentState, ...] = ()


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
    | LoadsTold
    | ComplexityEstimated
    | EstimationFailed
    | SpendReserved
    | SpendRefused
    | SpendUnknown
    | OutcomesLearnt
    | BudgetsSeen
    | ExperimentsSet
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

# --- how a machine was made: begins its trace, and is told to nobody


@frozen(kw_only=True)
class GatewayStarted:
    """A Gateway was made.

    Attributes:
        config: Its first configuration.
        seed: Of the random numbers that its driver gave it.
    """

    config: Config
    seed: int


@frozen(kw_only=True)
class FleetStarted:
    """A Fleet was made.

    Attributes:
        linger_s: Seconds without engines and holders after which its host exits; None never.
        now: Seconds, monotonic: when the host started.
    """

    linger_s: float | None = None
    now: float
