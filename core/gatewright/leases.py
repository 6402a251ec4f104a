"""The messages between a Gateway and the Fleet: all that passes where they live in two processes."""

from enum import StrEnum

from attrs import frozen

from gatewright.engines.spec import EngineSpec
from gatewright.errors import Problem
from gatewright.ids import LeaseId


class LeasePurpose(StrEnum):
    """What a lease is for."""

    ANSWER = "answer"
    """A request that occupies one slot."""
    COUNT = "count"
    """A token count on an engine that is ready now: takes no slot, starts nothing, is answered at once."""


@frozen(kw_only=True)
class LeaseEngine:
    """Ask for an engine; answered by exactly one `LeaseGranted` or `LeaseRefused`.

    Attributes:
        lease_id: The asker's id for it.
        variants: Engines that would do, best first, all of one model, never empty.
        purpose: Whether it takes a slot.
        need_tokens: Context that the request needs, for display.
        max_waiting: Refuse if so many leases wait already for engines of the same place.
        max_wait_s: Wait after which no lease is granted ahead of this one.
        queue_timeout_s: Longest wait.
        last_resort: Nobody else is left to ask: grant it even where the upstream's circuit is open.
    """

    lease_id: LeaseId
    variants: tuple[EngineSpec, ...]
    purpose: LeasePurpose = LeasePurpose.ANSWER
    need_tokens: int = 0
    max_waiting: int = 256
    max_wait_s: float = 30.0
    queue_timeout_s: float = 900.0
    last_resort: bool = False


class CallResult(StrEnum):
    """What a call says about the upstream that was called."""

    WELL = "well"
    """It answers. Whether the client likes the answer is another matter."""
    FAILED = "failed"
    """It did not answer, or said that it cannot."""
    CREDENTIAL = "credential"
    """It does not take the credential, or what the credential stands for is used up."""


@frozen(kw_only=True)
class ReportCall:
    """Say how a call goes while its lease is held on; sent once for a lease that is a probe.

    Attributes:
        lease_id: Which.
        result: How it goes.
    """

    lease_id: LeaseId
    result: CallResult


@frozen(kw_only=True)
class ReleaseLease:
    """Give a lease back, or give up waiting for it. Sent exactly once for each `LeaseEngine` not refused or lost.

    Attributes:
        lease_id: Which.
        suspect: The engine broke the connection: probe it before anyone else gets it.
        result: What was learnt about a remote upstream, if anything was.
        retry_after_s: For how long it asked to be left alone, if it did.
    """

    lease_id: LeaseId
    suspect: bool = False
    result: CallResult | None = None
    retry_after_s: float | None = None


@frozen(kw_only=True)
class AskLoads:
    """Ask what it would cost now to run these engines; answered at once by `LoadsTold`.

    Attributes:
        lease_id: The asker's id for the question; from the same counter as those of leases.
        variants: The engines, of any models.
    """

    lease_id: LeaseId
    variants: tuple[EngineSpec, ...]


LeaseRequest = LeaseEngine | ReportCall | ReleaseLease | AskLoads
"""What a Gateway says to the Fleet."""


@frozen(kw_only=True)
class LeaseGranted:
    """The engine is ready and a slot of it is the holder's until `ReleaseLease`.

    Attributes:
        lease_id: Which.
        context_tokens: Context of the granted variant, which names it among those asked for.
        base_url: Where to reach it, without the API path.
        is_probe: The upstream's circuit is open, and this call decides whether it closes: `ReportCall` is awaited.
    """

    lease_id: LeaseId
    context_tokens: int
    base_url: str
    is_probe: bool = False


@frozen(kw_only=True)
class LeaseRefused:
    """There will be no engine for this lease."""

    lease_id: LeaseId
    problem: Problem


@frozen(kw_only=True)
class LeaseLost:
    """A granted lease is over because its engine is gone; it needs no release."""

    lease_id: LeaseId
    problem: Problem


@frozen(kw_only=True)
class LeaseProgress:
    """How the wait for a lease stands.

    Attributes:
        lease_id: Which.
        position: 1 for the next in line.
        engine: Label of the engine that is waited for, such as `qwen3@8192`.
        phase: What that engine is doing, in one or two words.
        expected_s: Seconds that its last start took; None if it never started.
    """

    lease_id: LeaseId
    position: int
    engine: str
    phase: str
    expected_s: float | None = None


class LoadState(StrEnum):
    """What stands between a request and an engine."""

    READY = "ready"
    """Nothing but the queue."""
    LOADING = "loading"
    """It is being loaded already."""
    STOPPED = "stopped"
    """It has to be loaded."""
    UNAVAILABLE = "unavailable"
    """It has failed, or its provider has, and is left alone for a while."""


@frozen(kw_only=True)
class EngineLoad:
    """What it would cost now to run one engine: advice, which may be old when it is read.

    Attributes:
        model: Its model.
        context_tokens: Its context.
        state: Whether it runs.
        free_slots: Requests that it takes at once; None for any number.
        waiting: Requests that wait for it already.
        load_s: Seconds that its last start took; None if it never started.
        evicts: Labels of the running engines that would have to go.
    """

    model: str
    context_tokens: int
    state: LoadState = LoadState.READY
    free_slots: int | None = None
    waiting: int = 0
    load_s: float | None = None
    evicts: tuple[str, ...] = ()


@frozen(kw_only=True)
class LoadsTold:
    """Answer to `AskLoads`.

    Attributes:
        lease_id: Of the question.
        loads: One for each engine that was asked for.
    """

    lease_id: LeaseId
    loads: tuple[EngineLoad, ...]


LeaseNews = LeaseGranted | LeaseRefused | LeaseLost | LeaseProgress | LoadsTold
"""What the Fleet says to a Gateway."""


def granted_at_once(asked: LeaseEngine) -> LeaseGranted | None:
    """The Fleet's answer where it has nothing to decide, so that nobody needs to ask a Fleet in another process.

    That is a provider's model that takes any number of calls, and that is to be called whatever its circuit says.
    """
    spec = asked.variants[0]
    if not asked.last_resort or spec.parallel is not None or not spec.is_remote:
        return None
    return LeaseGranted(lease_id=asked.lease_id, context_tokens=spec.context_tokens, base_url=spec.connect)
