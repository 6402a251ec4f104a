from attrs import evolve

from gatewright.accounting.spending import Charge
from gatewright.api.facts import Usage
from gatewright.call_log import CallLog
from gatewright.errors import UpstreamRefused
from gatewright.leases import CallResult
from gatewright.selection.failures import Failure, Remedy
from gatewright.selection.profiles import Pricing
from tests.core.machines.build import model, remote_model

PRICED = remote_model("gpt")
PRICED = evolve(
    PRICED,
    profile=evolve(
        PRICED.profile,
        pricing=Pricing(input_per_million=10, output_per_million=20, cached_input_per_million=1),
    ),
)
USAGE = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
COST = (600 * 10 + 400 * 1 + 100 * 20) / 1e6
PROBLEM = UpstreamRefused("no", 500, None, None).problem


def failure(result: CallResult | None, *, is_refusal: bool = False) -> Failure:
    return Failure(model="gpt", problem=PROBLEM, remedy=Remedy.NEXT, result=result, is_refusal=is_refusal)


def called() -> CallLog:
    log = CallLog("r", propensity=0.25)
    log.called(10.0)
    return log


def test_a_call_that_went_well_is_an_outcome_with_its_times_and_its_cost():
    log = called()
    log.answered(10.5)
    log.end(PRICED, 12.0, success=True, usage=USAGE)
    [outcome] = log.outcomes
    assert (outcome.model, outcome.success, outcome.at) == ("gpt", True, 12.0)
    assert (outcome.latency_ms, outcome.first_token_ms, outcome.completion_tokens) == (2000.0, 500.0, 100)
    assert outcome.cost_usd == log.cost_usd == COST
    assert (outcome.propensity, outcome.sequence) == (0.25, 0)


def test_only_the_first_call_was_drawn_whether_or_not_it_says_anything_about_its_model():
    log = called()
    log.end(PRICED, 11.0, success=None)
    log.called(12.0)
    log.end(model("qwen"), 13.0, success=True, usage=USAGE)
    [outcome] = log.outcomes
    assert (outcome.model, outcome.propensity, outcome.sequence) == ("qwen", 1.0, 1)


def test_what_an_error_says_about_the_model():
    cases = {
        CallResult.FAILED: (False, False),
        CallResult.CREDENTIAL: (False, False),
    }
    for result, expected in cases.items():
        log = called()
        log.count_failure(PRICED, failure(result), 11.0)
        assert [(each.success, each.is_available) for each in log.outcomes] == [expected]
    log = called()
    log.count_failure(PRICED, failure(CallResult.WELL), 11.0)
    assert log.outcomes == ()
    log = called()
    log.count_failure(PRICED, failure(CallResult.WELL, is_refusal=True), 11.0)
    assert [(each.success, each.is_available) for each in log.outcomes] == [(False, True)]


def test_each_call_is_charged_to_the_accounts_of_its_model():
    log = CallLog("r")
    log.charge_to((Charge(account="all", limit_usd=1), Charge(account="of gpt", limit_usd=1)))
    log.called(0.0)
    log.end(PRICED, 1.0, success=False, is_available=False, usage=USAGE)
    log.charge_to((Charge(account="all", limit_usd=1), Charge(account="of qwen", limit_usd=1)))
    log.called(2.0)
    log.end(PRICED, 3.0, success=True, usage=USAGE)
    assert log.charged_usd == {"all": 2 * COST, "of gpt": COST, "of qwen": COST}
    assert set(log.accounts) == {"all", "of gpt", "of qwen"}


def test_a_call_ends_once():
    log = called()
    log.end(PRICED, 11.0, success=True, usage=USAGE)
    log.end(PRICED, 12.0, success=False, usage=USAGE)
    assert (len(log.outcomes), log.cost_usd) == (1, COST)


def test_what_it_would_cost_if_it_ended_now():
    log = called()
    assert log.cost_of(PRICED, 11.0, USAGE) == COST
    assert log.cost_usd == 0.0
    assert CallLog("r").cost_of(PRICED, 11.0, USAGE) == 0.0


def test_an_engine_of_ones_own_is_paid_by_the_hour():
    local = model("qwen")
    heated = evolve(local, profile=evolve(local.profile, pricing=Pricing(engine_hour=3.6)))
    log = called()
    log.end(heated, 20.0, success=True, usage=USAGE)
    assert log.cost_usd == 0.01
