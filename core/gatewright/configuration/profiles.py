"""What a model's table says of it for choices between models; the same fields in the configuration file and the registry."""

from enum import StrEnum
from typing import Final

from attrs import evolve, frozen

from gatewright.configuration.reader import (
    TEXT,
    ListOf,
    Place,
    Scalar,
    Table,
    TableOf,
    as_list,
    real,
    usable_text,
)
from gatewright.selection.profiles import Capability, Feature, Modality, ModelProfile, Pricing

PROFILE_FIELDS: Final = (
    "provider",
    "capabilities",
    "features",
    "tags",
    "modalities",
    "input_per_million",
    "output_per_million",
    "cached_input_per_million",
    "engine_hour",
    "quality",
    "quality_by_task",
    "latency_ms",
    "output_tokens_per_s",
    "load_s",
    "description",
)
"""Fields of a model of any kind that are about choosing it."""

_PRICE: Final = real("a price in US dollars, 0 or more", lambda number: number >= 0)
_SHARE: Final = real("a number between 0 and 1, such as 0.8", lambda number: 0 <= number <= 1)
_MILLISECONDS: Final = real("a number of milliseconds above 0", lambda number: number > 0)
_SECONDS: Final = real("a number of seconds, 0 or more", lambda number: number >= 0)
_SPEED: Final = real("a number of tokens in a second above 0", lambda number: number > 0)
_TAG: Final = Scalar(
    "a word of your own without spaces at its ends",
    lambda value: text if (text := usable_text(value)) is not None and text == text.strip() else None,
)


@frozen
class _Words:
    """A list of values of a closed vocabulary; what is not in it belongs into `tags`."""

    vocabulary: type[StrEnum]

    @property
    def expected(self) -> str:
        return "a list of " + ", ".join(f'"{word.value}"' for word in self.vocabulary)

    def read(self, value: object, place: Place) -> frozenset[str] | None:
        items = as_list(value)
        if items is None:
            place.refuse(value, self.expected)
            return None
        words = {word.value: word for word in self.vocabulary}
        found = set()
        for number, item in enumerate(items, 1):
            if item is None:
                place.item(number).report_hole()
            elif isinstance(item, str) and item.lower() in words:
                found.add(words[item.lower()])
            else:
                place.item(number).refuse(
                    item, f"one of {', '.join(words)}; words of your own belong into tags"
                )
        return frozenset(found)


@frozen
class _QualityByTask:
    """Qualities by the names of tasks."""

    expected: str = "a table of qualities by task, such as { translate = 0.9 }"

    def read(self, value: object, place: Place) -> dict[str, float] | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        found = {}
        for task in table.values:
            name = usable_text(task)
            if name is None:
                table.place.field(task).report("a value without a name; expected the name of a task")
                continue
            quality = table.require(name, _SHARE)
            if quality is not None:
                found[name] = quality
        return found


def read_profile(table: Table, base: ModelProfile) -> ModelProfile:
    """A profile with what the table says; what it does not say is the base's.

    Problems are noted at the table's place. Unknown fields are for the caller to refuse, who knows the others.

    Args:
        table: The model's table.
        base: What is known of the model otherwise; its name, context and source stay.
    """
    tags = table.find("tags", ListOf(_TAG))
    modalities = table.find("modalities", _Words(Modality))
    load_s = table.find("load_s", _SECONDS)
    return evolve(
        base,
        provider=table.get("provider", TEXT, base.provider),
        capabilities=table.get("capabilities", _Words(Capability), base.capabilities),
        features=table.get("features", _Words(Feature), base.features),
        tags=base.tags if tags is None else frozenset(tags),
        # Every model takes text; whoever lists pictures does not mean to deny it.
        modalities=base.modalities if modalities is None else modalities | {Modality.TEXT},
        pricing=_read_pricing(table, base.pricing),
        quality=table.get("quality", _SHARE, base.quality),
        quality_by_task=table.get("quality_by_task", _QualityByTask(), base.quality_by_task),
        latency_ms=table.get("latency_ms", _MILLISECONDS, base.latency_ms),
        output_tokens_per_s=table.get("output_tokens_per_s", _SPEED, base.output_tokens_per_s or 0.0) or None,
        load_s=base.load_s if load_s is None else load_s,
        description=table.get("description", TEXT, base.description),
    )


def _read_pricing(table: Table, base: Pricing) -> Pricing:
    cached = table.find("cached_input_per_million", _PRICE)
    return Pricing(
        input_per_million=table.get("input_per_million", _PRICE, base.input_per_million),
        output_per_million=table.get("output_per_million", _PRICE, base.output_per_million),
        cached_input_per_million=base.cached_input_per_million if cached is None else cached,
        engine_hour=table.get("engine_hour", _PRICE, base.engine_hour),
    )


def profile_to_plain(profile: ModelProfile) -> dict[str, object]:
    """The fields of a profile as `read_profile` reads them, without those that have their default."""
    pricing, default = profile.pricing, ModelProfile(name="")
    fields: dict[str, object] = {
        "provider": profile.provider,
        "capabilities": sorted(str(word) for word in profile.capabilities),
        "features": sorted(str(word) for word in profile.features),
        "tags": sorted(str(word) for word in profile.tags),
        "modalities": sorted(str(word) for word in profile.modalities),
        "input_per_million": pricing.input_per_million,
        "output_per_million": pricing.output_per_million,
        "cached_input_per_million": pricing.cached_input_per_million,
        "engine_hour": pricing.engine_hour,
        "quality": profile.quality,
        "quality_by_task": dict(profile.quality_by_task),
        "latency_ms": profile.latency_ms,
        "output_tokens_per_s": profile.output_tokens_per_s,
        "load_s": profile.load_s,
        "description": profile.description,
    }
    left_out: dict[str, object] = {
        "cached_input_per_million": None,
        "engine_hour": default.pricing.engine_hour,
        "quality_by_task": {},
        "output_tokens_per_s": None,
        "load_s": None,
        "description": "",
        "provider": "",
    }
    return {name: value for name, value in fields.items() if name not in left_out or value != left_out[name]}
