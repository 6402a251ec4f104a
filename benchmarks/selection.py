"""What it costs to choose a model: complexity, criteria, scores and chain, among few and among thousands of models.

Usage: python benchmarks/selection.py

Every request differs in size, difficulty and criteria. The baseline is the least that can be called a choice: `max()` over
one attribute of all models. "Known" says of how many models there is experience.
"""

import argparse
import sys
from collections.abc import Callable
from operator import attrgetter
from random import Random
from statistics import median, quantiles
from threading import Barrier, Thread
from time import perf_counter

from attrs import evolve

from gatewright.accounting.experience import Experience
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.route_config import RouteConfig
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.choosing import NoModelFits, choose
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.complexity_heuristic import estimate_complexity
from gatewright.selection.criteria import SelectionCriteria
from gatewright.selection.decision import Requirements
from gatewright.selection.profiles import Capability, Feature, ModelProfile, Pricing
from gatewright.selection.signals import PromptSignals

SIZES = (10, 1_000, 10_000)
THREADS = (1, 8)
REQUESTS = 300
ROUTE = RouteConfig(name="auto")
SEED = 7


def make_models(count: int) -> list[ModelProfile]:
    """Models without any pattern, which is the worst case: those of the world are dear if they are good."""
    chance = Random(SEED)
    models = []
    for number in range(count):
        price = 10 ** chance.uniform(-2, 1.3)
        models.append(
            ModelProfile(
                name=f"model-{number}",
                context_tokens=chance.choice([8192, 32_768, 131_072]),
                capabilities=frozenset(chance.sample(list(Capability), 6)) | {Capability.CHAT},
                features=frozenset(chance.sample(list(Feature), 7)),
                pricing=Pricing(input_per_million=price, output_per_million=price * chance.uniform(2, 5)),
                quality=chance.uniform(0.4, 0.95),
                latency_ms=10 ** chance.uniform(2.5, 4),
                output_tokens_per_s=chance.choice([None, chance.uniform(10, 200)]),
            )
        )
    return models


def make_requests() -> list[tuple[PromptSignals, Requirements]]:
    chance = Random(SEED + 1)
    made = []
    for _ in range(REQUESTS):
        tokens = int(10 ** chance.uniform(1.5, 3.8))
        signals = PromptSignals(
            task=chance.choice(["", "translate", "prove"]),
            text_characters=tokens * 4,
            turns=chance.randint(1, 9),
            reasoning_cues=chance.randint(0, 4),
            steps=chance.randint(0, 3),
            code=chance.randint(0, 3),
            terms=chance.randint(0, 5),
        )
        wanted = chance.sample([Capability.CHAT, Capability.CODE, Capability.MATH], chance.randint(0, 1))
        criteria = SelectionCriteria(
            required_capabilities=frozenset(wanted),
            max_cost_per_1k_tokens=chance.choice([None, None, 0.01]),
            min_quality_threshold=chance.choice([None, None, 0.6]),
        )
        needs = Requirements(
            prompt_tokens=tokens,
            need_tokens=tokens + 1000,
            answer_tokens=chance.randint(20, 1000),
            task=signals.task,
            criteria=criteria,
            features=frozenset(chance.sample([Feature.TOOLS], chance.randint(0, 1))),
        )
        made.append((signals, needs))
    return made


def make_past(models: list[ModelProfile], known: int) -> Experience:
    chance = Random(SEED + 2)
    past = Experience()
    for number in range(known * 20):
        past.learn(
            ModelOutcome(
                request_id=str(number),
                model=models[number % known].name,
                success=chance.random() < 0.8,
                at=float(number),
                task="translate",
                complexity=chance.choice(list(TaskComplexity)),
                latency_ms=chance.uniform(300, 9000),
            )
        )
    return past


def timed(action: Callable[[int], object], threads: int) -> tuple[float, float, float]:
    """Median and 95th percentile in microseconds, and how many there are in a second over all threads."""
    taken: list[float] = []
    start = Barrier(threads + 1)

    def work(offset: int) -> None:
        start.wait()
        own = []
        for number in range(REQUESTS):
            before = perf_counter()
            action((number + offset) % REQUESTS)
            own.append(perf_counter() - before)
        taken.extend(own)

    workers = [Thread(target=work, args=(offset * 37,)) for offset in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    begun = perf_counter()
    for worker in workers:
        worker.join()
    rate = REQUESTS * threads / (perf_counter() - begun)
    return median(taken) * 1e6, quantiles(taken, n=20)[-1] * 1e6, rate


def decisions(
    catalogue: Catalogue, past: Experience | None = None, chance: Random | None = None
) -> Callable[[int], object]:
    requests = make_requests()

    def decide(number: int) -> object:
        signals, needs = requests[number]
        complete = evolve(needs, complexity=estimate_complexity(signals))
        return choose(complete, catalogue, route=ROUTE, past=past, now=1e6, chance=chance)

    assert any(not isinstance(decide(number), NoModelFits) for number in range(REQUESTS))
    return decide


def measure(models: list[ModelProfile], threads: int) -> None:
    catalogue = Catalogue(models)

    def baseline(_: int) -> object:
        return max(models, key=attrgetter("quality"))

    known = min(len(models), 100)
    cases = {
        "max() over one attribute (baseline)": baseline,
        "full decision": decisions(catalogue),
        f"full decision, {known} known": decisions(catalogue, make_past(models, known)),
        "full decision, by draws": decisions(catalogue, chance=Random(SEED)),
    }
    least = 0.0
    for name, action in cases.items():
        for number in range(0, REQUESTS, 10):
            action(number)  # warm
        middle, high, rate = timed(action, threads)
        least = least or middle
        print(
            f"| {len(models):,} | {threads} | {name} | {middle:,.0f} us | {high:,.0f} us | {rate:,.0f} | {middle / least:.2f} |"
        )


def measure_learning() -> None:
    past = Experience()
    outcomes = [
        ModelOutcome(
            request_id=f"r{number}",
            model=f"model-{number % 50}",
            success=number % 5 > 0,
            at=float(number),
            task="translate",
            complexity=list(TaskComplexity)[number % 5],
            latency_ms=1000.0,
        )
        for number in range(20_000)
    ]
    taken = []
    for outcome in outcomes:
        before = perf_counter()
        past.learn(outcome)
        taken.append(perf_counter() - before)
    print(
        f"\nlearning an outcome: median {median(taken) * 1e6:.1f} us, p95 {quantiles(taken, n=20)[-1] * 1e6:.1f} us"
    )


def main() -> None:
    global REQUESTS  # noqa: PLW0603  # a script's one setting
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="requests in each measurement")
    REQUESTS = parser.parse_args().requests
    sys.setswitchinterval(0.0005)  # 8 threads on few cores: none waits for long while another decides
    print("| models | threads | what | median | p95 | per second | x baseline |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for count in SIZES:
        models = make_models(count)
        for threads in THREADS:
            measure(models, threads)
    for count in SIZES:
        begun = perf_counter()
        Catalogue(make_models(count))
        print(
            f"{'' if count > SIZES[0] else chr(10)}arranging {count:,} models: {(perf_counter() - begun) * 1e3:.0f} ms"
        )
    measure_learning()


if __name__ == "__main__":
    main()
