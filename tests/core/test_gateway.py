from typing import Any

import pytest
from attrs import evolve

from gatewright.accounting.spending import KeyFacts
from gatewright.api.facts import Resumable, UpstreamError, Usage
from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CancelUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    Drained,
    FailStream,
    Log,
    Outcome,
    RecordRequest,
    SendComment,
    SendProblem,
    Severity,
)
from gatewright.config import Config, ServerConfig, Tokenization
from gatewright.errors import (
    ContextTooLarge,
    EngineCrashed,
    EngineHostLost,
    EngineStartFailed,
    EngineStopped,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    ShuttingDown,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gatewright.events import (
    CallFailure,
    ClientGone,
    ConfigReplaced,
    RelayEnded,
    RelayFailure,
    RequestReceived,
    ShutdownRequested,
    TokenCountFailed,
    TokensCounted,
    UpstreamAnswered,
    UpstreamFailed,
    Woke,
)
from gatewright.gateway import Gateway
from gatewright.leases import (
    LeaseEngine,
    LeaseGranted,
    LeaseLost,
    LeaseProgress,
    LeasePurpose,
    LeaseRefused,
    ReleaseLease,
)
from gatewright.requests import Received, Request
from gatewright.route_config import RouteConfig
from gatewright.selection.fallback import Attempts
from gatewright.timers import Deadline
from tests.core.machines.build import (
    LOADING,
    chat,
    cid,
    config,
    lid,
    model,
    overflow,
    remote_model,
    remote_spec,
    rid,
    spec,
)
from tests.core.machines.gateway_tester import URL, GatewayTester, attempt, headers, record

SMALL, LARGE = spec("qwen", 4096), spec("qwen", 16384)
TWO = model("qwen", 4096, 16384)
USAGE = Usage(prompt_tokens=100, completion_tokens=20)
CRASHED = EngineCrashed("engine qwen@4096 died: signal 9").problem
HOST_LOST = EngineHostLost("the engine host went away").problem
SHUT = ShuttingDown("the server shut down before the answer was complete").problem

PLAIN = chat(given=100)
STREAM = chat(given=100, stream=True)
UNSURE = chat(prompt_bytes=12_000)
"""From 1000 to 12,000 tokens: one of two variants."""


# --- the way of one request


@pytest.mark.parametrize("facts", [PLAIN, STREAM])
def test_a_request_that_is_answered(facts):
    tester = GatewayTester(TWO)
    assert tester.receive(0, facts) == [
        LeaseEngine(lease_id=lid(1), variants=(SMALL, LARGE), need_tokens=232)
    ]
    assert tester.granted(1.5) == [CallUpstream(command_id=cid(2), request_id=rid("r"), base_url=URL)]
    assert tester.answered(2) == [
        BeginRelay(command_id=cid(3), request_id=rid("r"), headers=headers(1, 1500), stall_timeout_s=120.0)
    ]
    assert tester.relayed(5, usage=USAGE, finish_reason="stop") == [
        ReleaseLease(lease_id=lid(1)),
        record(
            Outcome.ANSWERED,
            context_tokens=4096,
            status=200,
            attempts=1,
            wait_s=1.5,
            first_byte_s=2,
            total_s=5,
            usage=USAGE,
            finish_reason="stop",
        ),
    ]
    assert tester.gateway.active == 0
    assert tester.gateway.wake_at is None
    assert tester.gateway.stale == 0


def test_limits_of_waiting_come_from_the_configuration():
    tester = GatewayTester(max_waiting=7, max_wait_s=8.0, queue_timeout_s=9.0)
    (lease,) = tester.receive(0, PLAIN)
    assert (lease.max_waiting, lease.max_wait_s, lease.queue_timeout_s) == (7, 8.0, 9.0)


def test_a_remote_provider_is_called_by_its_names():
    tester = GatewayTester(remote_model())
    tester.receive(0, chat("gpt", given=100))
    assert tester.granted(0, 128_000) == [
        CallUpstream(
            command_id=cid(2),
            request_id=rid("r"),
            base_url=URL,
            upstream_model="gpt-large",
            api_key_env="EXAMPLE_KEY",
            head_timeout_s=300.0,
            stall_timeout_s=30.0,
        )
    ]


def test_an_upstreams_error_is_relayed_as_it_came():
    tester = GatewayTester().calling(PLAIN)
    assert isinstance(tester.answered(2, 422, UpstreamError(message="no"))[0], BeginRelay)
    assert tester.relayed(3)[1].outcome is Outcome.UPSTREAM_ERROR


def test_the_same_request_twice_at_a_time_is_wrong_use():
    tester = GatewayTester()
    tester.receive(0, PLAIN)
    with pytest.raises(AssertionError, match="r is under way already"):
        tester.receive(1, PLAIN)


# --- which model


def test_unknown_model():
    tester = GatewayTester()
    problem = ModelNotFound("nope").problem
    assert tester.receive(0, chat("nope")) == [
        SendProblem(request_id=rid("r"), problem=problem, headers=(("x-request-id", "r"),)),
        record(Outcome.FAILED, model=None, status=404, problem=problem),
    ]
    assert tester.gateway.active == 0


@pytest.mark.parametrize(
    ("named", "recorded"),
    [
        ("alias", ("qwen", None)),
        ("auto", (None, "auto")),
        ("made-up", (None, None)),
        (None, (None, None)),
    ],
)
def test_records_of_refusals_name_only_what_there_is(named, recorded):
    known = evolve(
        config(evolve(model(), aliases=("alias",)), remote_model()), routes=(RouteConfig(name="auto"),)
    )
    nothing = KeyFacts(key_id="k", name="ci", models=frozenset(), routes=frozenset())
    refused = RequestReceived(request_id=rid("r"), facts=evolve(chat(named), key=nothing))
    _, told = Gateway(known).handle(refused, 0.0)
    assert isinstance(told, RecordRequest)
    assert told.outcome is Outcome.FAILED
    assert (told.model, told.route) == recorded


def test_no_model_named():
    tester = GatewayTester(model("a"), model("b"))
    problem = InvalidRequest("'model' is missing; it names one of: a, b", param="model").problem
    assert tester.receive(0, chat(None)) == [
        SendProblem(request_id=rid("r"), problem=problem, headers=(("x-request-id", "r"),)),
        record(Outcome.FAILED, model=None, status=400, problem=problem),
    ]


def test_no_model_named_and_only_one_configured():
    assert isinstance(GatewayTester().receive(0, chat(None))[0], LeaseEngine)


def test_no_model_named_and_a_default_configured():
    gateway = Gateway(Config(models=(model("a"), model("b")), server=ServerConfig(default_model="b")))
    (lease,) = gateway.handle(RequestReceived(request_id=rid("r"), facts=chat(None)), 0)
    assert lease.variants == (spec("b"),)


def test_overflow_of_every_variant():
    tester = GatewayTester(TWO)
    problem = ContextTooLarge(20_001, 16384).problem
    assert tester.receive(0, chat(given=20_000)) == [
        SendProblem(request_id=rid("r"), problem=problem, headers=headers(0, 0, variant=None)),
        record(Outcome.FAILED, status=400, problem=problem),
    ]


# --- counting


def test_unsure_then_counted_exactly_by_an_engine():
    tester = GatewayTester(TWO)
    assert tester.receive(0, UNSURE) == [
        LeaseEngine(lease_id=lid(1), variants=(SMALL, LARGE), purpose=LeasePurpose.COUNT)
    ]
    assert tester.granted(0, 16384) == [CountTokens(command_id=cid(2), request_id=rid("r"), base_url=URL)]
    assert tester.counted(0.1, 5000) == [
        ReleaseLease(lease_id=lid(1)),
        LeaseEngine(lease_id=lid(3), variants=(LARGE,), need_tokens=5100),
    ]


def test_counted_and_too_large():
    tester = GatewayTester(TWO)
    tester.receive(0, UNSURE)
    tester.granted(0)
    problem = ContextTooLarge(20_001, 16384, 20_000).problem
    assert tester.counted(0.25, 20_000) == [
        ReleaseLease(lease_id=lid(1)),
        SendProblem(request_id=rid("r"), problem=problem, headers=headers(0, 250, variant=None)),
        record(Outcome.FAILED, status=400, wait_s=0.25, total_s=0.25, problem=problem),
    ]


PROGRAM = Tokenization(binary="llama-tokenize")
GUESS = LeaseEngine(lease_id=lid(3), variants=(SMALL, LARGE), need_tokens=3100)


def warning(reason: str) -> Log:
    text = f"r: prompt of 12000 bytes for qwen was not counted ({reason}); going by its length: variant 4096"
    return Log(severity=Severity.WARNING, text=text)


def test_no_engine_to_count_and_no_program_goes_by_the_length_with_a_warning():
    tester = GatewayTester(TWO)
    tester.receive(0, UNSURE)
    told = tester.refused(0, EngineStartFailed("no engine").problem)
    assert told == [
        warning("no engine"),
        LeaseEngine(lease_id=lid(2), variants=(SMALL, LARGE), need_tokens=3100),
    ]


def test_no_engine_to_count_then_a_program():
    tester = GatewayTester(model("qwen", 4096, 16384, tokenization=PROGRAM))
    tester.receive(0, UNSURE)
    assert tester.refused(0, EngineStartFailed("no engine").problem) == [
        CountTokens(command_id=cid(2), request_id=rid("r"), tokenization=PROGRAM)
    ]
    assert tester.counted(0.5, 9000) == [LeaseEngine(lease_id=lid(3), variants=(LARGE,), need_tokens=9100)]


def test_the_program_fails_too():
    tester = GatewayTester(model("qwen", 4096, 16384, tokenization=PROGRAM))
    tester.receive(0, UNSURE)
    tester.refused(0, EngineStartFailed("no engine").problem)
    assert tester.count_failed(0.5) == [warning("no answer"), GUESS]


def test_the_engine_fails_to_count_then_a_program():
    tester = GatewayTester(model("qwen", 4096, 16384, tokenization=PROGRAM))
    tester.receive(0, UNSURE)
    tester.granted(0)
    assert tester.count_failed(0.5) == [
        ReleaseLease(lease_id=lid(1)),
        CountTokens(command_id=cid(3), request_id=rid("r"), tokenization=PROGRAM),
    ]


def test_the_engine_is_lost_while_it_counts():
    tester = GatewayTester(TWO)
    tester.receive(0, UNSURE)
    tester.granted(0)
    assert tester.lost(0.1, CRASHED) == []
    assert tester.count_failed(0.2) == [warning("no answer"), GUESS]


@pytest.mark.parametrize("kind", [LeaseRefused, LeaseLost])
def test_the_engine_host_is_lost_before_it_lends_an_engine_to_count(kind):
    tester = GatewayTester(TWO)
    tester.receive(0, UNSURE)
    told = tester.tell(0, kind(lease_id=lid(1), problem=HOST_LOST))
    assert told[0] == warning("the engine host went away")
    assert isinstance(told[1], LeaseEngine)


def test_a_remote_model_is_never_counted():
    tester = GatewayTester(remote_model(context=4096))
    assert tester.receive(0, chat("gpt", 12_000)) == [
        LeaseEngine(lease_id=lid(1), variants=(remote_spec("gpt", 4096),), need_tokens=4024, last_resort=True)
    ]


# --- no engine


@pytest.mark.parametrize("problem", [CRASHED, QueueFull("full").problem])
def test_a_refused_lease_ends_the_request(problem):
    tester = GatewayTester()
    tester.receive(0, PLAIN)
    assert tester.refused(3, problem) == [
        SendProblem(request_id=rid("r"), problem=problem, headers=headers(0, 3000, variant=None)),
        record(Outcome.FAILED, status=problem.status, wait_s=3, total_s=3, problem=problem),
    ]


@pytest.mark.parametrize("kind", [LeaseRefused, LeaseLost])
def test_a_waiter_whose_engine_host_is_lost_asks_the_next_one_once(kind):
    tester = GatewayTester(max_waiting=5, max_connections=50)
    tester.receive(0, PLAIN)
    assert tester.tell(1, kind(lease_id=lid(1), problem=HOST_LOST)) == [
        LeaseEngine(lease_id=lid(2), variants=(SMALL,), need_tokens=232, max_waiting=50)
    ]
    problem = evolve(HOST_LOST, attempts=(attempt(HOST_LOST), attempt(HOST_LOST)))
    assert tester.refused(2, HOST_LOST)[0] == SendProblem(
        request_id=rid("r"), problem=problem, headers=headers(0, 2000, variant=None)
    )


def test_a_variant_that_was_not_asked_for_is_given_back():
    tester = GatewayTester()
    tester.receive(0, PLAIN)
    problem = EngineHostLost("the engine host granted a variant of 512 tokens, which does not fit").problem
    assert tester.granted(1, 512) == [
        ReleaseLease(lease_id=lid(1)),
        SendProblem(request_id=rid("r"), problem=problem, headers=headers(0, 1000, variant=None)),
        record(Outcome.FAILED, status=503, wait_s=1, total_s=1, problem=problem),
    ]


# --- the engine says that it is too much


def test_overflow_moves_on_to_the_variant_that_fits_unnoticed():
    tester = GatewayTester(TWO).calling(STREAM)
    assert tester.answered(2, 400, overflow(5000)) == [
        DiscardAnswer(request_id=rid("r")),
        ReleaseLease(lease_id=lid(1)),
        LeaseEngine(lease_id=lid(3), variants=(LARGE,), need_tokens=5100, max_waiting=1024),
    ]
    tester.granted(4, 16384)
    assert tester.answered(5)[0].headers == headers(2, 3000, variant=16384)


def test_overflow_that_no_variant_holds():
    tester = GatewayTester(TWO).calling(PLAIN)
    problem = ContextTooLarge(17_001, 16384, 17_000).problem
    assert tester.answered(2, 400, overflow(17_000)) == [
        DiscardAnswer(request_id=rid("r")),
        ReleaseLease(lease_id=lid(1)),
        SendProblem(request_id=rid("r"), problem=problem, headers=headers(1, 1000)),
        record(
            Outcome.FAILED, context_tokens=4096, status=400, attempts=1, wait_s=1, total_s=2, problem=problem
        ),
    ]


@pytest.mark.parametrize("told", [None, 0, -1])
def test_overflow_without_a_count_goes_to_the_next_larger_variant(told):
    tester = GatewayTester(TWO).calling(PLAIN)
    (_, _, lease) = tester.answered(2, 400, overflow(told))
    assert lease.variants == (LARGE,)
    tester.granted(3, 16384)
    (_, _, problem, _) = tester.answered(4, 400, overflow(told))
    assert problem.problem == ContextTooLarge(16385, 16384).problem


def test_overflow_teaches_the_estimator():
    tester = GatewayTester(TWO)
    for number in range(3):
        tester.receive(0, chat(prompt_bytes=2000), f"r{number}")
        tester.granted(0)
        tester.answered(0, 400, overflow(1900))
        tester.gone(0, f"r{number}")
    estimate = tester.gateway._estimator.estimate("qwen", chat(prompt_bytes=2000))
    assert estimate.low > 1000


def test_a_remote_overflow_is_relayed_as_it_came():
    tester = GatewayTester(remote_model())
    tester.receive(0, chat("gpt", given=100))
    tester.granted(0, 128_000)
    assert isinstance(tester.answered(1, 400, overflow(200_000))[0], BeginRelay)


# --- the engine breaks before the first byte


@pytest.mark.parametrize("failure", [CallFailure.BROKEN, CallFailure.UNREACHABLE])
def test_a_request_is_repeated_once_on_an_engine_that_is_looked_at_first(failure):
    tester = GatewayTester().calling(STREAM)
    assert tester.failed(2, failure) == [
        ReleaseLease(lease_id=lid(1), suspect=True),
        LeaseEngine(lease_id=lid(3), variants=(SMALL,), need_tokens=232, max_waiting=1024),
    ]
    tester.granted(5)
    broke = UpstreamUnreachable("upstream of qwen: reset").problem
    problem = evolve(broke, attempts=(attempt(broke), attempt(broke)))
    assert tester.failed(6, failure) == [
        ReleaseLease(lease_id=lid(3), suspect=True),
        SendProblem(request_id=rid("r"), problem=problem, headers=headers(2, 4000)),
        record(
            Outcome.FAILED,
            context_tokens=4096,
            status=502,
            attempts=2,
            wait_s=4,
            total_s=6,
            problem=problem,
            failed_attempts=problem.attempts,
        ),
    ]


def test_a_request_whose_engine_has_died_is_repeated_and_gives_nothing_back():
    tester = GatewayTester().calling(PLAIN)
    assert tester.lost(2, CRASHED) == []
    (lease,) = tester.failed(2)
    assert isinstance(lease, LeaseEngine)
    tester.granted(3)
    tester.lost(4, CRASHED)
    problem, _ = tester.failed(4)
    assert problem.problem == evolve(CRASHED, attempts=(attempt(CRASHED), attempt(CRASHED)))


@pytest.mark.parametrize("problem", [EngineStopped("stopped").problem, ShuttingDown("ends").problem])
def test_a_request_whose_engine_was_stopped_on_purpose_is_not_repeated(problem):
    tester = GatewayTester().calling(PLAIN)
    tester.lost(2, problem)
    told, _ = tester.failed(2)
    assert told.problem == problem


@pytest.mark.parametrize("problem", [EngineStopped("stopped").problem, ShuttingDown("ends").problem])
def test_that_an_engine_was_stopped_may_be_heard_of_after_its_connection_broke(problem):
    tester = GatewayTester().calling(PLAIN)
    release, lease = tester.failed(2)
    assert (release.lease_id, lease.lease_id) == (lid(1), lid(3))
    assert tester.lost(2, problem, lid(1)) == [
        ReleaseLease(lease_id=lid(3)),
        SendProblem(request_id=rid("r"), problem=problem, headers=headers(1, 1000)),
        record(
            Outcome.FAILED,
            context_tokens=4096,
            status=503,
            attempts=1,
            wait_s=1,
            total_s=2,
            problem=problem,
        ),
    ]
    assert tester.gateway.stale == 0


def test_that_an_engine_was_stopped_may_be_heard_of_after_its_stream_broke():
    tester = GatewayTester().relaying(evolve(STREAM, continuable=True))
    _, lease = tester.relayed(3, RelayFailure.BROKEN, resumable=Resumable.CONTINUE)
    problem = EngineStopped("stopped").problem
    release, fail, ended = tester.lost(3, problem, lid(1))
    assert release == ReleaseLease(lease_id=lease.lease_id)
    assert fail == FailStream(request_id=rid("r"), problem=problem)
    assert (ended.outcome, ended.context_tokens) == (Outcome.BROKE_OFF, 4096)


def test_a_crash_that_is_heard_of_after_the_connection_broke_changes_nothing():
    tester = GatewayTester().calling(PLAIN)
    tester.failed(2)
    assert tester.lost(2, CRASHED, lid(1)) == []
    assert tester.gateway.stale == 0
    assert isinstance(tester.granted(3)[0], CallUpstream)


@pytest.mark.parametrize("meanwhile", [GatewayTester.granted, GatewayTester.gone])
def test_old_news_of_a_broken_lease_touch_neither_the_next_call_nor_a_request_that_has_ended(meanwhile):
    tester = GatewayTester().calling(PLAIN)
    tester.failed(2)
    meanwhile(tester, 3)
    assert tester.lost(4, EngineStopped("stopped").problem, lid(1)) == []
    assert tester.gateway.stale == 1


def test_a_timeout_is_not_repeated():
    tester = GatewayTester().calling(PLAIN)
    release, told, _ = tester.failed(2, CallFailure.TIMEOUT)
    assert release.suspect
    assert told.problem == UpstreamTimeout("upstream of qwen: reset").problem


def test_an_engine_that_is_loading_after_all_is_asked_again_once():
    tester = GatewayTester().calling(PLAIN)
    discard, release, lease = tester.answered(2, 503, LOADING)
    assert isinstance(discard, DiscardAnswer)
    assert release.suspect
    assert isinstance(lease, LeaseEngine)
    tester.granted(3)
    discard, release, told, _ = tester.answered(4, 503, LOADING)
    assert isinstance(discard, DiscardAnswer)
    assert release.suspect
    assert (told.problem.status, len(told.problem.attempts)) == (503, 2)


# --- the answer breaks off


@pytest.mark.parametrize(
    ("failure", "suspect"),
    [(RelayFailure.BROKEN, True), (RelayFailure.STALLED, True), (RelayFailure.INCOMPLETE, False)],
)
@pytest.mark.parametrize("facts", [PLAIN, STREAM])
def test_an_answer_that_breaks_off_is_never_a_clean_success(failure, suspect, facts):
    tester = GatewayTester().relaying(facts)
    problem = UpstreamBroke("the answer of qwen broke off: reset").problem
    cut = CutConnection(request_id=rid("r"))
    fail = FailStream(request_id=rid("r"), problem=problem)
    assert tester.relayed(3, failure) == [
        ReleaseLease(lease_id=lid(1), suspect=suspect),
        fail if facts.stream else cut,
        record(
            Outcome.BROKE_OFF,
            context_tokens=4096,
            status=200,
            attempts=1,
            wait_s=1,
            first_byte_s=2,
            total_s=3,
            problem=problem,
        ),
    ]


def test_an_answer_whose_engine_has_died_breaks_off_for_that_reason():
    tester = GatewayTester().relaying(STREAM)
    tester.lost(3, CRASHED)
    fail, end = tester.relayed(3, RelayFailure.BROKEN)
    assert fail == FailStream(request_id=rid("r"), problem=CRASHED)
    assert end.problem == CRASHED


def test_an_error_that_breaks_off_is_no_event_stream():
    tester = GatewayTester().calling(STREAM)
    tester.answered(2, 500, UpstreamError(message="no"))
    assert CutConnection(request_id=rid("r")) in tester.relayed(3, RelayFailure.BROKEN)


# --- the client is gone


def canceled(**facts: Any):
    return record(Outcome.CANCELED, **facts)


def test_gone_while_it_waits():
    tester = GatewayTester()
    tester.receive(0, STREAM)
    assert tester.gone(3) == [ReleaseLease(lease_id=lid(1)), canceled(wait_s=3, total_s=3)]
    assert tester.gateway.wake_at is None


def test_gone_while_it_waits_to_be_counted():
    tester = GatewayTester(TWO)
    tester.receive(0, UNSURE)
    assert tester.gone(0) == [ReleaseLease(lease_id=lid(1)), canceled()]


def test_gone_while_it_is_counted():
    tester = GatewayTester(TWO)
    tester.receive(0, UNSURE)
    tester.granted(0)
    assert tester.gone(1) == [CancelUpstream(request_id=rid("r"))]
    assert tester.count_failed(2) == [
        ReleaseLease(lease_id=lid(1)),
        canceled(context_tokens=4096, wait_s=2, total_s=2),
    ]


def test_gone_while_the_engine_works_on_the_first_byte():
    tester = GatewayTester().calling(PLAIN)
    assert tester.gone(2) == [CancelUpstream(request_id=rid("r"))]
    assert tester.failed(3, CallFailure.CANCELED) == [
        ReleaseLease(lease_id=lid(1)),
        canceled(context_tokens=4096, attempts=1, wait_s=1, total_s=3),
    ]


def test_gone_just_before_the_first_byte():
    tester = GatewayTester().calling(PLAIN)
    tester.gone(2)
    assert tester.answered(2) == [
        DiscardAnswer(request_id=rid("r")),
        ReleaseLease(lease_id=lid(1)),
        canceled(context_tokens=4096, attempts=1, wait_s=1, total_s=2),
    ]


def test_gone_in_the_middle_of_the_answer():
    tester = GatewayTester().relaying(STREAM)
    assert tester.gone(3) == [CancelUpstream(request_id=rid("r"))]
    assert tester.relayed(4, RelayFailure.CANCELED) == [
        ReleaseLease(lease_id=lid(1)),
        canceled(context_tokens=4096, status=200, attempts=1, wait_s=1, first_byte_s=2, total_s=4),
    ]


def test_gone_when_the_answer_was_complete():
    tester = GatewayTester().relaying(STREAM)
    tester.gone(3)
    release, end = tester.relayed(3, usage=USAGE)
    assert release == ReleaseLease(lease_id=lid(1))
    assert (end.outcome, end.usage) == (Outcome.ANSWERED, USAGE)


def test_gone_as_the_relay_saw_it():
    tester = GatewayTester().relaying(PLAIN)
    release, end = tester.relayed(3, RelayFailure.CLIENT_GONE)
    assert release == ReleaseLease(lease_id=lid(1))
    assert end.outcome is Outcome.CANCELED
    assert tester.gone(3) == []
    assert tester.gateway.stale == 1


def test_gone_with_an_engine_that_is_gone_too():
    tester = GatewayTester().calling(PLAIN)
    tester.gone(2)
    tester.lost(2, CRASHED)
    assert tester.failed(3) == [canceled(context_tokens=4096, attempts=1, wait_s=1, total_s=3)]


def test_gone_twice_is_stale():
    tester = GatewayTester().calling(PLAIN)
    tester.gone(2)
    assert tester.gone(2) == []
    assert tester.gateway.stale == 1


# --- clients that wait


def test_a_streaming_client_that_waits_hears_of_it():
    tester = GatewayTester()
    tester.receive(0, STREAM)
    assert tester.gateway.wake_at == Deadline(10, "comment for a waiting client")
    assert tester.wake(9.9) == []
    tester.progress(9.9, position=2, engine="qwen@4096", phase="loading", expected_s=20.0)
    text = "gatewright: qwen@4096 loading, position 2 in the queue, waited 10 s of about 20 s"
    assert tester.wake(10) == [
        BeginStream(request_id=rid("r"), headers=headers(0, 10_000, variant=None)),
        SendComment(request_id=rid("r"), text=text),
    ]
    assert tester.gateway.wake_at == Deadline(15, "comment for a waiting client")
    assert tester.wake(10) == []
    assert [type(command) for command in tester.wake(15)] == [SendComment]


def test_a_client_that_wants_no_stream_waits_in_silence():
    tester = GatewayTester()
    tester.receive(0, PLAIN)
    assert tester.gateway.wake_at is None
    assert tester.wake(100) == []


def test_comments_go_on_until_the_first_byte():
    tester = GatewayTester()
    tester.receive(0, STREAM)
    tester.wake(10)
    tester.granted(12)
    assert tester.wake(15) == [SendComment(request_id=rid("r"), text="gatewright: waiting for qwen, 15 s")]
    tester.answered(16)
    assert tester.gateway.wake_at is None


def test_no_comments_for_who_waited_only_briefly_for_an_engine():
    tester = GatewayTester().calling(STREAM)
    assert tester.gateway.wake_at is None
    assert tester.wake(60) == []


def test_a_request_that_waits_again_hears_of_it_at_once():
    tester = GatewayTester().calling(STREAM)
    tester.failed(60)
    assert tester.gateway.wake_at == Deadline(10, "comment for a waiting client")
    assert [type(command) for command in tester.wake(60)] == [BeginStream, SendComment]


def begun(facts=STREAM):
    """At second 12 a stream has begun and its engine is called."""
    tester = GatewayTester()
    tester.receive(0, facts)
    tester.wake(10)
    return tester


def test_errors_after_the_stream_began_are_told_in_it():
    tester = begun()
    assert tester.refused(11, CRASHED) == [
        FailStream(request_id=rid("r"), problem=CRASHED),
        record(Outcome.FAILED, status=200, wait_s=11, total_s=11, problem=CRASHED),
    ]


def test_an_upstreams_error_after_the_stream_began_is_told_in_it():
    tester = begun()
    tester.granted(11)
    error = UpstreamError(message="bad grammar", type="invalid_request_error", code="bad")
    problem = UpstreamRefused("bad grammar", 400, "invalid_request_error", "bad").problem
    assert tester.answered(12, 400, error) == [
        DiscardAnswer(request_id=rid("r")),
        ReleaseLease(lease_id=lid(1)),
        FailStream(request_id=rid("r"), problem=problem),
        record(
            Outcome.FAILED,
            context_tokens=4096,
            status=200,
            attempts=1,
            wait_s=11,
            total_s=12,
            problem=problem,
        ),
    ]


def test_an_upstreams_error_without_words_after_the_stream_began():
    tester = begun()
    tester.granted(11)
    _, _, fail, _ = tester.answered(12, 502)
    assert fail.problem == UpstreamRefused("the upstream answered 502", 502, None, None).problem


def test_overflow_after_the_stream_began():
    tester = begun()
    tester.granted(11)
    _, _, fail, _ = tester.answered(12, 400, overflow(5000))
    assert fail == FailStream(request_id=rid("r"), problem=ContextTooLarge(5001, 4096, 5000).problem)


def test_gone_after_the_stream_began():
    tester = begun()
    assert tester.gone(11) == [ReleaseLease(lease_id=lid(1)), canceled(status=200, wait_s=11, total_s=11)]
    assert tester.gateway.wake_at is None


# --- reload


def test_reload_is_for_requests_that_come_later():
    tester = GatewayTester(model("qwen"), model("llama"))
    tester.receive(0, PLAIN)
    assert tester.tell(1, ConfigReplaced(config=config(model("qwen", 8192)))) == []
    assert isinstance(tester.granted(2)[0], CallUpstream)
    assert tester.receive(3, chat("llama"), "s")[0].problem.kind == "ModelNotFound"
    (lease,) = tester.receive(3, PLAIN, "t")
    assert lease.variants == (spec("qwen", 8192),)


# --- shutdown


def test_shutdown_lets_requests_finish_and_takes_no_new_ones():
    tester = GatewayTester().relaying(PLAIN)
    assert tester.tell(3, ShutdownRequested()) == []
    told, _ = tester.receive(3, PLAIN, "late")
    assert told.problem == ShuttingDown("the server shuts down", retry_after_s=5.0).problem
    *_, end, drained = tester.relayed(4)
    assert end.outcome is Outcome.ANSWERED
    assert drained == Drained()
    assert tester.tell(5, ShutdownRequested(force=True)) == []


def test_shutdown_with_nothing_under_way():
    tester = GatewayTester()
    assert tester.tell(0, ShutdownRequested()) == [Drained()]
    assert Drained() not in tester.receive(1, PLAIN)


def test_forced_shutdown_cuts_who_waits():
    tester = GatewayTester()
    tester.receive(0, PLAIN)
    assert tester.tell(2, ShutdownRequested(force=True)) == [
        ReleaseLease(lease_id=lid(1)),
        SendProblem(request_id=rid("r"), problem=SHUT, headers=headers(0, 2000, variant=None)),
        record(Outcome.FAILED, status=503, wait_s=2, total_s=2, problem=SHUT),
        Drained(),
    ]


def test_forced_shutdown_cuts_a_call():
    tester = GatewayTester().calling(PLAIN)
    assert tester.tell(2, ShutdownRequested(force=True)) == [CancelUpstream(request_id=rid("r"))]
    assert tester.tell(2, ShutdownRequested(force=True)) == []
    assert tester.failed(3, CallFailure.CANCELED)[1:] == [
        SendProblem(request_id=rid("r"), problem=SHUT, headers=headers(1, 1000)),
        record(
            Outcome.FAILED, context_tokens=4096, status=503, attempts=1, wait_s=1, total_s=3, problem=SHUT
        ),
        Drained(),
    ]


@pytest.mark.parametrize("facts", [PLAIN, STREAM])
def test_forced_shutdown_cuts_an_answer(facts):
    tester = GatewayTester().relaying(facts)
    tester.tell(3, ShutdownRequested(force=True))
    _, told, end, _ = tester.relayed(4, RelayFailure.CANCELED)
    fail = FailStream(request_id=rid("r"), problem=SHUT)
    assert told == (fail if facts.stream else CutConnection(request_id=rid("r")))
    assert (end.outcome, end.status) == (Outcome.BROKE_OFF, 200)


def test_forced_shutdown_of_a_client_that_goes_away_meanwhile():
    tester = GatewayTester().relaying(STREAM)
    tester.tell(3, ShutdownRequested(force=True))
    assert tester.gone(3) == []
    _, end, _ = tester.relayed(4, RelayFailure.CANCELED)
    assert (end.outcome, end.status) == (Outcome.CANCELED, 200)


def test_forced_shutdown_as_the_relay_sees_that_the_client_is_gone():
    tester = GatewayTester().relaying(STREAM)
    tester.tell(3, ShutdownRequested(force=True))
    _, end, _ = tester.relayed(4, RelayFailure.CLIENT_GONE)
    assert end.outcome is Outcome.CANCELED


def test_forced_shutdown_leaves_clients_alone_that_are_gone_already():
    tester = GatewayTester().relaying(STREAM)
    tester.gone(3)
    tester.tell(3, ShutdownRequested(force=True))
    _, end, _ = tester.relayed(4, RelayFailure.CANCELED)
    assert end.outcome is Outcome.CANCELED


# --- every state and every event


def in_state(name):
    """A Gateway whose request `r` is in this state, with its last lease and command."""
    if name == "None":
        return GatewayTester(TWO)
    if name == "BackingOff":
        tester = GatewayTester(remote_model("qwen"))
        tester.receive(0, STREAM)
        tester.granted(1)
        tester.failed(2)
        return tester
    if name in {"AwaitingCountLease", "Counting", "Counting, by a program"}:
        tester = GatewayTester(model("qwen", 4096, 16384, tokenization=PROGRAM))
        tester.receive(0, UNSURE)
        if name == "Counting":
            tester.granted(0)
        elif name == "Counting, by a program":
            tester.refused(0, EngineStartFailed("no engine").problem)
        return tester
    tester = GatewayTester(TWO)
    tester.receive(0, STREAM)
    if name == "AwaitingLease":
        return tester
    tester.granted(1)
    if name in {"Relaying", "Canceling, relaying"}:
        tester.answered(2)
    if name.startswith("Canceling"):
        tester.gone(3)
    return tester


STATES = [
    "None",
    "AwaitingCountLease",
    "Counting",
    "Counting, by a program",
    "AwaitingLease",
    "BackingOff",
    "Calling",
    "Relaying",
    "Canceling",
    "Canceling, relaying",
]
NOTHING = 999


def lease_events(lease_id):
    return {
        "LeaseGranted": LeaseGranted(lease_id=lease_id, context_tokens=4096, base_url=URL),
        "LeaseRefused": LeaseRefused(lease_id=lease_id, problem=CRASHED),
        "LeaseLost": LeaseLost(lease_id=lease_id, problem=CRASHED),
        "LeaseProgress": LeaseProgress(lease_id=lease_id, position=1, engine="qwen@4096", phase="loading"),
    }


def completion_events(command_id):
    return {
        "TokensCounted": TokensCounted(command_id=command_id, prompt_tokens=100),
        "TokenCountFailed": TokenCountFailed(command_id=command_id, reason="no answer"),
        "UpstreamAnswered": UpstreamAnswered(command_id=command_id, status=200),
        "UpstreamFailed": UpstreamFailed(command_id=command_id, failure=CallFailure.BROKEN, reason="reset"),
        "RelayEnded": RelayEnded(command_id=command_id),
    }


OTHER_EVENTS = {
    "ClientGone": ClientGone(request_id=rid("r")),
    "Woke": Woke(),
    "ConfigReplaced": ConfigReplaced(config=config()),
    "ShutdownRequested": ShutdownRequested(),
    "ShutdownRequested, forced": ShutdownRequested(force=True),
    "RequestReceived": RequestReceived(request_id=rid("another"), facts=PLAIN),
}
STALE_LEASE_EVENTS = {
    ("LeaseGranted", "Counting"),
    ("LeaseGranted", "Calling"),
    ("LeaseGranted", "Relaying"),
    ("LeaseGranted", "Canceling"),
    ("LeaseProgress", "AwaitingCountLease"),
    ("LeaseProgress", "Counting"),
    ("LeaseProgress", "Calling"),
    ("LeaseProgress", "Relaying"),
    ("LeaseProgress", "Canceling"),
    ("LeaseGranted", "BackingOff"),
    ("LeaseRefused", "BackingOff"),
    ("LeaseProgress", "BackingOff"),
}
COMPLETES = {
    "Counting": {"TokensCounted", "TokenCountFailed"},
    "Calling": {"UpstreamAnswered", "UpstreamFailed"},
    "Relaying": {"RelayEnded"},
    "Canceling": {"TokensCounted", "TokenCountFailed", "UpstreamAnswered", "UpstreamFailed", "RelayEnded"},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", lease_events(lid(1)))
def test_every_state_takes_every_news_of_a_lease(state, event):
    tester = in_state(state)
    lease_id = tester.lease_id if state not in {"None", "Counting, by a program"} else lid(NOTHING)
    # Of a lease whose connection broke one may hear afterwards why that was: LeaseLost is none of these in BackingOff.
    is_stale = lease_id == NOTHING or (event, state.partition(",")[0]) in STALE_LEASE_EVENTS
    commands = tester.tell(5, lease_events(lease_id)[event])
    assert tester.gateway.stale == is_stale
    assert not (is_stale and commands)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", completion_events(cid(1)))
def test_every_state_takes_every_completion_but_those_of_other_commands(state, event):
    tester = in_state(state)
    if tester.work is None or state == "BackingOff":
        assert tester.tell(5, completion_events(cid(NOTHING))[event]) == []
        assert tester.gateway.stale == 1
    elif event in COMPLETES[state.partition(",")[0]]:
        tester.tell(5, completion_events(tester.command_id)[event])
        assert tester.gateway.stale == 0
    else:  # an adapter that completes a call with the end of a relay: wrong use
        with pytest.raises(AssertionError, match=f"{event} completes nothing"):
            tester.tell(5, completion_events(tester.command_id)[event])


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", OTHER_EVENTS)
def test_every_state_takes_every_other_event(state, event):
    tester = in_state(state)
    tester.tell(5, OTHER_EVENTS[event])
    is_stale = event == "ClientGone" and state.partition(",")[0] in {"None", "Canceling"}
    assert tester.gateway.stale == is_stale


@pytest.mark.parametrize("state", [state for state in STATES if state != "None"])
def test_completions_after_the_end_are_stale(state):
    tester = in_state(state)
    tester.tell(5, ShutdownRequested(force=True))
    if tester.gateway.active:
        assert tester.work is not None
        end = {
            "CountTokens": "TokenCountFailed",
            "CallUpstream": "UpstreamFailed",
            "BeginRelay": "RelayEnded",
        }
        tester.tell(6, completion_events(tester.command_id)[end[type(tester.work).__name__]])
    assert tester.gateway.active == 0
    stale = [*lease_events(tester.lease_id).values(), ClientGone(request_id=rid("r"))]
    if tester.work is not None:
        stale += completion_events(tester.command_id).values()
    for event in stale:
        assert tester.tell(7, event) == []
    assert tester.gateway.stale == len(stale)


def test_ids_only_rise():
    tester = GatewayTester(TWO)
    ids = []
    for number in range(20):
        commands = tester.receive(number, UNSURE if number % 2 else PLAIN, str(number))
        commands += tester.granted(number)
        ids += [getattr(c, "lease_id", None) or c.command_id for c in commands]
    assert ids == sorted(set(ids))


def test_nothing_is_decided_while_a_request_is_only_received():
    request = Request(rid("r"), PLAIN, Attempts((TWO,)), 0.0, 0.0, 10.0)
    assert request.state == Received()
    tester = GatewayTester(TWO)
    tester.gateway._open.by_id[rid("r")] = request
    with pytest.raises(AssertionError, match="nothing stays in Received"):
        tester.gone(1)
