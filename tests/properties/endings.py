"""What may come of counts, calls and relays; and the end, at which nothing fails any more."""

from hypothesis import strategies as st

from gatewright.api.facts import Resumable, UpstreamError, Usage
from gatewright.commands import BeginRelay, CallUpstream, CountTokens, EstimateComplexity, ReserveSpend
from gatewright.errors import BudgetExceeded
from gatewright.events import (
    CallFailure,
    ComplexityEstimated,
    EngineProbed,
    EstimationFailed,
    Health,
    RelayEnded,
    RelayFailure,
    SpendRefused,
    SpendReserved,
    SpendUnknown,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
)
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from tests.core.machines import build
from tests.core.machines.world import Work, World

ERRORS = (
    UpstreamError(message="no"),
    UpstreamError(message="no", retry_after_s=5.0),
    UpstreamError(message="no", retry_after_s=300.0),
    UpstreamError(message="no", code="content_filter"),
    UpstreamError(message="no", code="insufficient_quota"),
    UpstreamError(message="no", status=429),
    build.LOADING,
    *map(build.overflow, (None, 0, 700, 9000)),
)
STATUSES = (200, 400, 401, 404, 408, 409, 429, 500, 501, 503)
ESTIMATES = tuple(
    ComplexityEstimate(complexity=complexity, score=complexity.level / 4) for complexity in TaskComplexity
)
BREAKS = tuple(failure for failure in RelayFailure if failure is not RelayFailure.CLIENT_GONE)


def failures(world: World, work: Work):
    """Everything that may go wrong, but that a client goes away."""
    cid = work.command_id
    is_stream = world.clients[work.request_id].facts.stream
    match work:
        case CountTokens():
            return st.just(TokenCountFailed(command_id=cid, reason="no answer"))
        case EstimateComplexity():
            return st.just(EstimationFailed(command_id=cid, reason="no answer"))
        case ReserveSpend():
            refusal = BudgetExceeded("the budget is used up", budget="monthly").problem
            refused = st.builds(
                SpendRefused, command_id=st.just(cid), problem=st.just(refusal), is_rate=st.booleans()
            )
            return refused | st.just(SpendUnknown(command_id=cid, reason="disk full"))
        case CallUpstream():
            refused = st.builds(
                UpstreamAnswered,
                command_id=st.just(cid),
                status=st.sampled_from(STATUSES),
                error=st.sampled_from(ERRORS),
            )
            failed = st.builds(
                UpstreamFailed,
                command_id=st.just(cid),
                failure=st.sampled_from(CallFailure),
                reason=st.just("x"),
            )
            return refused | failed
        case BeginRelay():
            return st.builds(
                RelayEnded,
                command_id=st.just(cid),
                failure=st.sampled_from(BREAKS),
                reason=st.just("x"),
                error=st.sampled_from((None, *ERRORS)),
                resumable=st.sampled_from(Resumable) if is_stream else st.just(Resumable.NO),
            )


def completions(world: World, work: Work):
    """Everything that may come of a count, call or relay."""
    cid = work.command_id
    match work:
        case CountTokens():
            counted = st.sampled_from((-1, 0, 100, 3000, 50_000)).map(
                lambda tokens: TokensCounted(command_id=cid, prompt_tokens=tokens)
            )
            return counted | st.just(TokenCountFailed(command_id=cid, reason="no answer"))
        case EstimateComplexity(candidates=candidates):
            estimated = st.builds(
                ComplexityEstimated,
                command_id=st.just(cid),
                estimate=st.sampled_from(ESTIMATES),
                chances=st.dictionaries(st.sampled_from(candidates), st.floats(0, 1)),
            )
            return estimated | failures(world, work)
        case ReserveSpend():
            return st.just(SpendReserved(command_id=cid)) | failures(world, work)
        case CallUpstream():
            well = UpstreamAnswered(command_id=cid, status=200)
            return (
                st.just(well) | st.just(UpstreamAnswered(command_id=cid, status=400)) | failures(world, work)
            )
        case BeginRelay():
            usage = Usage(prompt_tokens=100, completion_tokens=3)
            gone = RelayEnded(command_id=cid, failure=RelayFailure.CLIENT_GONE, reason="x")
            well = RelayEnded(command_id=cid, usage=usage)
            return st.sampled_from((well, well, gone)) | failures(world, work)


def finish(world: World) -> None:
    """From now on nothing fails: everything must come to its end within a bounded time."""
    world.immediate = True
    world.carry_all()
    give_up_at = world.now + 2000
    while world.gateway.active:
        for spawn in list(world.spawns.values()):
            world.spawned(spawn)
        for probe in list(world.probes.values()):
            world.probed(EngineProbed(command_id=probe.command_id, health=Health.READY))
        for process in list(world.processes.values()):
            if process.signals:
                world.exited(process.engine_id, "as told")
        for work in list(world.work.values()):
            world.complete(success(work, canceled=work.command_id in world.canceled))
        world.pass_time(world.now + 1)
        assert world.now < give_up_at, "somebody waits for ever"
    world.check_finished()


def success(work: Work, *, canceled: bool):
    cid = work.command_id
    match work:
        case CountTokens() if canceled:
            return TokenCountFailed(command_id=cid, reason="canceled")
        case CountTokens():
            return TokensCounted(command_id=cid, prompt_tokens=100)
        case EstimateComplexity():
            return EstimationFailed(command_id=cid, reason="canceled" if canceled else "not now")
        case ReserveSpend():
            return SpendReserved(command_id=cid)
        case CallUpstream() if canceled:
            return UpstreamFailed(command_id=cid, failure=CallFailure.CANCELED, reason="canceled")
        case CallUpstream():
            return UpstreamAnswered(command_id=cid, status=200)
        case BeginRelay():
            return RelayEnded(command_id=cid, failure=RelayFailure.CANCELED if canceled else None)
