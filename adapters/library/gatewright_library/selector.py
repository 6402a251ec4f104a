"""Choosing models for tasks, and learning from how they did."""

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from attrs import evolve, frozen

from gatewright.accounting.experience import Experience
from gatewright.route_config import FallbackPolicy, RouteConfig
from gatewright.selection.beliefs import Chance
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.choosing import NoModelFits, choose
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.criteria import WEIGHTS, Prefer, Relaxation, ScoringWeights
from gatewright.selection.decision import Decision, Exploration, Requirements
from gatewright_library.checks import expect_words, word_of
from gatewright_library.complexity import (
    ComplexityEstimator,
    estimate_with,
    heuristic_complexity_estimator,
    heuristic_estimate,
)
from gatewright_library.experience_store import ExperienceStore
from gatewright_library.fallback import FallbackChain, FallbackStrategy
from gatewright_library.manager import NoSuitableModel
from gatewright_library.models import (
    DEFAULT_MODEL,
    DEFAULT_MODELS,
    ModelConfig,
    SelectionCriteria,
    estimate_cost,
    models_by_name,
    to_profile,
)
from gatewright_library.selection import SelectionResult, requirements_of
from gatewright_library.tasks import as_inputs, task_description, task_name

RELAXATION: Final = (
    Relaxation.LATENCY,
    Relaxation.COST,
    Relaxation.QUALITY,
    Relaxation.CAPABILITIES,
)
"""Where no model meets all criteria, they are given up in this order until one does."""
_MOST_RANKED: Final = 32
"""Models that strategies may look at beyond a chain."""
_MOST_TASKS: Final = 1024
"""Tasks of which is remembered how hard they were."""


@frozen
class _SeenTask:
    """A task that a model was selected for.

    Attributes:
        name: Its name.
        docstring: What it says of itself.
        complexity: How hard it was the last time.
    """

    name: str
    docstring: str
    complexity: TaskComplexity


@frozen(eq=False)
class _Arranged:
    """Models as they are chosen among.

    Attributes:
        given: All models, as they were.
        models: Those of them that may be chosen.
        catalogue: The same for the core.
    """

    given: dict[str, ModelConfig]
    models: Mapping[str, ModelConfig]
    catalogue: Catalogue


