"""A store with some traffic in it, the same every time."""

from random import Random
from typing import Final

from attrs import evolve

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.spending import Charge
from gatewright.api.facts import Usage
from gatewright.commands import Outcome, RecordRequest
from gatewright.ids import RequestId
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.decision import Decision
from gatewright_host.store.store import Store
from gatewright_host.store.vocabulary import Written

DAY_S: Final = 86_400.0

SUCCESS: Final = {"small": 0.75, "medium": 0.86, "large": 0.95}
PRICE_USD: Final = {"small": 0.0002, "medium": 0.001, "large": 0.008}
LATENCY_S: Final = {"small": 0.6, "medium": 1.4, "large": 3.5}
TASKS: Final = ("", "code", "summary", "translate")


def fill_store(store: Store, now_s: float, *, days: int = 30, requests: int = 600, seed: int = 1) -> None:
    """Write so many requests, spread evenly over the last days, with feedback on some."""
    random = Random(seed)
    written = [
        _written(random, number, now_s - days * DAY_S * (requests - number) / requests)
        for number in range(requests)
    ]
    store.write(written)
    for each in written:
        if random.random() < 0.1 and each.record.outcome is Outcome.ANSWERED:
            score = random.choice((0.0, 1.0, 1.0))
            store.add_feedback(Feedback(request_id=each.record.request_id, score=score, at=each.at_s + 5))


def _written(random: Random, number: int, at_s: float) -> Written:
    request_id = RequestId(f"req_{number:06}")
    hardness = random.random()
    complexity = list(TaskComplexity)[min(4, int(hardness * 5))]
    estimator = random.choice(("heuristic", "heuristic", "model"))
    weights = (1 - hardness, 0.5, hardness)
    chosen = random.choices(("small", "medium", "large"), weights)[0]
    propensity = weights[("small", "medium", "large").index(chosen)] / sum(weights)
    task = random.choice(TASKS)
    arm = random.choice(("control", "terse"))
    calls, model = [], chosen
    for sequence in range(2):
        success = random.random() < SUCCESS[model] - 0.25 * hardness + (0.04 if arm == "terse" else 0)
        is_available = success or random.random() > 0.2
        call = _call(random, request_id, model, success=success, is_available=is_available)
        calls.append(evolve(call, sequence=sequence))
        if success:
            break
        model = "large" if model != "large" else "medium"
    last = calls[-1]
    outcome = (
        Outcome.ANSWERED
        if last.success
        else random.choice((Outcome.FAILED, Outcome.BROKE_OFF, Outcome.CANCELED))
    )
    cost_usd = sum(call.cost_usd for call in calls)
    common = {"at": 0.0, "task": task, "complexity": complexity, "experiment": "words", "arm": arm}
    record = RecordRequest(
        request_id=request_id,
        outcome=outcome,
        path="/v1/chat/completions",
        model=last.model,
        status=200 if last.success else 502,
        attempts=len(calls),
        first_byte_s=0.3 * LATENCY_S[last.model] + random.random() * 0.2 if last.success else None,
        total_s=sum(call.latency_ms or 0.0 for call in calls) / 1000,
        usage=Usage(
            prompt_tokens=200 + int(3000 * hardness),
            completion_tokens=last.completion_tokens,
            cached_tokens=random.choice((0, 100)),
        ),
        route=random.choice(("auto", "auto", "cheap")),
        decision=Decision(
            chain=(chosen, "large" if chosen != "large" else "medium"),
            route="auto",
            complexity=complexity,
            complexity_score=hardness,
            estimator=estimator,
            score=0.8,
            confidence=0.6,
            reason=f"{chosen}: best of 3",
            estimated_cost_usd=PRICE_USD[chosen],
            propensity=propensity,
            considered=3,
            experiment="words",
            arm=arm,
        ),
        task=task,
        complexity=complexity,
        key_id=random.choice((None, "key_a", "key_b")),
        user=random.choice(("ann", "bob", None)),
        estimated_cost_usd=PRICE_USD[chosen],
        cost_usd=cost_usd,
        charges=(Charge(account="monthly", limit_usd=10.0),),
        charged_usd={"monthly": cost_usd},
        outcomes=tuple(evolve(call, **common, propensity=propensity) for call in calls),
        select_s=0.3 + random.random() if estimator == "model" else 0.0001 + random.random() * 0.0002,
    )
    return Written(record=record, at_s=at_s, gateway_epoch_s=at_s)


def _call(
    random: Random, request_id: RequestId, model: str, *, success: bool, is_available: bool
) -> ModelOutcome:
    latency_ms = LATENCY_S[model] * 1000 * (0.5 + random.random())
    return ModelOutcome(
        request_id=request_id,
        model=model,
        success=success,
        at=0.0,
        latency_ms=latency_ms if is_available else None,
        first_token_ms=latency_ms * 0.3 if is_available else None,
        completion_tokens=random.randrange(20, 600) if success else 0,
        cost_usd=PRICE_USD[model] * (0.5 + random.random()) if is_available else 0.0,
        is_available=is_available,
    )
