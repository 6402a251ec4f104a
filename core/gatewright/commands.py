"""What the machines want done, in the imperative.

A command that can fail carries a `command_id`; its completion, named in its docstring, echoes the id exactly once.
"""

from enum import StrEnum

from attrs import field, frozen

from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.spending import Charge, KeyFacts
from gatewright.api.facts import Continuation, Usage
from gatewright.api.transforms import Transform
from gatewright.config import Tokenization
from gatewright.engines.spec import EngineSpec
from gatewright.errors import FailedAttempt, Problem
from gatewright.ids import CommandId, EngineId, HolderId, RequestId
from gatewright.leases import AskLoads, LeaseEngine, LeaseNews, ReleaseLease, ReportCall
from gatewright.route_config import EstimatorConfig, JudgeConfig
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.decision import Decision


class Severity(StrEnum):
    """Weight of a log line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen(kw_only=True)
class Log:
    """Write one line for the operator."""

    severity: Severity
    text: str


# --- from the Gateway


@frozen(kw_only=True)
class CountTokens:
    """Count a request's prompt exactly. Completed by `TokensCounted` or `TokenCountFailed`.

    Attributes:
        command_id: Echoed by the completion.
        request_id: Whose prompt.
        base_url: Engine to ask; None to run `tokenization` instead.
        tokenization: Program to run where no engine is to be asked.
        transforms: Changes that the body undergoes before, in this order.
        provider: Who serves the model: some changes look differently for each.
    """

    command_id: CommandId
    request_id: RequestId
    base_url: str | None = None
    tokenization: Tokenization | None = None
    transforms: tuple[Transform, ...] = ()
    provider: str = ""


@frozen(kw_only=True)
class EstimateComplexity:
    """Find out how hard a request is. Completed by `ComplexityEstimated` or `EstimationFailed`.

    Attributes:
        command_id: Echoed by the completion.
        request_id: Which request.
        estimator: Who is asked.
        candidates: Models whose chances are wanted, where the estimator tells them.
    """

    command_id: CommandId
    request_id: RequestId
    estimator: EstimatorConfig
    candidates: tuple[str, ...] = ()


@frozen(kw_only=True)
class ReserveSpend:
    """Keep an amount on each of these accounts. Completed by `SpendReserved`, `SpendRefused` or `SpendUnknown`.

    It takes the place of what was reserved for this request before; `RecordRequest` settles it.

    Attributes:
        command_id: Echoed by the completion.
        request_id: Which request.
        charges: Accounts; without any, the rate limits alone are looked at.
        amount_usd: What the request is going to cost, by estimate.
        amount_tokens: What it is going to take, the same.
        key: Its API key, for rate limits; None where it has none, or where they were looked at before.
    """

    command_id: CommandId
    request_id: RequestId
    charges: tuple[Charge, ...] = ()
    amount_usd: float = 0.0
    amount_tokens: int = 0
    key: KeyFacts | None = None


@frozen(kw_only=True)
class CallUpstream:
    """Send the request and hold its answer back. Completed by `UpstreamAnswered` or `UpstreamFailed`.

    Attributes:
        command_id: Echoed by the completion.
        request_id: Which request.
        base_url: Upstream, without the API path.
        upstream_model: Model name to put into the body; None leaves the body untouched.
        api_key_env: Environment variable with the credential to send.
        connect_timeout_s: Until the connection stands.
        head_timeout_s: From then until the answer's head; None waits as long as the engine lives.
        first_token_timeout_s: From then until the answer has begun: a stream's first token, all of a document.
        stall_timeout_s: Longest silence of an answer in one piece, from its head on.
        continuation: How to ask for the rest of the answer of which the client has a part; None if it has none.
        must_stream: The client's stream has begun, if only with comments: nothing but events can follow.
        asks_usage: The stream is to end with the tokens that it took, though the client has not asked: that event is not
            for the client.
        transforms: Changes that the body undergoes before, in this order.
        provider: Who serves the model: some changes look differently for each.
    """

    command_id: CommandId
    request_id: RequestId
    base_url: str
    upstream_model: str | None = None
    api_key_env: str | None = None
    connect_timeout_s: float = 10.0
    head_timeout_s: float | None = None
    first_token_timeout_s: float | None = None
    stall_timeout_s: float | None = None
    continuation: Continuation | None = None
    must_stream: bool = False
    asks_usage: bool = False
    transforms: tuple[Transform, ...] = ()
    provider: str = ""


@frozen(kw_only=True)
class BeginRelay:
    """Pass the held answer on to the client, up to its end. Completed by `RelayEnded`.

    Attributes:
        command_id: Echoed by the completion.
        request_id: Which request.
        headers: To be added to the answer's head.
        stall_timeout_s: Longest silence of the upstream.
        keeps_answer: A judge is to see the answer: keep a copy of its body.
    """

    command_id: CommandId
    request_id: RequestId
    headers: tuple[tuple[str, str], ...]
    stall_timeout_s: float
    keeps_answer: bool = False


@frozen(kw_only=True)
class DiscardAnswer:
    """Drop the held answer: another attempt follows."""

    request_id: RequestId


@frozen(kw_only=True)
class CancelUpstream:
    """Stop the call, count or relay under way for this request at once; its completion then says CANCELED."""

    request_id: RequestId


@frozen(kw_only=True)
class BeginStream:
    """Send 200 and the head of an event stream now, before there is an answer, to a client that waits long."""

    request_id: RequestId
    headers: tuple[tuple[str, str], ...]


@frozen(kw_only=True)
class SendComment:
    """Send a comment into a stream that `BeginStream` began."""

    request_id: RequestId
    text: str


@frozen(kw_only=True)
class SendProblem:
    """Answer with an error and end the request.

    Attributes:
        request_id: Which request.
        problem: The error.
        headers: To be added to the answer's head.
    """

    request_id: RequestId
    problem: Problem
    headers: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class FailStream:
    """End a stream that has begun with an error event, in the format of the request."""

    request_id: RequestId
    problem: Problem


@frozen(kw_only=True)
class CutConnection:
    """Close the client's connection in the middle of an answer: there is no other way to say that it broke off."""

    request_id: RequestId


class Outcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    UPSTREAM_ERROR = "upstream_error"
    """The upstream answered with an error, which the client has as it came."""
    FAILED = "failed"
    BROKE_OFF = "broke_off"
    """After the first byte."""
    CANCELED = "canceled"
    """The client went away."""


@frozen(kw_only=True)
class RecordRequest:
    """A request has ended: its one terminal outcome.

    Attributes:
        request_id: Which.
        outcome: How it ended.
        path: API path.
        model: Model that answered or would have, where one was found.
        context_tokens: Variant that answered.
        status: HTTP status that the client saw, 0 if it saw none.
        attempts: Calls to upstreams.
        wait_s: Wait for engines, over all attempts.
        first_byte_s: From arrival to the first byte of the answer.
        total_s: From arrival to the end.
        usage: Tokens.
        finish_reason: As the upstream said.
        problem: What went wrong.
        failed_attempts: What was tried in vain, in this order.
        route: Route that the request named.
        decision: How its model was chosen; None where it named one.
        task: Name of its task; empty where there is none.
        complexity: How hard it was thought to be, whoever chose its model.
        key_id: Its API key's id.
        user: Who asked, where the client told.
        estimated_cost_usd: What it was thought to cost.
        cost_usd: What all attempts together cost.
        charges: Accounts on which that is settled, each in the place of what was reserved.
        charged_usd: What is settled, by account; nothing on accounts that are not named.
        outcomes: How each model did that was asked; `at` is on the Gateway's clock.
        select_s: Time that the choice of the model took, waiting for the estimator included.
        judge: Model that is to judge the answer.
    """

    request_id: RequestId
    outcome: Outcome
    path: str
    model: str | None = None
    context_tokens: int | None = None
    status: int = 0
    attempts: int = 0
    wait_s: float = 0.0
    first_byte_s: float | None = None
    total_s: float = 0.0
    usage: Usage | None = None
    finish_reason: str | None = None
    problem: Problem | None = None
    failed_attempts: tuple[FailedAttempt, ...] = ()
    route: str | None = None
    decision: Decision | None = None
    task: str = ""
    complexity: TaskComplexity | None = None
    key_id: str | None = None
    user: str | None = None
    estimated_cost_usd: float = 0.0
    cost_usd: float = 0.0
    charges: tuple[Charge, ...] = ()
    charged_usd: dict[str, float] = field(factory=dict, hash=False)
    outcomes: tuple[ModelOutcome, ...] = ()
    select_s: float = 0.0
    judge: JudgeConfig | None = None


@frozen(kw_only=True)
class Drained:
    """A shutdown was asked for, and the last request has ended."""


GatewayCommand = (
    LeaseEngine
    | ReportCall
    | ReleaseLease
    | AskLoads
    | EstimateComplexity
    | ReserveSpend
    | CountTokens
    | CallUpstream
    | BeginRelay
    | DiscardAnswer
    | CancelUpstream
    | BeginStream
    | SendComment
    | SendProblem
    | FailStream
    | CutConnection
    | RecordRequest
    | Drained
    | Log
)

# --- from the Fleet


@frozen(kw_only=True)
class TellHolder:
    """Deliver news of a lease to the Gateway that asked for it."""

    holder: HolderId
    news: LeaseNews


@frozen(kw_only=True)
class SpawnEngine:
    """Start a process. Completed by `EngineSpawned` or `EngineSpawnFailed`; its end is told by `EngineExited`.

    Attributes:
        command_id: Echoed by the completion.
        engine_id: Names the process from now on.
        spec: What to run.
    """

    command_id: CommandId
    engine_id: EngineId
    spec: EngineSpec


@frozen(kw_only=True)
class ProbeEngine:
    """Ask for an engine's health. Completed by `EngineProbed`.

    Attributes:
        command_id: Echoed by the completion.
        engine_id: Which.
        base_url: Where.
        timeout_s: For the whole probe.
        ask_properties: Ask for slots and context too, once it is ready.
    """

    command_id: CommandId
    engine_id: EngineId
    base_url: str
    timeout_s: float
    ask_properties: bool = False


class StopSignal(StrEnum):
    """How to end a process."""

    TERMINATE = "SIGTERM"
    KILL = "SIGKILL"


@frozen(kw_only=True)
class SignalEngine:
    """Send a signal to an engine's whole process group; one that has ended already is no failure."""

    engine_id: EngineId
    signal: StopSignal


@frozen(kw_only=True)
class ExitHost:
    """Nothing is left to do: end the engine host."""

    reason: str


FleetCommand = TellHolder | SpawnEngine | ProbeEngine | SignalEngine | ExitHost | Log
