"""All candidates in order: criteria first, then scores; and the criteria that were given up where none meets all."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import evolve, frozen

from gatewright.leases import EngineLoad
from gatewright.selection.beliefs import Chance, PastOutcomes
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.criteria import Relaxation, ScoringWeights, SelectionCriteria
from gatewright.selection.decision import RankedModel, Rejection, Requirements
from gatewright.selection.explaining import explain, reject
from gatewright.selection.exploring import SHORTLIST, Draw, draw
from gatewright.selection.pruning import best_models, unavailable
from gatewright.selection.scoring import Needs, Scored, Scorer, needs_of

AVAILABILITY: Final = "availability"
"""Given up last: whether a model can be reached now is advice that may be old, and no reason to refuse a request."""


@frozen(eq=False)
class Selection:
    """The candidates that are left, for those who go on with them.

    Attributes:
        scored: The best, best first by expectation; empty where no model fits.
        relaxed: Criteria that were given up for it, in this order.
        scorer: That scored them; its requirements are the relaxed ones.
        needs: Conditions on figures that they meet.
    """

    scored: tuple[Scored, ...]
    relaxed: tuple[str, ...]
    scorer: Scorer
    needs: Needs


@frozen(eq=False)
class Ranking:
    """Candidates in order.

    Attributes:
        ranked: Those that meet all criteria, best first; all or as many as were asked for.
        relaxed: Criteria that were given up, in this order.
        considered: Number of models.
    """

    ranked: tuple[RankedModel, ...]
    relaxed: tuple[str, ...]
    considered: int
    _catalogue: Catalogue
    _scorer: Scorer
    _needs: Needs

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """Those that do not meet the criteria that were not given up, by name; found when asked for."""
        rejected = reject(self._catalogue, self._scorer, self._needs)
        if AVAILABILITY in self.relaxed:
            return tuple([each for each in rejected if each.criterion != "unavailable"])
        return rejected


def rank_models(
    requirements: Requirements,
    catalogue: Catalogue,
    *,
    weights: ScoringWeights | None = None,
    past: PastOutcomes | None = None,
    loads: Mapping[str, EngineLoad] | None = None,
    now: float = 0.0,
    chance: Chance | None = None,
    limit: int | None = None,
    relax: Sequence[Relaxation] = (),
) -> Ranking:
    """Rank the models of a catalogue for a request, with each term of each score in words.

    Args:
        requirements: The request.
        catalogue: The models.
        weights: What counts how much.
        past: What was learnt.
        loads: What it would cost now to run a model, by name.
        now: Seconds, on the clock of the outcomes.
        chance: For Thompson sampling: the first of the ranking go by draws. None ranks by expectation.
        limit: How many are wanted; None for all.
        relax: Criteria that may be given up where no model meets all.
    """
    wanted = limit if limit is None or chance is None else max(limit, SHORTLIST)
    found = select(
        requirements,
        catalogue,
        weights=weights,
        past=past,
        loads=loads,
        now=now,
        limit=wanted,
        relax=relax,
    )
    ranked = [explain(found.scorer, each) for each in found.scored]
    if chance is not None and found.scored:
        shortlist = found.scored[:SHORTLIST]
        ranked = [*_by_draw(ranked, shortlist, draw(shortlist, found.scorer, chance)), *ranked[SHORTLIST:]]
    return Ranking(tuple(ranked[:limit]), found.relaxed, len(catalogue), catalogue, found.scorer, found.needs)


def _by_draw(ranked: Sequence[RankedModel], shortlist: Sequence[Scored], drawn: Draw) -> list[RankedModel]:
    """The shortlist in the order of a draw, with the drawn qualities in the scores."""
    changed = []
    for model, each, score, quality in zip(ranked, shortlist, drawn.scores, drawn.qualities, strict=False):
        of_quality, *others = model.terms
        term = evolve(of_quality, value=quality, detail=f"drawn; {of_quality.detail}")
        again = evolve(model, score=score, expected_quality=quality, terms=(term, *others))
        changed.append(((-score, each.cost_usd, each.name), again))
    return [model for _, model in sorted(changed, key=lambda pair: pair[0])]


def select(
    requirements: Requirements,
    catalogue: Catalogue,
    *,
    weights: ScoringWeights | None = None,
    past: PastOutcomes | None = None,
    loads: Mapping[str, EngineLoad] | None = None,
    now: float = 0.0,
    limit: int | None = None,
    relax: Sequence[Relaxation] = (),
) -> Selection:
    """The best models for a request, by expectation; the arguments are those of `rank_models`.

    Where none meets all criteria, those of `relax` are given up one after the other; then, with all criteria again and
    once more one after the other, whether a model is available. Context, features, modalities and what is excluded by
    name (key, budget) always hold.
    """
    weights = weights or ScoringWeights()
    scorer = Scorer(requirements, weights, past, loads, now)
    needs = needs_of(requirements)
    out = unavailable(catalogue, scorer)
    relaxed: tuple[str, ...] = ()
    for availability_counts in (True, False) if out else (True,):
        for relaxed, criteria in _ever_looser(requirements.criteria, relax):
            if relaxed:
                scorer = Scorer(evolve(requirements, criteria=criteria), weights, past, loads, now)
            else:
                scorer = Scorer(requirements, weights, past, loads, now)
            needs = needs_of(scorer.requirements)
            candidates = _candidates(catalogue, scorer.requirements)
            if availability_counts:
                candidates &= ~out
            scored = best_models(catalogue, scorer, needs, candidates, limit) if candidates else []
            if scored:
                given_up = relaxed if availability_counts else (*relaxed, AVAILABILITY)
                return Selection(tuple(scored), given_up, scorer, needs)
    return Selection((), relaxed, scorer, needs)


def _candidates(catalogue: Catalogue, requirements: Requirements) -> int:
    """The models that have what is required and are not excluded, as bits."""
    criteria = requirements.criteria
    candidates = catalogue.matching(
        capabilities=criteria.required_capabilities,
        features=criteria.required_features | requirements.features,
        modalities=requirements.modalities,
        tags=criteria.required_tags,
    )
    if requirements.excluded:
        candidates &= ~catalogue.bits_of(requirements.excluded)
    return candidates


def _ever_looser(
    criteria: SelectionCriteria, relax: Sequence[Relaxation]
) -> Iterator[tuple[tuple[str, ...], SelectionCriteria]]:
    """The criteria, and then without one more each time; those that ask for nothing are passed over."""
    relaxed: tuple[str, ...] = ()
    yield relaxed, criteria
    for relaxation in relax:
        looser = _without(criteria, relaxation)
        if looser != criteria:
            criteria, relaxed = looser, (*relaxed, relaxation.value)
            yield relaxed, criteria


def _without(criteria: SelectionCriteria, relaxation: Relaxation) -> SelectionCriteria:
    match relaxation:
        case Relaxation.LATENCY:
            return evolve(criteria, max_latency_ms=None)
        case Relaxation.COST:
            return evolve(criteria, max_cost_per_1k_tokens=None)
        case Relaxation.QUALITY:
            return evolve(criteria, min_quality_threshold=None)
        case Relaxation.TAGS:
            return evolve(criteria, required_tags=frozenset())
        case Relaxation.CAPABILITIES:
            return evolve(criteria, required_capabilities=frozenset())
