"""Requests that cost something: what is reserved for them, what they are charged to, what they have cost."""

import pytest
from attrs import evolve

from gatewright.accounting.spending import BudgetConfig, BudgetScope, Charge, KeyFacts
from gatewright.api.facts import ApiFormat, Resumable, Usage
from gatewright.api.transforms import Transform
from gatewright.commands import (
    CallUpstream,
    FailStream,
    Log,
    Outcome,
    RecordRequest,
    ReserveSpend,
    SendProblem,
)
from gatewright.errors import BudgetExceeded, EngineStopped, RateLimited
from gatewright.events import (
    BudgetsSeen,
    CallFailure,
    ClientGone,
    RelayFailure,
    SpendRefused,
    SpendReserved,
    SpendUnknown,
    UpstreamAnswered,
    Woke,
)
from gatewright.leases import (
    AskLoads,
    LeaseEngine,
    LeaseLost,
    LoadsTold,
    ReleaseLease,
)
from gatewright.route_config import (
    BudgetFailure,
    RouteConfig,
    StoreConfig,
)
from gatewright.selection.criteria import WEIGHTS, Prefer
from gatewright.selection.profiles import Pricing
from tests.core.machines.build import remote_model, rid
from tests.core.machines.route_tester import CHEAP, DEAR, LOCAL, RouteTester, described, priced

MONTHLY = BudgetConfig(name="monthly", limit_usd=5.0)
CHARGE = Charge(account="monthly", limit_usd=5.0)


def test_a_call_is_reserved_before_an_engine_is_asked_for_and_settled_at_the_end():
    tester = RouteTester(DEAR, budgets=(MONTHLY,))
    [asked] = tester.ask(0, answer_tokens=100)
    assert isinstance(asked, ReserveSpend)
    assert asked.charges == (CHARGE,)
    assert asked.amount_usd == pytest.approx((asked.amount_tokens) * 10 / 1e6)
    assert (asked.request_id, asked.key) == ("r", None)
    [lease] = tester.tell(0, SpendReserved(command_id=asked.command_id))
    assert isinstance(lease, LeaseEngine)
    record = tester.carry_through(1)
    assert record.charges == (CHARGE,)
    assert record.charged_usd == {"monthly": pytest.approx(0.015)}


