"""Who answers: the best of a ranking, whom to ask after it, how sure that is, and one line that says why."""

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

from gatewright import errors
from gatewright.errors import Problem
from gatewright.leases import EngineLoad, LoadState
from gatewright.route_config import FallbackPolicy, RouteConfig
from gatewright.selection.beliefs import Chance, PastOutcomes
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.criteria import ScoringWeights
from gatewright.selection.decision import Decision, Rejection, Requirements
from gatewright.selection.explaining import reject
from gatewright.selection.exploring import SHORTLIST, draw, propensity
from gatewright.selection.profiles import ModelProfile
from gatewright.selection.ranking import Selection, rank_models, select
from gatewright.selection.refusing import count_rejections, first_rejections
from gatewright.selection.scoring import Scored
from gatewright.selection.wording import dollars, seconds, task_in_words

__all__ = ["NoModelFits", "choose", "rank_available", "rank_models", "select_model"]

CLEAR_GAP: Final = 0.05
"""A lead in score that makes a choice half as sure as one that nobody rivals."""
SURE_EVIDENCE: Final = 10.0
"""Outcomes that make what is believed of a model half as sure as can be."""
MOST_NAMED: Final = 5
"""Models that an error tells of one by one."""
MOST_AWAY: Final = 3
"""Models of which a reason says that they are left alone for a while."""
_LONGEST_REASON: Final = 300


@frozen(eq=False)
class NoModelFits:
    """There is nobody to choose."""

    _selection: Selection = field(repr=False)
    _catalogue: Catalogue = field(repr=False)
    _route: RouteConfig | None

    @property
    def problem(self) -> Problem:
        """What the client is told."""
        return self.error.problem

    @property
    def error(self) -> errors.NoModelFits:
        """What is told: of a few models what they failed on, of all how many on what."""
        found, catalogue = self._selection, self._catalogue
        if not len(catalogue):
            message = f"no model fits: {_no_candidates(self._route)}"
            return errors.NoModelFits(message)
        first = first_rejections(catalogue, found.scorer, found.needs, MOST_NAMED)
        named = "; ".join(f"{each.model}: {_short(each.reason)}" for each in first)
        more = len(catalogue) - len(first)
        rest = f"; and {more} more" if more > 0 else ""
        given_up = f" even without {', '.join(found.relaxed)}" if found.relaxed else ""
        message = f"no model of {len(catalogue)} fits{given_up}: {named}{rest}"
        counts = count_rejections(catalogue, found.scorer, found.needs)
        return errors.NoModelFits(message, counts)

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """Who failed on what, by name: all of them, which takes its time where there are thousands."""
        return reject(self._catalogue, self._selection.scorer, self._selection.needs)


def choose(
    requirements: Requirements,
    catalogue: Catalogue,
    *,
    route: RouteConfig | None = None,
    weights: ScoringWeights | None = None,
    past: PastOutcomes | None = None,
    loads: Mapping[str, EngineLoad] | None = None,
    now: float = 0.0,
    chance: Chance | None = None,
) -> Decision | NoModelFits:
    """Choose a model and those to ask if it fails.

    Args:
        requirements: The request.
        catalogue: The candidates.
        route: Route that was named: says what may be relaxed, how long the chain is and, without `weights`, what counts.
        weights: What counts how much.
        past: What was learnt.
        loads: What it would cost now to run a model, by name.
        now: Seconds, on the clock of the outcomes.
        chance: For Thompson sampling; None is greedy.

    Returns:
        The decision. With Thompson sampling its first model is the one that was drawn, the others follow by
        expectation: exploring is for the choice, not for its replacement. The propensity of a greedy choice is 1.
    """
    length = max(1, (FallbackPolicy() if route is None else route.fallback).max_length)
    limit = max(length, 2) if chance is None else max(length, SHORTLIST)
    found = select(
        requirements,
        catalogue,
        weights=weights if weights is not None or route is None else route.weights,
        past=past,
        loads=loads,
        now=now,
        limit=limit,
        relax=() if route is None else route.relax,
    )
    if not found.scored:
        return NoModelFits(found, catalogue, route)
    index, probability = _drawn(found, chance)
    choice = found.scored[index]
    others = found.scored[:index] + found.scored[index + 1 :]
    estimate = requirements.complexity
    return Decision(
        chain=(choice.name, *[each.name for each in others[: length - 1]]),
        route=None if route is None else route.name,
        complexity=None if estimate is None else estimate.complexity,
        complexity_score=None if estimate is None else estimate.score,
        estimator="" if estimate is None else estimate.estimator,
        score=-choice.minus_score,
        confidence=_confidence(found, choice, others),
        reason=_reason(found, choice, len(catalogue), explored=index > 0),
        estimated_cost_usd=choice.cost_usd,
        propensity=probability,
        relaxed=found.relaxed,
        considered=len(catalogue),
        explored=index > 0,
    )