class ModelSelector:
    """Chooses models for tasks. May be used from any thread.

    Args:
        experience_store: What is known of earlier calls; None for that of the user's home directory, which is made with
            the first call that is recorded.
        models: Models by name, or models; None for `DEFAULT_MODELS`.
        default_model: Part of every chain with room for it.
        enable_learning: Whether calls are recorded, and earlier ones count.
        complexity_estimator: Says how hard a task is; None counts over its text.
        required_tags: Models without all of these are never chosen, whatever else is given up.
        weights: What counts how much in the choice; a preset or its name, or figures of one's own.
        exploration: How the choice treats what it does not know, or its name.
        chance: Random numbers, for Thompson sampling.

    Attributes:
        models: Models by name; may be changed at any time.
        default_model: As given; it need not be one of `models`.
        enable_learning: As given.
    """

    def __init__(  # noqa: PLR0917  # callers of older libraries pass them by position
        self,
        experience_store: ExperienceStore | None = None,
        models: Mapping[str, ModelConfig] | Iterable[ModelConfig] | None = None,
        default_model: str = DEFAULT_MODEL,
        enable_learning: bool = True,
        complexity_estimator: ComplexityEstimator | None = None,
        required_tags: Sequence[str] | None = None,
        *,
        weights: ScoringWeights | Prefer | str = Prefer.BALANCED,
        exploration: Exploration | str = Exploration.GREEDY,
        chance: Chance | None = None,
    ) -> None:
        self.models: dict[str, ModelConfig] = models_by_name(models)
        self.default_model = default_model
        self.enable_learning = enable_learning
        self.experience_store = experience_store or ExperienceStore()
        self._estimator = complexity_estimator
        expect_words(required_tags, "ModelSelector: required_tags")
        self._required_tags = frozenset(required_tags or ())
        if not isinstance(weights, ScoringWeights):
            weights = WEIGHTS[word_of(Prefer, weights, "ModelSelector: weights")]
        self._weights = weights
        explores = word_of(Exploration, exploration, "ModelSelector: exploration") is Exploration.THOMPSON
        self._chance: Chance | None = (chance or random.Random()) if explores else None  # noqa: S311  # no secret
        self._lock = threading.Lock()  # over what is below
        self._arranged = _Arranged({}, {}, Catalogue(()))
        self._seen: OrderedDict[str, _SeenTask] = OrderedDict()

    # --- choosing

    def select(self, task: object, inputs: object = None, criteria: SelectionCriteria | None = None) -> str:
        """The model that suits a task best, by its name in `models`.

        Args:
            task: Anything with a `name` and a `docstring` or `description`, a function, or a name.
            inputs: Values by name, or one value.
            criteria: Conditions; None for those of `SelectionCriteria()`.

        Raises:
            ModelNotFound: No model is enabled and has the required tags.
        """
        return self.select_with_details(task, inputs, criteria).selected_model

    def select_with_details(
        self, task: object, inputs: object = None, criteria: SelectionCriteria | None = None
    ) -> SelectionResult:
        """The same, and why."""
        return self.plan(task, inputs, criteria)[0]

    def get_fallback_chain(self, task: object, inputs: object = None, max_length: int = 3) -> FallbackChain:
        """Models in the order in which they are to be asked.

        Args:
            task: Anything with a `name` and a `docstring` or `description`, a function, or a name.
            inputs: Values by name, or one value.
            max_length: Models at most; the default model is the last of them where there is room for two and it is not
                among the better ones.

        Raises:
            ModelNotFound: No model is enabled and has the required tags.
        """
        return self.plan(task, inputs, max_length=max_length)[1]

    def plan(
        self,
        task: object,
        inputs: object = None,
        criteria: SelectionCriteria | None = None,
        *,
        max_length: int = 3,
        strategies: Sequence[FallbackStrategy] = (),
        max_attempts: int | None = None,
    ) -> tuple[SelectionResult, FallbackChain]:
        """A choice, and what is done if the model fails.

        Args:
            task: The task.
            inputs: Values by name, or one value.
            criteria: Conditions; None for those of `SelectionCriteria()`.
            max_length: Models in the chain, at least 1.
            strategies: What may be done about failures; empty for the usual ones.
            max_attempts: Calls over all models; None leaves that to the strategies.

        Raises:
            ModelNotFound: No model is enabled and has the required tags.
            ValueError: A chain is to have no models.
        """
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}, not at least 1")
        estimate = estimate_with(self._estimator, task, as_inputs(inputs))
        self._remember(task, estimate.complexity)
        models, catalogue = self._candidates()
        requirements = requirements_of(task, inputs, criteria or SelectionCriteria(), estimate)
        decided = self._choose(requirements, catalogue, max(max_length, _MOST_RANKED))
        if isinstance(decided, NoModelFits):
            decided = self._last_resort(decided, models, requirements)
        names = self._with_default(decided.chain, max_length, models)
        result = SelectionResult(
            selected_model=names[0],
            config=models[names[0]],
            reason=decided.reason,
            confidence=decided.confidence,
            fallback_chain=names[1:],
            estimated_cost=decided.estimated_cost_usd,
            complexity=estimate.complexity,
            relaxed=list(decided.relaxed),
        )
        chain = FallbackChain(
            strategies,
            max_attempts,
            models=names,
            reason=decided.reason,
            others=[name for name in decided.chain if name not in names],
            configs=models,
        )
        return result, chain

    # --- learning

    def record_execution(  # noqa: PLR0917  # as above
        self,
        ptool_name: str,
        model: str,
        inputs: object,
        success: bool,
        latency_ms: float,
        cost: float = 0.0,
        *,
        complexity: TaskComplexity | None = None,
        is_available: bool = True,
    ) -> None:
        """Learn from a call; does nothing where learning is switched off.

        Args:
            ptool_name: Name of the task.
            model: Who was called.
            inputs: Values by name, or one value.
            success: Whether it did the task.
            latency_ms: How long that took, in milliseconds.
            cost: US dollars.
            complexity: How hard the task was thought to be; None where that is to be found out.
            is_available: False where the model could not be reached, which says nothing about its quality.

        Raises:
            StoreError: It cannot be kept.
        """
        if not self.enable_learning:
            return
        self.experience_store.record_execution(
            model,
            ptool_name,
            success,
            latency_ms,
            cost,
            complexity=complexity or self._complexity_of(ptool_name, inputs),
            is_available=is_available,
        )

    # --- how

    def _candidates(self) -> tuple[Mapping[str, ModelConfig], Catalogue]:
        """The models that may be chosen; arranged anew only where `models` has changed."""
        present = self.models.copy()
        with self._lock:
            arranged = self._arranged
            if arranged.given != present:
                chosen = {name: model for name, model in present.items() if self._may_choose(model)}
                catalogue = Catalogue(evolve(to_profile(model), name=name) for name, model in chosen.items())
                arranged = self._arranged = _Arranged(present, chosen, catalogue)
        if not arranged.models:
            raise NoSuitableModel(self._why_nobody(present))
        return arranged.models, arranged.catalogue

    def _why_nobody(self, models: Mapping[str, ModelConfig]) -> str:
        """Why none of the models may be chosen."""
        if not models:
            return "There are no models to choose from: the selector's `models` are empty"
        enabled = [name for name, model in models.items() if model.enabled]
        if not enabled:
            return f"There are no models to choose from: of {', '.join(models)} none is enabled"
        tags = ", ".join(sorted(self._required_tags))
        return (
            f"There are no models to choose from: of {', '.join(enabled)} none has all required tags ({tags})"
        )

    def _may_choose(self, model: ModelConfig) -> bool:
        return model.enabled and self._required_tags.issubset(model.tags)

    def _choose(
        self, requirements: Requirements, catalogue: Catalogue, length: int
    ) -> Decision | NoModelFits:
        route = RouteConfig(name="library", relax=RELAXATION, fallback=FallbackPolicy(max_length=length))
        with self._past() as past:
            return choose(
                requirements,
                catalogue,
                route=route,
                weights=self._weights,
                past=past,
                now=time.time(),
                chance=self._chance,
            )

    @contextmanager
    def _past(self) -> Iterator[Experience | None]:
        if not self.enable_learning:
            yield None
            return
        with self.experience_store.beliefs() as experience:
            yield experience

    def _last_resort(
        self, nobody: NoModelFits, models: Mapping[str, ModelConfig], requirements: Requirements
    ) -> Decision:
        """Whom to ask where no model holds the task, whatever is given up: whoever holds most of it."""
        best = max(models, key=lambda name: (models[name].max_tokens, name == self.default_model, name))
        tokens = (requirements.prompt_tokens, requirements.answer_tokens)
        return Decision(
            chain=(best,),
            reason=f"{best}: the largest context, as a last resort; {nobody.problem.message}",
            estimated_cost_usd=estimate_cost(models[best], tokens),
            relaxed=(*(each.value for each in RELAXATION), "context"),
        )

    def _with_default(
        self, ranked: Sequence[str], max_length: int, models: Mapping[str, ModelConfig]
    ) -> list[str]:
        names = list(ranked[:max_length])
        default = DEFAULT_MODELS.resolve(self.default_model)
        default = self.default_model if self.default_model in models else default
        if default in models and default not in names and max_length > 1:
            names = [*names[: max_length - 1], default]
        return names

    def _remember(self, task: object, complexity: TaskComplexity) -> None:
        name = task_name(task)
        seen = _SeenTask(name, task_description(task), complexity)
        with self._lock:
            self._seen[name] = seen
            self._seen.move_to_end(name)
            if len(self._seen) > _MOST_TASKS:
                self._seen.popitem(last=False)

    def _complexity_of(self, name: str, inputs: object) -> TaskComplexity | None:
        """How hard a task was of which only the name is told: as it was thought to be when a model was selected."""
        with self._lock:
            seen = self._seen.get(name)
        is_usual = self._estimator is None or self._estimator is heuristic_complexity_estimator
        if is_usual and inputs:
            return heuristic_estimate(name if seen is None else seen, inputs).complexity
        return None if seen is None else seen.complexity
