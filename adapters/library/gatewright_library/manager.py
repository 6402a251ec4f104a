"""A register of models, from which the best one that can do something is had."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gatewright.errors import CapabilityNotSupported, GatewrightError, ModelNotFound
from gatewright.selection.catalogue import Catalogue
from gatewright.selection.choosing import NoModelFits, choose
from gatewright_library.models import ModelConfig, SelectionCriteria, models_by_name, to_profile
from gatewright_library.selection import requirements_of

_ABILITIES: Final = frozenset({"capabilities", "features"})


class NoSuitableModel(ModelNotFound):
    """Of the models that there are, if any, none may be chosen, or none meets the criteria.

    Args:
        message: Who failed on what, one line.
    """

    def __init__(self, message: str) -> None:
        GatewrightError.__init__(self, message, param="model")


class ModelManager:
    """A register of models. May be used from any thread.

    Args:
        models: Models by name, or models; None for `DEFAULT_MODELS`.
    """

    def __init__(self, models: Mapping[str, ModelConfig] | Iterable[ModelConfig] | None = None) -> None:
        self._lock = threading.Lock()  # over changes; what is read is never changed, but replaced
        self._models: dict[str, ModelConfig] = models_by_name(models)

    @property
    def models(self) -> dict[str, ModelConfig]:
        """The models by name, as they are now."""
        return dict(self._models)

    def register_model(self, model: ModelConfig, *, replace: bool = False) -> None:
        """Add a model.

        Args:
            model: The model.
            replace: Whether it may take the place of one of the same name.

        Raises:
            ValueError: There is one of this name.
        """
        with self._lock:
            if model.name in self._models and not replace:
                raise ValueError(
                    f"Model '{model.name}' is registered already; pass replace=True to replace it"
                )
            self._models = {**self._models, model.name: model}

    def remove_model(self, name: str) -> ModelConfig:
        """Take a model away.

        Raises:
            ModelNotFound: There is none of this name.
        """
        with self._lock:
            if name not in self._models:
                raise ModelNotFound(name)
            self._models = dict(self._models)
            return self._models.pop(name)

    def list_models(
        self, *, capability: str | None = None, tag: str | None = None, only_enabled: bool = False
    ) -> list[ModelConfig]:
        """Models by name.

        Args:
            capability: Only those with this capability.
            tag: Only those with this tag.
            only_enabled: Only those that may be selected.
        """
        return [
            model
            for _, model in sorted(self._models.items())
            if (capability is None or capability in model.capabilities)
            and (tag is None or tag in model.tags)
            and (model.enabled or not only_enabled)
        ]

    def get_model(
        self,
        requirements: SelectionCriteria | Sequence[str] | str | None = None,
        *,
        task: object = "",
        inputs: object = None,
    ) -> ModelConfig:
        """The best model that meets all requirements; none is given up.

        Args:
            requirements: Criteria, or capabilities, or the name of a model; None for any model.
            task: What it is for.
            inputs: Of the task: they must have room in the model's context.

        Raises:
            ModelNotFound: There is no model of this name, or none that meets the criteria (`NoSuitableModel`).
            CapabilityNotSupported: No model has the capabilities and features.
        """
        models = self._models
        if isinstance(requirements, str):
            if requirements not in models:
                raise ModelNotFound(requirements)
            return models[requirements]
        if not isinstance(requirements, SelectionCriteria):
            requirements = SelectionCriteria(
                required_capabilities=list(requirements or ()),
                max_cost_per_1k_tokens=None,
                max_latency_ms=None,
                min_quality_threshold=None,
            )
        catalogue = Catalogue(to_profile(model) for model in models.values() if model.enabled)
        needs = requirements_of(task, inputs, requirements, None)
        decided = choose(needs, catalogue)
        if not isinstance(decided, NoModelFits):
            return models[decided.chain[0]]
        failed_on = {rejection.criterion for rejection in decided.rejections}
        if failed_on and failed_on <= _ABILITIES:
            raise CapabilityNotSupported(decided.problem.message)
        raise NoSuitableModel(decided.problem.message)