def _drawn(found: Selection, chance: Chance | None) -> tuple[int, float]:
    """The place of the chosen model, and the probability of this choice."""
    if chance is None or len(found.scored) == 1:
        return 0, 1.0
    shortlist = found.scored[:SHORTLIST]
    drawn = draw(shortlist, found.scorer, chance)
    probability = propensity(shortlist, drawn.beliefs, drawn.chosen, found.scorer.weights.quality)
    return drawn.chosen, probability


def select_model(requirements: Requirements, available: Iterable[ModelProfile]) -> str:
    """The name of the best model, by the usual weights and profiles alone.

    Args:
        requirements: The request.
        available: The models.

    Raises:
        NoModelFits: None meets all criteria (the error of this name).
    """
    decision = choose(requirements, Catalogue(available))
    if isinstance(decision, NoModelFits):
        raise decision.error
    return decision.chain[0]


def rank_available(
    requirements: Requirements, available: Iterable[ModelProfile], weights: ScoringWeights | None = None
) -> list[tuple[str, float]]:
    """The names and scores of all models that meet the criteria, best first, by profiles alone.

    Args:
        requirements: The request.
        available: The models.
        weights: What counts how much; None for the usual.
    """
    found = select(requirements, Catalogue(available), weights=weights)
    return [(each.name, -each.minus_score) for each in found.scored]


def _confidence(found: Selection, choice: Scored, others: tuple[Scored, ...]) -> float:
    """How sure a choice is, 0 to 1: a half for its lead, times a half for what is known.

    `(1 + lead / (lead + CLEAR_GAP)) / 2 * (1 + evidence / (evidence + SURE_EVIDENCE)) / 2`. So a tie between
    strangers is a quarter, a clear lead of a stranger a half, and a clear lead of one that is well known nearly 1.
    """
    lead_part = 1.0
    if others:
        lead = max(0.0, others[0].minus_score - choice.minus_score)
        lead_part = lead / (lead + CLEAR_GAP)
    scorer = found.scorer
    evidence = 0.0
    is_known = scorer.past is not None and scorer.past.has_any(choice.name)
    if is_known or choice.name in scorer.requirements.chances:
        evidence = scorer.belief(choice.row).evidence
    return (1.0 + lead_part) / 2 * (1.0 + evidence / (evidence + SURE_EVIDENCE)) / 2


def _reason(found: Selection, choice: Scored, considered: int, *, explored: bool) -> str:
    estimate = found.scorer.requirements.complexity
    what = "tried" if explored else "best"
    task = "" if estimate is None else f" for {task_in_words(estimate.complexity)}"
    text = (
        f"{choice.name}: {what} of {considered}{task}: quality {choice.quality:.2f}, "
        f"{dollars(choice.cost_usd)}, ~{seconds(choice.answer_ms + choice.wait_ms)}"
    )
    if found.relaxed:
        return f"{text}; no model met all criteria, given up: {', '.join(found.relaxed)}"
    away = sorted(name for name, load in found.scorer.loads.items() if load.state is LoadState.UNAVAILABLE)
    if away:
        more = f" and {len(away) - MOST_AWAY} more" if len(away) > MOST_AWAY else ""
        text = f"{text}; left alone after failures: {', '.join(away[:MOST_AWAY])}{more}"
    return text


def _short(reason: str) -> str:
    """A client may ask for more than anybody wants to read that a model lacks."""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 3]}..."


def _no_candidates(route: RouteConfig | None) -> str:
    if route is None:
        return "there are no candidates"
    text = f"the route '{route.name}' has no candidates"
    if not route.tags:
        return text
    tags = ", ".join(f"'{tag}'" for tag in route.tags)
    return f"{text}: no model has {'the tag' if len(route.tags) == 1 else 'any of the tags'} {tags}"
