"""A choice in words: what each score is made of, and why each of the others was turned away."""

from collections.abc import Collection

from gatewright.leases import LoadState
from gatewright.selection.catalogue import Catalogue, Row
from gatewright.selection.decision import RankedModel, Rejection, Term
from gatewright.selection.scoring import Needs, Scored, Scorer
from gatewright.selection.values import (
    adjusted_quality,
    cost_value,
    latency_value,
    loading_s,
    waiting_ahead,
)
from gatewright.selection.wording import dollars, seconds, task_in_words


def explain(scorer: Scorer, scored: Scored) -> RankedModel:
    """A score with its terms, each in words."""
    weights, ms = scorer.weights, scored.answer_ms + scored.wait_ms
    return RankedModel(
        model=scored.name,
        score=-scored.minus_score,
        terms=(
            Term(
                name="quality",
                value=scored.quality,
                weight=weights.quality,
                detail=_of_quality(scorer, scored),
            ),
            Term(
                name="cost",
                value=cost_value(scored.cost_usd),
                weight=weights.cost,
                detail=_of_cost(scorer, scored),
            ),
            Term(
                name="latency",
                value=latency_value(ms),
                weight=weights.latency,
                detail=_of_latency(scorer, scored),
            ),
            Term(
                name="readiness",
                value=scored.readiness,
                weight=weights.readiness,
                detail=_of_readiness(scorer, scored),
            ),
        ),
        estimated_cost_usd=scored.cost_usd,
        expected_latency_ms=ms,
        expected_quality=scored.quality,
    )


def _of_quality(scorer: Scorer, scored: Scored) -> str:
    row = scored.row
    if row.name in scorer.requirements.chances:
        return "as the learned estimator says for this request"
    prior = scorer.prior(row)
    task = scorer.requirements.task
    text = f"{prior:.2f} by its profile"
    if task and task in row.by_task:
        text += f" for {task}"
    if scorer.complexity is not None:
        text += f", {adjusted_quality(prior, scorer.complexity):.2f} for {task_in_words(scorer.complexity)}"
    belief = scorer.belief(row) if scorer.past is not None and scorer.past.has_any(row.name) else None
    return text if belief is None else f"{text}; {belief.evidence:.3g} outcomes make it {belief.mean:.2f}"


def _of_cost(scorer: Scorer, scored: Scored) -> str:
    needs = scorer.requirements
    text = f"{dollars(scored.cost_usd)} for {needs.prompt_tokens} + {needs.answer_tokens} tokens"
    return f"{text} and {seconds(scored.answer_ms)} of an engine" if scored.row.hour_usd else text


def _of_latency(scorer: Scorer, scored: Scored) -> str:
    seen = scorer.past_latency(scored.row)
    text = f"{seconds(scored.answer_ms)} for the answer"
    text += (
        " by its profile" if seen is None else f" by {seen.evidence:.3g} answers (p95 {seconds(seen.p95_ms)})"
    )
    return text if not scored.wait_ms else f"{text}, {seconds(scored.wait_ms)} before it begins"


def _of_readiness(scorer: Scorer, scored: Scored) -> str:
    load = scorer.loads.get(scored.name)
    if load is None:
        return "local, nothing known" if scored.row.profile.is_local else "a provider's, always ready"
    words = {
        LoadState.READY: "ready",
        LoadState.LOADING: f"loading for another {loading_s(load):.0f} s",
        LoadState.STOPPED: f"has to be loaded, {loading_s(load):.0f} s",
        LoadState.UNAVAILABLE: "has failed lately",
    }
    text = words[load.state]
    ahead = waiting_ahead(load)
    if ahead:
        text += f", {ahead} before it in the queue"
    return f"{text}, evicts {', '.join(load.evicts)}" if load.evicts else text


def reject(catalogue: Catalogue, scorer: Scorer, needs: Needs) -> tuple[Rejection, ...]:
    """Every model that does not meet the criteria, by name, each with the first that it fails on."""
    found = [rejection_of(row, scorer, needs) for row in catalogue.rows]
    return tuple(sorted([each for each in found if each is not None], key=lambda each: each.model))


def rejection_of(row: Row, scorer: Scorer, needs: Needs) -> Rejection | None:
    """What a model fails on first; None if it meets all criteria."""
    requirements, criteria, profile = scorer.requirements, scorer.requirements.criteria, row.profile
    for criterion, wanted, having in (
        ("capabilities", criteria.required_capabilities, profile.capabilities),
        ("features", criteria.required_features | requirements.features, profile.features),
        ("modalities", requirements.modalities, profile.modalities),
        ("tags", criteria.required_tags, profile.tags),
    ):
        if not wanted <= having:
            return Rejection(model=row.name, criterion=criterion, reason=_lacking(wanted - having))
    failed = _failed_figure(row, scorer, needs)
    if failed is not None:
        return Rejection(model=row.name, criterion=failed[0], reason=failed[1])
    why = requirements.excluded.get(row.name)
    if why is not None:
        return Rejection(model=row.name, criterion=kind_of(why), reason=why)
    load = scorer.loads.get(row.name)
    if load is not None and load.state is LoadState.UNAVAILABLE:
        text = "its engine or provider has failed lately, and is left alone for a while"
        return Rejection(model=row.name, criterion="unavailable", reason=text)
    return None


def _lacking(words: Collection[str]) -> str:
    return f"lacks {', '.join(sorted(str(word) for word in words))}"


def _failed_figure(row: Row, scorer: Scorer, needs: Needs) -> tuple[str, str] | None:
    """The first condition on figures that is not met, in the order of `meets`, and the figures."""
    if row.context_tokens < needs.context_tokens:
        return "context", f"has {row.context_tokens} tokens of context, needed are {needs.context_tokens}"
    if row.mean_usd > needs.mean_usd:
        limit = dollars(needs.mean_usd) if needs.mean_usd > 0 else "free models only"
        text = f"costs {dollars(row.mean_usd)} per 1,000 tokens, allowed are {limit}"
        return "cost", text
    answer_ms = scorer.answer_ms(row)
    ms = answer_ms + scorer.wait_ms(row, answer_ms)
    if ms > needs.latency_ms:
        return "latency", f"takes about {ms:.0f} ms, allowed are {needs.latency_ms:.0f} ms"
    quality = scorer.usual_quality(row)
    if quality < needs.quality:
        return "quality", f"has a quality of {quality:.2f}, asked for are {needs.quality:.2f}"
    return None


def kind_of(why: str) -> str:
    """The criterion behind an exclusion by name, from its words."""
    words = why.lower()
    return "budget" if "budget" in words else "key" if "key" in words.split() else "excluded"
