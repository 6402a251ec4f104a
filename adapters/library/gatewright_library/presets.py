"""Choices that know nothing of earlier calls: among the presets, by what is known of them beforehand."""

from functools import lru_cache
from typing import Final

from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.values import adjusted_quality
from gatewright_library.models import DEFAULT_MODEL, DEFAULT_MODELS, estimate_cost
from gatewright_library.selector import ModelSelector

_GOOD_ENOUGH: Final = 0.6
"""Chance of success at a level of complexity from which on a cheaper model is preferred to a better one."""
_USUAL_TOKENS: Final = (1000, 256)
"""Of prompt and answer, to compare prices by."""


def select_model(task_name: str, inputs: object = None, default: str = DEFAULT_MODEL) -> str:
    """The one of `DEFAULT_MODELS` that suits a task best, by what is known of them beforehand.

    Args:
        task_name: The task: its name, or anything else that `ModelSelector.select` takes.
        inputs: Values by name, or one value.
        default: Model to which equal ones are preferred.
    """
    return _static_selector(default).select(task_name, inputs)


def get_model_for_complexity(level: TaskComplexity | str, default: str = DEFAULT_MODEL) -> str:
    """The cheapest of `DEFAULT_MODELS` that is good enough for tasks of a level; the best one if none is.

    Models for harder levels are at least as good as those for easier ones.

    Args:
        level: How hard the tasks are.
        default: For levels that there are not.
    """
    try:
        complexity = TaskComplexity(level)
    except ValueError:
        return default
    models = [model for model in DEFAULT_MODELS.values() if model.enabled]
    good = [model for model in models if adjusted_quality(model.quality_score, complexity) >= _GOOD_ENOUGH]
    if good:
        return min(good, key=lambda model: (estimate_cost(model, _USUAL_TOKENS), model.name)).name
    return max(models, key=lambda model: (model.quality_score, -estimate_cost(model, _USUAL_TOKENS))).name


@lru_cache(maxsize=16)
def _static_selector(default: str) -> ModelSelector:
    return ModelSelector(default_model=default, enable_learning=False)
