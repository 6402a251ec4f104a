"""What passes between a selector and its callers, and how their tasks become requirements."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from gatewright.selection import choosing
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.criteria import SelectionCriteria as CoreCriteria
from gatewright.selection.decision import Requirements
from gatewright.selection.profiles import ModelProfile
from gatewright_library.models import ModelConfig, SelectionCriteria, to_core_criteria, to_profile
from gatewright_library.tasks import prompt_tokens, task_name

EXPECTED_ANSWER_TOKENS: Final = 256
"""For comparing models, and as room in their context."""


@frozen
class SelectionResult:
    """A choice, and why.

    Attributes:
        selected_model: Who is to do the task.
        config: What is known of that model.
        reason: One line for people.
        confidence: 0 to 1: how sure the choice is, from how far the second is behind and how much is known.
        fallback_chain: Whom to ask if that model fails, in this order.
        estimated_cost: US dollars.
        complexity: How hard the task was thought to be.
        relaxed: Criteria that were given up because no model met all, in this order.
    """

    selected_model: str
    config: ModelConfig | None = None
    reason: str = ""
    confidence: float = 0.8
    fallback_chain: Sequence[str] = field(factory=list, hash=False)
    estimated_cost: float = 0.0
    complexity: TaskComplexity | None = None
    relaxed: Sequence[str] = field(factory=list, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "selected_model": self.selected_model,
            "config": None if self.config is None else self.config.to_dict(),
            "reason": self.reason,
            "confidence": self.confidence,
            "fallback_chain": list(self.fallback_chain),
            "estimated_cost": self.estimated_cost,
            "complexity": None if self.complexity is None else self.complexity.value,
            "relaxed": list(self.relaxed),
        }


def requirements_of(
    task: object, inputs: object, criteria: SelectionCriteria, estimate: ComplexityEstimate | None
) -> Requirements:
    """What a task needs of a model."""
    tokens = prompt_tokens(task, inputs)
    return Requirements(
        prompt_tokens=tokens,
        answer_tokens=EXPECTED_ANSWER_TOKENS,
        need_tokens=tokens + EXPECTED_ANSWER_TOKENS,
        task=task_name(task),
        complexity=estimate,
        criteria=to_core_criteria(criteria),
    )


def rank_models(
    requirements: Requirements | CoreCriteria | SelectionCriteria,
    available: Mapping[str, ModelConfig] | Iterable[ModelConfig | ModelProfile],
) -> list[tuple[str, float]]:
    """Names and scores, 0 to 1, of all models that meet the criteria, the best first, by what their profiles say.

    Args:
        requirements: What is needed.
        available: The models; those that are not enabled are left out.
    """
    match requirements:
        case SelectionCriteria():
            requirements = Requirements(criteria=to_core_criteria(requirements))
        case CoreCriteria():
            requirements = Requirements(criteria=requirements)
        case Requirements():
            pass
    models = available.values() if isinstance(available, Mapping) else available
    profiles = [
        to_profile(model) if isinstance(model, ModelConfig) else model
        for model in models
        if not isinstance(model, ModelConfig) or model.enabled
    ]
    return choosing.rank_available(requirements, profiles)
