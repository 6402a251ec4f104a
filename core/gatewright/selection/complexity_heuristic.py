"""The heuristic estimator: how hard a request is, by counts over its text.

Each dimension has a score from 0 to 1 that rises with its count and levels off. The composite is their weighted mean,
bent upwards, since no request is hard in every way. Nothing in it was learned: see docs/complexity.md for what it is worth.
"""

from collections.abc import Mapping
from math import isfinite, log2
from typing import Final

from gatewright.selection.complexity import ComplexityEstimate, DimensionScore, TaskComplexity
from gatewright.selection.signals import PromptSignals

DEFAULT_WEIGHTS: Final[Mapping[str, float]] = {
    "size": 0.20,
    "inputs": 0.05,
    "turns": 0.04,
    "reasoning": 0.15,
    "steps": 0.12,
    "code": 0.10,
    "mathematics": 0.12,
    "knowledge": 0.10,
    "constraints": 0.06,
    "tools": 0.05,
    "answer": 0.03,
    "task": 0.14,
}
"""Weight of each dimension; their sum need not be 1."""

DIMENSIONS: Final = tuple(DEFAULT_WEIGHTS)
"""Names of all dimensions; others in a configuration are mistakes."""

DEFAULT_THRESHOLDS: Final = (0.2, 0.4, 0.6, 0.8)
"""Scores from which on a request is simple, moderate, complex, expert."""

_LEVELS: Final = tuple(TaskComplexity)
_BEND: Final = 4
_HALF_SURE: Final = 0.05
"""Distance to a threshold at which we are as sure as not."""

_SMALL_CHARACTERS: Final = 250
_LARGE: Final = log2(1 + 65_536 / _SMALL_CHARACTERS)
_SMALL_ANSWER_TOKENS: Final = 256
_LARGE_ANSWER: Final = log2(1 + 16_384 / _SMALL_ANSWER_TOKENS)
_NEUTRAL_TASK: Final = 0.25
_MEDIUM_INPUTS: Final = 2
"""A picture or a sound is as much to take in as two texts."""


def estimate_complexity(
    signals: PromptSignals,
    *,
    thresholds: tuple[float, float, float, float] | None = None,
    weights: Mapping[str, float] = {},
) -> ComplexityEstimate:
    """How hard a request is.

    Args:
        signals: Counts over it.
        thresholds: Scores from which on it is simple, moderate, complex, expert; rising.
        weights: Of dimensions that are not to have the usual one; 0 leaves a dimension out.

    Raises:
        ValueError: A weight is of no dimension, negative, or no number; configurations are checked where they are read.
    """
    shares = _shares(weights) if weights else _DEFAULT_SHARES
    mean = 0.0
    dimensions = []
    for name, share, (score, reason) in zip(DIMENSIONS, shares, _scores(signals), strict=True):
        mean += share * score
        dimensions.append(DimensionScore(name=name, score=score, weight=share, reason=reason))
    score = 1 - (1 - min(mean, 1.0)) ** _BEND
    limits = thresholds or DEFAULT_THRESHOLDS
    return ComplexityEstimate(
        complexity=complexity_at(score, limits),
        score=score,
        confidence=confidence_at(score, limits),
        dimensions=tuple(dimensions),
        reason=_reason(dimensions),
    )


def complexity_at(
    score: float, thresholds: tuple[float, float, float, float] = DEFAULT_THRESHOLDS
) -> TaskComplexity:
    """The level of a score, 0 to 1."""
    return _LEVELS[sum(score >= threshold for threshold in thresholds)]


def confidence_at(score: float, thresholds: tuple[float, float, float, float] = DEFAULT_THRESHOLDS) -> float:
    """How far a score is from the next level: 0 on a threshold, towards 1 far from all of them."""
    distance = min(abs(score - threshold) for threshold in thresholds)
    return distance / (distance + _HALF_SURE)


def _shares(weights: Mapping[str, float]) -> tuple[float, ...]:
    """Each dimension's part of the whole; all 0 if all weights are."""
    for name, weight in weights.items():
        if name not in DEFAULT_WEIGHTS:
            raise ValueError(f"There is no dimension {name!r}; there are: {', '.join(DIMENSIONS)}")
        if not isfinite(weight) or weight < 0:
            raise ValueError(f"The weight of {name!r} must be a number of at least 0, not {weight}")
    chosen = [weights.get(name, usual) for name, usual in DEFAULT_WEIGHTS.items()]
    whole = sum(chosen)
    return tuple(weight / whole if whole else 0.0 for weight in chosen)


_DEFAULT_SHARES: Final = _shares({})


def _scores(signals: PromptSignals) -> tuple[tuple[float, str], ...]:
    """Score and reason of each dimension, in the order of `DIMENSIONS`."""
    inputs = signals.inputs + _MEDIUM_INPUTS * signals.media
    answer = signals.answer_tokens
    return (
        (
            min(1.0, log2(1 + signals.text_characters / _SMALL_CHARACTERS) / _LARGE),
            f"characters: {signals.text_characters:,}",
        ),
        (_levelled(inputs - 1, 4), f"inputs: {signals.inputs}, media: {signals.media}"),
        (_levelled(signals.turns - 1, 6), f"turns: {signals.turns}"),
        (_levelled(signals.reasoning_cues, 2.5), f"words that ask for reasons: {signals.reasoning_cues}"),
        (_levelled(signals.steps, 4), f"signs of steps: {signals.steps}"),
        (_levelled(signals.code, 4), f"signs of code: {signals.code}"),
        (_levelled(signals.mathematics, 8), f"numbers, formulas, words for them: {signals.mathematics}"),
        (_levelled(signals.terms, 3), f"words of special fields: {signals.terms}"),
        (_levelled(signals.constraints, 4), f"conditions on the form: {signals.constraints}"),
        (_levelled(signals.tools, 4), f"tools: {signals.tools}"),
        (
            min(1.0, log2(1 + answer / _SMALL_ANSWER_TOKENS) / _LARGE_ANSWER) if answer else 0.0,
            f"at most {answer:,} tokens of answer" if answer else "no limit of the answer",
        ),
        (_task_score(signals.task_words), _task_reason(signals)),
    )


def _levelled(count: float, half: float) -> float:
    """0 for none, a half at `half`, towards 1 for very many."""
    return count / (count + half) if count > 0 else 0.0


def _task_score(words: int) -> float:
    """Between the two where a task says nothing of itself."""
    if words <= 0:
        return max(0.0, _NEUTRAL_TASK * (1 + words / 2))
    return _NEUTRAL_TASK + (1 - _NEUTRAL_TASK) * _levelled(words, 1.5)


def _task_reason(signals: PromptSignals) -> str:
    if signals.task_words == 0:
        return "the task says nothing of itself"
    return (
        f"words of {'hard' if signals.task_words > 0 else 'easy'} work in the task: {abs(signals.task_words)}"
    )


def _reason(dimensions: list[DimensionScore]) -> str:
    """The two dimensions that count most."""
    first, second = "", ""
    most, more = 0.0, 0.0
    for dimension in dimensions:
        part = dimension.weight * dimension.score
        if part > most:
            second, more = first, most
            first, most = dimension.reason, part
        elif part > more:
            second, more = dimension.reason, part
    return f"{first}; {second}" if second else first
