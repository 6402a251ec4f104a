"""The best of many models without a look at each: exact, whatever is left out.

A model is plain if nothing was learnt of it, nobody told its chance, and nothing stands before it. What plain models
score follows from their profiles, so the tree of the catalogue bounds it. All others are scored one by one.
"""

from bisect import insort
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import log10, pow  # noqa: A004  # of floats, which ** says less clearly
from typing import Final

from gatewright.accounting.costs import TOKENS_PER_PRICE
from gatewright.leases import LoadState
from gatewright.selection.catalogue import BITS, BRANCH, LEAF, Best, Catalogue, Row
from gatewright.selection.scoring import Needs, Scored, Scorer
from gatewright.selection.values import (
    COST_DECADES,
    HALF_LATENCY_MS,
    SECONDS_PER_HOUR,
    UNSEEN_COST_USD,
    is_plain,
)

_BEYOND_ROUNDING: Final = 1e-9
"""Added to every bound: powers and logarithms need not round the same way everywhere."""


def best_models(
    catalogue: Catalogue, scorer: Scorer, needs: Needs, candidates: int, limit: int | None = None
) -> list[Scored]:
    """The best candidates that meet the conditions, best first.

    Args:
        catalogue: The models.
        scorer: Scores them.
        needs: Conditions on figures.
        candidates: Those that come into question otherwise, as bits.
        limit: How many are wanted; None for all.
    """
    plain_score = plain_scores(scorer, needs)
    if not catalogue.levels or limit is None:
        return _look_at_each(catalogue, scorer, needs, candidates, plain_score)[:limit]
    special = catalogue.bits_of(special_names(catalogue, scorer)) & candidates
    found = _search(catalogue, bounds(scorer, needs), plain_score, candidates & ~special, limit)
    best_quality = scorer.weights.quality + _BEYOND_ROUNDING
    for row in catalogue.rows_of(special):
        # What is believed of a chance takes longest to say; where even certainty would not do, nobody is asked.
        if len(found) == limit and best_quality + scorer.besides_quality(row)[-1] < -found[-1].minus_score:
            continue
        if scorer.meets(row, needs):
            insort(found, scorer.score(row))
            del found[limit:]
    return found


def unavailable(catalogue: Catalogue, scorer: Scorer) -> int:
    """The models whose engine or provider is left alone for a while, as bits."""
    loads = scorer.loads
    return catalogue.bits_of([name for name, load in loads.items() if load.state is LoadState.UNAVAILABLE])


def _look_at_each(
    catalogue: Catalogue,
    scorer: Scorer,
    needs: Needs,
    candidates: int,
    plain_score: Callable[[Row], Scored | None],
) -> list[Scored]:
    past, chances = scorer.past, scorer.requirements.chances
    waited_for = {name for name, load in scorer.loads.items() if not is_plain(load)}
    found = []
    for row in catalogue.rows_of(candidates):
        name = row.name
        if name in waited_for or name in chances or (past is not None and past.has_any(name)):
            if scorer.meets(row, needs):
                found.append(scorer.score(row))
        else:
            scored = plain_score(row)
            if scored is not None:
                found.append(scored)
    found.sort()
    return found


def special_names(catalogue: Catalogue, scorer: Scorer) -> set[str]:
    """Names of models that are not plain, and maybe of some that are no candidates."""
    names = {name for name, load in scorer.loads.items() if not is_plain(load)}
    names.update(scorer.requirements.chances)
    past = scorer.past
    if past is not None:
        models = past.models()
        if len(models) <= len(catalogue):
            names.update(models)
        else:
            names.update(row.name for row in catalogue.rows if past.has_any(row.name))
    return names


