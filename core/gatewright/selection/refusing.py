"""Why nobody fits, of thousands of models as quickly as of a few: by criterion all, in words only the first."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from heapq import nsmallest
from math import inf
from typing import Final

from gatewright.leases import LoadState
from gatewright.selection.catalogue import Catalogue, Row
from gatewright.selection.decision import Rejection
from gatewright.selection.explaining import kind_of, rejection_of
from gatewright.selection.pruning import special_names
from gatewright.selection.scoring import Needs, Scorer

_ORDER: Final = (
    "capabilities", "features", "modalities", "tags", "context", "cost", "latency", "quality", "budget", "key",
    "excluded", "unavailable",
)  # fmt: skip
"""The criteria as they are looked at."""


def first_rejections(catalogue: Catalogue, scorer: Scorer, needs: Needs, most: int) -> tuple[Rejection, ...]:
    """The first of those that `reject` would give where no model meets the criteria."""
    rows = nsmallest(most, catalogue.rows, key=_name)
    found = [rejection_of(row, scorer, needs) for row in rows]
    return tuple([each for each in found if each is not None])


def count_rejections(catalogue: Catalogue, scorer: Scorer, needs: Needs) -> dict[str, int]:
    """How many models fail on which criterion, as a count of what `reject` gives; the most frequent first."""
    counts: Counter[str] = Counter()
    left = catalogue.everybody
    requirements, criteria = scorer.requirements, scorer.requirements.criteria
    for criterion, having in (
        ("capabilities", catalogue.matching(capabilities=criteria.required_capabilities)),
        ("features", catalogue.matching(features=criteria.required_features | requirements.features)),
        ("modalities", catalogue.matching(modalities=requirements.modalities)),
        ("tags", catalogue.matching(tags=criteria.required_tags)),
    ):
        counts[criterion] += (left & ~having).bit_count()
        left &= having
    excluded, kind = requirements.excluded, lru_cache(kind_of)
    away = scorer.loads
    for name, failed in _figures(catalogue.rows_of(left), scorer, needs, special_names(catalogue, scorer)):
        if failed is not None:
            counts[failed] += 1
        elif name in excluded:
            counts[kind(excluded[name])] += 1
        elif name in away and away[name].state is LoadState.UNAVAILABLE:
            counts["unavailable"] += 1
    return {
        criterion: counts[criterion]
        for criterion in sorted(_ORDER, key=lambda each: -counts[each])
        if counts[criterion]
    }


def _figures(
    rows: Iterable[Row], scorer: Scorer, needs: Needs, special: Collection[str]
) -> Iterator[tuple[str, str | None]]:
    """By name, the first condition on figures that is not met; what was learnt and loads count for special models only."""
    answer, prior = scorer.requirements.answer_tokens, scorer.prior
    context, most_usd, most_ms, least = (
        needs.context_tokens,
        needs.mean_usd,
        needs.latency_ms,
        needs.quality,
    )
    for row in rows:
        name = row.name
        if row.context_tokens < context:
            yield name, "context"
            continue
        if row.mean_usd > most_usd:
            yield name, "cost"
            continue
        is_special = name in special
        if most_ms < inf:
            ms = max(row.least_ms, row.start_ms + answer * row.token_ms)
            if is_special:
                ms = scorer.answer_ms(row)
                ms += scorer.wait_ms(row, ms)
            if ms > most_ms:
                yield name, "latency"
                continue
        is_poor = least > 0.0 and (scorer.usual_quality(row) if is_special else prior(row)) < least
        yield name, "quality" if is_poor else None


def _name(row: Row) -> str:
    return row.name
