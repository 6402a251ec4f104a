"""What may be a name, and names that one part of the configuration uses for another: models by name or alias."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from attrs import frozen

from gatewright.config import ModelConfig
from gatewright.configuration.reader import Place, Scalar, hint, usable_text

_LONGEST_NAME: Final = 200


def _name(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        return None
    return value if value.isprintable() and value == value.strip() else None


NAME: Final = Scalar(f"a name of 1 to {_LONGEST_NAME} printable characters, without spaces around it", _name)
"""The one rule for names of models and aliases, wherever they come from: the file, the registry, callers of the library."""


def owners_of_names(models: Iterable[ModelConfig]) -> Mapping[str, str]:
    """Every name and alias, and the name of the model that it means."""
    owners: dict[str, str] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if name:
                owners.setdefault(name, model.name)
    return owners


@frozen
class ModelName:
    """A model by name or alias; reads as the model's name.

    Attributes:
        owners: From `owners_of_names`.
        routes: Names of routes, which are no models.
    """

    owners: Mapping[str, str]
    routes: Collection[str] = ()

    @property
    def expected(self) -> str:
        """What is allowed."""
        return "the name of a model"

    def read(self, value: object, place: Place) -> str | None:
        """The model's name."""
        name = usable_text(value)
        if name is None:
            place.refuse(value, self.expected)
            return None
        owner = self.owners.get(name)
        if owner is not None:
            return owner
        if name in self.routes:
            place.refuse(value, f"{self.expected}; this is a route")
        elif self.owners:
            place.refuse(value, f"{self.expected}; {hint(name, self.owners)}")
        return name if not self.owners else None