def test_a_retry_needs_no_second_reservation():
    again = described(remote_model("dear", 32_000, retries=1), pricing=DEAR.profile.pricing)
    tester = RouteTester(again, budgets=(MONTHLY,))
    tester.ask(0)
    tester.tell(0, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
    tester.granted(0)
    tester.failed(1, CallFailure.BROKEN)
    commands = tester.tell(60, Woke())
    assert [type(command) for command in commands] == [LeaseEngine]


def test_a_budget_that_is_used_up_sends_the_request_to_the_cheaper_model():
    tester = RouteTester(DEAR, CHEAP, budgets=(MONTHLY,))
    tester.ask(0)
    refusal = BudgetExceeded("monthly is used up", budget="monthly", resets_at=100).problem
    first = tester.last[ReserveSpend]
    tester.tell(0, SpendRefused(command_id=first.command_id, problem=refusal))
    second = tester.last[ReserveSpend]
    assert second.amount_usd < first.amount_usd
    tester.tell(0, SpendReserved(command_id=second.command_id))
    assert tester.leased == "cheap"


def test_a_budget_that_allows_nobody_is_told_to_the_client():
    tester = RouteTester(DEAR, CHEAP, budgets=(MONTHLY,))
    tester.ask(0)
    refusal = BudgetExceeded("monthly is used up", budget="monthly", resets_at=100).problem
    for _ in range(2):
        tester.tell(0, SpendRefused(command_id=tester.last[ReserveSpend].command_id, problem=refusal))
    assert (tester.problem.status, tester.problem.code) == (429, "insufficient_quota")
    assert tester.problem.should_retry is False
    assert tester.gateway.active == 0


KEY = KeyFacts(
    key_id="k1", name="ci", requests_per_minute=2, models=frozenset({"cheap"}), routes=frozenset({"auto"})
)


def test_a_rate_limit_is_looked_at_once_and_helps_nobody():
    tester = RouteTester(DEAR, CHEAP)
    [asked] = tester.ask(0, key=KEY)
    assert isinstance(asked, ReserveSpend)
    assert (asked.key, asked.charges) == (KEY, ())
    limited = RateLimited("2 requests per minute", retry_after_s=30.0).problem
    tester.tell(0, SpendRefused(command_id=asked.command_id, problem=limited, is_rate=True))
    assert (tester.problem.status, tester.problem.retry_after_s) == (429, 30.0)
    assert "x-gw-failed" not in dict(tester.last[SendProblem].headers), "no model has failed"


def test_a_key_may_use_what_it_is_allowed_to():
    tester = RouteTester(DEAR, CHEAP, routes=(RouteConfig(name="auto"), RouteConfig(name="other")))
    tester.ask(0, key=evolve(KEY, requests_per_minute=None))
    assert tester.leased == "cheap"
    for number, name in enumerate(("dear", "other")):
        tester.ask(1, f"s{number}", key=KEY, model=name)
        assert (tester.problem.status, tester.problem.code) == (403, "model_not_allowed")
        assert f"'{name}'" in tester.problem.message


def test_a_keys_own_budget_is_an_account():
    tester = RouteTester(
        CHEAP, budgets=(evolve(MONTHLY, scope=BudgetScope.KEY), evolve(MONTHLY, scope=BudgetScope.MODEL))
    )
    tester.ask(0, key=evolve(KEY, budget_usd=1.0))
    accounts = {charge.account: charge.limit_usd for charge in tester.last[ReserveSpend].charges}
    assert accounts == {"monthly/key=k1": 5.0, "monthly/model=cheap": 5.0, "key/k1": 1.0}


def test_a_budget_that_is_known_to_be_used_up_is_not_even_tried():
    tester = RouteTester(DEAR, CHEAP, budgets=(evolve(MONTHLY, scope=BudgetScope.MODEL, of="dear"),))
    tester.tell(0, BudgetsSeen(left_usd={"monthly/model=dear": 0.0}))
    tester.ask(0)
    assert tester.leased == "cheap"


@pytest.mark.parametrize("choice", BudgetFailure)
def test_without_the_store_requests_are_served_or_refused_as_configured(choice):
    tester = RouteTester(CHEAP, budgets=(MONTHLY,), store=StoreConfig(when_unavailable=choice))
    tester.ask(0)
    tester.tell(0, SpendUnknown(command_id=tester.last[ReserveSpend].command_id, reason="disk full"))
    if choice is BudgetFailure.OPEN:
        assert tester.leased == "cheap"
        assert "disk full" in tester.last[Log].text
    else:
        assert (tester.problem.status, tester.problem.code) == (503, "store_unavailable")


def test_a_client_that_leaves_while_the_store_is_asked_is_settled_afterwards():
    tester = RouteTester(CHEAP, budgets=(MONTHLY,))
    tester.ask(0)
    assert tester.tell(1, ClientGone(request_id=rid("r"))) == []
    assert tester.gateway.active == 1
    [record] = tester.tell(2, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
    assert isinstance(record, RecordRequest)
    assert (record.charges, record.charged_usd, record.cost_usd) == ((CHARGE,), {}, 0.0)


def test_every_attempt_costs_what_it_took():
    tester = RouteTester(DEAR, CHEAP, budgets=(MONTHLY,))
    tester.ask(0, stream=True)
    tester.tell(0, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
    tester.granted(0)
    tester.answered(1)
    tester.relayed(2, failure=RelayFailure.BROKEN, reason="reset", resumable=Resumable.REPEAT)
    tester.tell(2, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
    record = tester.carry_through(3)
    assert record.cost_usd == pytest.approx(1500 * 10 / 1e6 + 1500 * 0.1 / 1e6)
    assert record.charged_usd == {"monthly": pytest.approx(record.cost_usd)}


def test_an_engine_of_ones_own_costs_by_the_hour():
    heated = described(LOCAL, pricing=Pricing(engine_hour=0.36))
    tester = RouteTester(heated)
    tester.ask(0)
    record = tester.carry_through(10)
    assert record.cost_usd == pytest.approx(2 * 0.36 / 3600)


def test_what_nobody_counted_is_billed_by_estimate():
    tester = RouteTester(DEAR)
    tester.ask(0, prompt_bytes=4000)
    tester.granted(0)
    tester.answered(1)
    tester.relayed(2, usage=None, relayed_tokens=1000)
    assert tester.record.cost_usd > 1500 * 10 / 1e6


def test_an_estimate_of_an_answer_is_not_above_what_was_asked_for():
    tester = RouteTester(DEAR)
    tester.ask(0, prompt_bytes=4000, answer_tokens=100, choices=2)
    tester.granted(0)
    tester.answered(1)
    tester.relayed(2, usage=None, relayed_tokens=500)
    assert tester.record.cost_usd == pytest.approx(1200 * 10 / 1e6)


def test_nothing_is_released_that_was_not_granted():
    tester = RouteTester(LOCAL, CHEAP, budgets=(MONTHLY,))
    [asked] = tester.ask(0)
    assert isinstance(asked, AskLoads)
    tester.tell(0, LoadsTold(lease_id=asked.lease_id, loads=()))
    tester.tell(0, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
    tester.carry_through(1)
    leases = [command.lease_id for command in tester.commands if isinstance(command, LeaseEngine)]
    released = [command.lease_id for command in tester.commands if isinstance(command, ReleaseLease)]
    assert leases == released
    assert tester.gateway.stale == 0
    assert tester.gateway.wake_at is None


def test_answers_side_by_side_are_all_reserved():
    tester = RouteTester(DEAR, budgets=(MONTHLY,))
    tester.ask(0, answer_tokens=100)
    one = tester.last[ReserveSpend]
    tester.ask(0, "s", answer_tokens=100, choices=8)
    eight = tester.last[ReserveSpend]
    assert eight.amount_tokens - one.amount_tokens == 700
    assert eight.amount_usd - one.amount_usd == pytest.approx(700 * 10 / 1e6)


def test_what_broke_off_has_cost_something_before_the_same_model_is_asked_again():
    again = described(remote_model("dear", 32_000, retries=1), pricing=DEAR.profile.pricing)
    tester = RouteTester(again, budgets=(MONTHLY,))
    tester.ask(0, stream=True)
    first = tester.last[ReserveSpend]
    tester.tell(0, SpendReserved(command_id=first.command_id))
    tester.granted(0)
    tester.answered(1)
    tester.relayed(2, failure=RelayFailure.BROKEN, reason="reset", resumable=Resumable.REPEAT)
    tester.tell(60, Woke())
    second = tester.last[ReserveSpend]
    assert second.command_id != first.command_id
    assert second.amount_usd == pytest.approx(first.amount_usd + 1500 * 10 / 1e6)


def test_an_engine_that_turns_out_to_be_stopped_while_the_next_try_is_reserved_is_not_started_for_it():
    heated = described(LOCAL, pricing=Pricing(engine_hour=0.36))
    tester = RouteTester(heated, budgets=(MONTHLY,))
    tester.ask(0, stream=True)
    tester.tell(0, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
    lease_id = tester.last[LeaseEngine].lease_id
    tester.granted(0)
    tester.answered(1)
    tester.relayed(2, failure=RelayFailure.BROKEN, reason="reset", resumable=Resumable.REPEAT)
    again = tester.last[ReserveSpend]
    problem = EngineStopped("stopped by the operator").problem
    assert tester.tell(2, LeaseLost(lease_id=lease_id, problem=problem)) == []
    fail, record = tester.tell(2, SpendReserved(command_id=again.command_id))
    assert (type(fail), fail.problem) == (FailStream, problem)
    assert isinstance(record, RecordRequest)
    assert record.outcome is Outcome.BROKE_OFF


def test_an_answer_that_came_too_late_to_be_canceled_costs_what_it_took():
    tester = RouteTester(DEAR, budgets=(MONTHLY,))
    tester.ask(0)
    tester.tell(0, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
    tester.granted(0)
    tester.tell(1, ClientGone(request_id=rid("r")))
    usage = Usage(prompt_tokens=1000, completion_tokens=500)
    command_id = tester.last[CallUpstream].command_id
    tester.tell(2, UpstreamAnswered(command_id=command_id, status=200, usage=usage))
    assert tester.record.cost_usd == pytest.approx(1500 * 10 / 1e6)
    assert tester.record.charged_usd == {"monthly": pytest.approx(tester.record.cost_usd)}


def test_a_stream_that_began_too_late_to_be_canceled_is_billed_by_estimate():
    tester = RouteTester(DEAR)
    tester.ask(0, stream=True, prompt_bytes=4000)
    tester.granted(0)
    tester.tell(1, ClientGone(request_id=rid("r")))
    tester.answered(2)
    assert tester.record.cost_usd > 0


def test_an_error_that_came_too_late_to_be_canceled_costs_nothing():
    tester = RouteTester(DEAR)
    tester.ask(0, prompt_bytes=4000)
    tester.granted(0)
    tester.tell(1, ClientGone(request_id=rid("r")))
    tester.answered(2, status=500)
    assert tester.record.cost_usd == 0


def test_an_error_that_is_passed_on_costs_nothing_when_its_client_leaves():
    tester = RouteTester(DEAR)
    tester.ask(0, model="dear", prompt_bytes=4000)
    tester.granted(0)
    tester.answered(1, status=400)
    tester.relayed(2, usage=None, failure=RelayFailure.CLIENT_GONE)
    assert tester.record.cost_usd == 0


def test_a_model_at_the_same_price_is_not_cheaper():
    """Amounts that were added up and taken apart again differ in their last digit."""
    twin = priced("twin", 10.0, quality=0.9)
    tester = RouteTester(DEAR, twin, budgets=(MONTHLY,))
    refusal = BudgetExceeded("monthly is used up", budget="monthly", resets_at=100).problem
    for number in range(50):
        request_id = f"r{number}"
        tester.ask(number, request_id, stream=True, prompt_bytes=997 * number)
        tester.tell(number, SpendReserved(command_id=tester.last[ReserveSpend].command_id))
        tester.granted(number)
        tester.answered(number)
        tester.relayed(number, failure=RelayFailure.BROKEN, reason="reset", resumable=Resumable.REPEAT)
        first = tester.last[ReserveSpend].command_id
        tester.tell(number, SpendRefused(command_id=first, problem=refusal))
        assert tester.last[ReserveSpend].command_id == first
    assert tester.gateway.active == 0


def test_what_costs_nothing_is_not_asked_about():
    tester = RouteTester(LOCAL, budgets=(MONTHLY,))
    [lease] = tester.ask(0)
    assert isinstance(lease, LeaseEngine)
    assert tester.carry_through(1).charges == (CHARGE,)


def test_the_time_of_an_engine_is_reserved_too():
    heated = described(LOCAL, pricing=Pricing(engine_hour=3.6), output_tokens_per_s=50.0)
    tester = RouteTester(heated, budgets=(MONTHLY,))
    tester.ask(0, answer_tokens=100)
    assert tester.last[ReserveSpend].amount_usd == pytest.approx(2 * 3.6 / 3600)


def test_where_nothing_is_served_without_the_store_a_model_that_costs_nothing_still_answers():
    store = StoreConfig(when_unavailable=BudgetFailure.CLOSED)
    route = RouteConfig(name="auto", weights=WEIGHTS[Prefer.QUALITY])
    tester = RouteTester(DEAR, LOCAL, routes=(route,), budgets=(MONTHLY,), store=store)
    tester.ask(0)
    tester.tell(0, LoadsTold(lease_id=tester.last[AskLoads].lease_id, loads=()))
    tester.tell(0, SpendUnknown(command_id=tester.last[ReserveSpend].command_id, reason="db at 10.0.0.1"))
    assert tester.leased == "local"


def test_a_client_does_not_hear_where_the_store_is():
    store = StoreConfig(when_unavailable=BudgetFailure.CLOSED)
    tester = RouteTester(CHEAP, budgets=(MONTHLY,), store=store)
    tester.ask(0)
    tester.tell(0, SpendUnknown(command_id=tester.last[ReserveSpend].command_id, reason="db at 10.0.0.1"))
    assert "10.0.0.1" not in tester.problem.message
    assert "10.0.0.1" in tester.last[Log].text


def test_streams_of_providers_that_cost_something_are_asked_for_their_tokens():
    removing = Transform(removals=("stream_options",))
    cases = (
        (DEAR, {"stream": True}, True),
        (DEAR, {"stream": True, "wants_usage": True}, False),
        (DEAR, {"stream": False}, False),
        (DEAR, {"stream": True, "format": ApiFormat.MESSAGES}, False),
        (evolve(DEAR, transform=removing), {"stream": True}, False),
        (described(DEAR, pricing=Pricing()), {"stream": True}, False),
        (LOCAL, {"stream": True}, False),
    )
    for model, facts, expected in cases:
        tester = RouteTester(model)
        tester.ask(0, model=model.name, **facts)
        tester.granted(0)
        assert tester.last[CallUpstream].asks_usage is expected, (model.name, facts)