def _search(
    catalogue: Catalogue,
    bound: Callable[[Best], float],
    plain_score: Callable[[Row], Scored | None],
    candidates: int,
    limit: int,
) -> list[Scored]:
    """Best first: of all nodes known, the one that promises most is opened next, until none promises enough."""
    rows, levels = catalogue.rows, catalogue.levels
    found: list[Scored] = []
    leaves = candidates.to_bytes(len(rows) // LEAF + 1, "little")
    top = len(levels) - 1
    pending = [
        (-promise, top, index) for index, node in enumerate(levels[top]) if (promise := bound(node)) >= 0
    ]
    heapify(pending)
    while pending:
        minus_promise, level, index = heappop(pending)
        if len(found) == limit and minus_promise > found[-1].minus_score:
            break
        start = index * BRANCH
        if level == 0:
            for bit in BITS[leaves[index]]:
                scored = plain_score(rows[start + bit])
                if scored is not None and (len(found) < limit or scored < found[-1]):
                    insort(found, scored)
                    del found[limit:]
            continue
        level -= 1
        width = BRANCH**level
        for below, node in enumerate(levels[level][start : start + BRANCH], start):
            if any(leaves[below * width : (below + 1) * width]):
                promise = bound(node)
                if promise >= 0:
                    heappush(pending, (-promise, level, below))
    return found


def plain_scores(scorer: Scorer, needs: Needs) -> Callable[[Row], Scored | None]:
    """A function that scores plain models, and gives None for those that do not meet the conditions.

    It gives what `meets` and `score` give, in one go, and thrice as fast.
    """
    prompt, answer = scorer.requirements.prompt_tokens, scorer.requirements.answer_tokens
    task, exponent = scorer.requirements.task, scorer.exponent
    weights = scorer.weights
    quality_weight, cost_weight = weights.quality, weights.cost
    latency_weight, ready = weights.latency, weights.readiness * 1.0
    context, most_usd, most_ms, least = (
        needs.context_tokens,
        needs.mean_usd,
        needs.latency_ms,
        needs.quality,
    )
    prior = scorer.prior

    def plain_score(row: Row) -> Scored | None:
        name, quality, by_task, input_usd, output_usd, hour, start, token, shortest, mean, size, _ = row
        if size < context or mean > most_usd:
            return None
        ms = start + answer * token
        if ms < shortest:  # noqa: PLR1730  # thrice as fast as max()
            ms = shortest
        if ms > most_ms:
            return None
        if by_task and task:
            quality = prior(row)
        if quality < least:
            return None
        if exponent != 1.0:
            quality = pow(quality, exponent)
        usd = (prompt * input_usd + answer * output_usd) / TOKENS_PER_PRICE
        if hour:
            usd += hour * (ms / 1000) / SECONDS_PER_HOUR
        value = 1.0 - log10(1.0 + usd / UNSEEN_COST_USD) / COST_DECADES
        if value < 0.0:  # noqa: PLR1730  # the same
            value = 0.0
        rest = cost_weight * value + latency_weight * (HALF_LATENCY_MS / (HALF_LATENCY_MS + ms)) + ready
        score = quality_weight * quality + rest
        if score > 1.0:  # noqa: PLR1730  # the same
            score = 1.0
        return Scored(-score, usd, name, row, quality, ms, 0.0, 1.0, rest)

    return plain_score


def bounds(scorer: Scorer, needs: Needs) -> Callable[[Best], float]:
    """A function that gives a bound which no plain model of several exceeds; below 0 where none meets the conditions."""
    prompt, answer = scorer.requirements.prompt_tokens, scorer.requirements.answer_tokens
    exponent, weights = scorer.exponent, scorer.weights
    quality_weight, cost_weight = weights.quality, weights.cost
    latency_weight, ready = weights.latency, weights.readiness + _BEYOND_ROUNDING
    context, most_usd, most_ms, least = (
        needs.context_tokens,
        needs.mean_usd,
        needs.latency_ms,
        needs.quality,
    )

    def bound(best: Best) -> float:
        quality, input_usd, output_usd, hour, start, token, shortest, mean, size = best
        ms = start + answer * token
        if ms < shortest:  # noqa: PLR1730  # thrice as fast as max()
            ms = shortest
        if size < context or mean > most_usd or ms > most_ms or quality < least:
            return -1.0
        usd = (prompt * input_usd + answer * output_usd) / TOKENS_PER_PRICE + hour * (
            ms / 1000
        ) / SECONDS_PER_HOUR
        value = 1.0 - log10(1.0 + usd / UNSEEN_COST_USD) / COST_DECADES
        if value < 0.0:  # noqa: PLR1730  # the same
            value = 0.0
        return (
            quality_weight * pow(quality, exponent)
            + cost_weight * value
            + latency_weight * (HALF_LATENCY_MS / (HALF_LATENCY_MS + ms))
            + ready
        )

    return bound
