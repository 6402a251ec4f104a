"""The models of the configuration file: their names, and how they are chosen."""

from typing import Final

from attrs import evolve, frozen

from gatewright.api.transforms import Transform
from gatewright.config import EngineKind, Margin, ModelConfig, Tokenization
from gatewright.configuration.calls import check_fallbacks, read_calls
from gatewright.configuration.engines import (
    ARGUMENTS,
    MODEL_FIELDS,
    REMOTE_FIELDS,
    RUN_FIELDS,
    local_variants,
    remote_variant,
)
from gatewright.configuration.names import NAME
from gatewright.configuration.profiles import read_profile
from gatewright.configuration.providers import base_profile, with_preset
from gatewright.configuration.reader import (
    TEXT,
    TOKENS,
    ListOf,
    Place,
    Table,
    TableOf,
    as_list,
    one_of,
    real,
    whole_number,
)
from gatewright.configuration.transforms import TransformKind
from gatewright.engines.spec import PRIMARY_PLACE, EngineTimeouts
from gatewright.selection.profiles import Feature, ModelProfile

TOKENIZATION_FIELDS: Final = ("binary", "base_args", "extra_args", "extra_tokens_per_message", "extra_tokens")
MARGIN_FIELDS: Final = ("ratio", "tokens")

BASE_ARGS: Final = ("--log-disable", "--stdin", "--ids")
"""What makes `llama-tokenize` read standard input and print nothing but token ids."""

_ONLY_REMOTE: Final = "only for engine = presets.engines.openai"
_ONLY_LOCAL: Final = 'engine "openai" runs no program and has no variants; remove it'
_LOCAL_ELSEWHERE: Final = {
    "context": "belongs into a variant; expected variants = { { context = ... } }",
    "upstream_model": _ONLY_REMOTE,
    "api_key_env": _ONLY_REMOTE,
    "provider": _ONLY_REMOTE,
}
_LOCAL_FIELDS: Final = tuple(name for name in MODEL_FIELDS if name not in _LOCAL_ELSEWHERE)
_REMOTE_ELSEWHERE: Final = {
    "variants": f"{_ONLY_LOCAL}; connect, context and upstream_model stand in the model itself",
    **dict.fromkeys(("binary", "args", "env", "work_dir"), _ONLY_LOCAL),
}


_ENGINE: Final = one_of(EngineKind)
_RATIO: Final = real("a share between 0 and 1, such as 0.1", lambda number: 0 <= number <= 1)
_OVERSIZE: Final = real("a number, 1 or more", lambda number: number >= 1)


@frozen
class _MarginKind:
    """A number of tokens, or a share of the prompt and a least number of tokens."""

    expected: str = "a whole number of tokens, or a table { ratio = 0.1, tokens = 512 }"

    def read(self, value: object, place: Place) -> Margin | None:
        number = whole_number(value)
        if number is not None and number >= 0:
            return Margin(ratio=0.0, tokens=number)
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(MARGIN_FIELDS, {})
        default = Margin()
        return Margin(
            ratio=table.get("ratio", _RATIO, default.ratio),
            tokens=table.get("tokens", TOKENS, default.tokens),
        )


@frozen
class _TokenizationKind:
    """A standalone tokenizer."""

    expected: str = "a table such as { binary = ..., extra_args = { ... } }"

    def read(self, value: object, place: Place) -> Tokenization | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(TOKENIZATION_FIELDS, {})
        base = table.get("base_args", ARGUMENTS, BASE_ARGS)
        return Tokenization(
            binary=table.require("binary", TEXT) or "",
            args=base + table.get("extra_args", ARGUMENTS, ()),
            extra_tokens_per_message=table.get("extra_tokens_per_message", TOKENS, 0),
            extra_tokens=table.get("extra_tokens", TOKENS, 0),
        )


def read_models(value: object, place: Place, timeouts: EngineTimeouts) -> tuple[ModelConfig, ...]:
    """The models in the file's order; those with problems may be missing or incomplete."""
    models = TableOf("a model { name = ..., variants = { ... } }")
    if value is None:
        place.refuse(None, "a global list, such as models = { { name = ..., variants = { ... } } }")
        return ()
    tables = ListOf(models).read(value, place) or ()
    if as_list(value) == []:
        place.report("empty; expected at least one model")
    taken: dict[str, str] = {}
    read = tuple(_read_model(table, timeouts, taken) for table in tables)
    check_fallbacks(read, tables)
    return read


def _read_model(table: Table, timeouts: EngineTimeouts, taken: dict[str, str]) -> ModelConfig:
    name = table.require("name", NAME)
    aliases = table.get("aliases", ListOf(NAME), ())
    _take_names(table, taken)
    default = ModelConfig(name=name or "", variants=())
    engine = table.find("engine", _ENGINE)
    if engine is None:  # absent, or refused: then whatever fits what is there
        says_remote = "engine" in table or "provider" in table
        engine = EngineKind.OPENAI if says_remote and "variants" not in table else default.engine
    if engine is EngineKind.OPENAI:
        variants = remote_variant(with_preset(table), default.name, timeouts)
    else:
        place = PRIMARY_PLACE if engine is EngineKind.LLAMACPP else f"secondary:{default.name}"
        variants = local_variants(table, default.name, place, timeouts)
    _expect_fields(table, engine)
    transform = table.find("transform", TransformKind())
    model = evolve(
        default,
        aliases=aliases,
        engine=engine,
        variants=variants,
        transform=transform,
        profile=_read_profile(table, base_profile(table, default.name, engine, variants), transform),
        answer_tokens=table.get("answer_tokens", TOKENS, default.answer_tokens),
        margin=table.get("margin", _MarginKind(), default.margin),
        max_oversize=table.get("max_oversize", _OVERSIZE, default.max_oversize),
        tokenization=table.find("tokenization", _TokenizationKind()),
    )
    return read_calls(model, table)


def _read_profile(table: Table, base: ModelProfile, transform: Transform | None) -> ModelProfile:
    profile = read_profile(table, base)
    if transform is None or not transform.json_instructions:
        return profile
    # What it cannot do by itself, it is told in words.
    return evolve(profile, features=profile.features | {Feature.JSON_MODE, Feature.JSON_SCHEMA})


def _expect_fields(table: Table, engine: EngineKind) -> None:
    if engine is not EngineKind.OPENAI:
        table.expect_only((*_LOCAL_FIELDS, "variants", *RUN_FIELDS), _LOCAL_ELSEWHERE)
        return
    known = (*MODEL_FIELDS, *REMOTE_FIELDS)
    # An empty list of variants says what is true.
    table.expect_only(
        known if as_list(table.values.get("variants")) != [] else (*known, "variants"), _REMOTE_ELSEWHERE
    )


def _take_names(table: Table, taken: dict[str, str]) -> None:
    """Names and aliases are one name space over all models."""
    aliases = as_list(table.values.get("aliases")) or []
    claims = [(table.values.get("name"), table.place.field("name"))]
    claims += [(alias, table.place.field("aliases").item(number)) for number, alias in enumerate(aliases, 1)]
    for claim, place in claims:
        name = NAME.accept(claim)
        if name is None:
            continue  # noted already
        if name in taken:
            place.report(f'"{name}" is already taken by {taken[name]}')
        taken.setdefault(name, place.path)
