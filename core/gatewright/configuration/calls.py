"""What a model's table says about calls that fail: who is asked next, how often, and how long each may take."""

from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from gatewright.api.facts import Continuation
from gatewright.config import CallTimeouts, ModelConfig
from gatewright.configuration.reader import (
    SECONDS,
    ListOf,
    Place,
    Scalar,
    Table,
    TableOf,
    as_list,
    hint,
    real,
    usable_text,
    whole,
)
from gatewright.selection.fallback import MOST_RETRIES

CALL_FIELDS: Final = ("fallbacks", "retries", "max_attempts", "timeouts", "prefill")
"""Fields of a model of any engine type that are about failing upstreams."""

CALL_TIMEOUT_FIELDS: Final = ("connect", "head", "first_token", "between_chunks", "total")

MOST_FALLBACKS: Final = 8
MOST_ATTEMPTS: Final = 32

_REMOTE_RETRIES: Final = 2
_LOCAL_RETRIES: Final = 1
_LOCAL_TIMEOUTS: Final = CallTimeouts()
"""An engine that still reads a long prompt is silent and well; whether it lives is found out in other ways."""
_REMOTE_TIMEOUTS: Final = CallTimeouts(
    head_s=300.0, first_token_s=30.0, between_chunks_s=30.0, total_s=1800.0
)
_REMOTE_TIMEOUTS_BEFORE_FALLBACKS: Final = evolve(
    _REMOTE_TIMEOUTS, head_s=60.0, first_token_s=10.0, between_chunks_s=20.0
)
"""Somebody else can be asked, and need not be kept waiting."""

_MODEL: Final = Scalar("the name of a model", usable_text)
_RETRIES: Final = whole(f"a whole number of retries, at most {MOST_RETRIES} (0 for none)", 0, MOST_RETRIES)
_ATTEMPTS: Final = whole(f"a whole number of calls, 1 to {MOST_ATTEMPTS}", 1, MOST_ATTEMPTS)
_SECONDS_OR_OFF: Final = real("a number of seconds above 0, or false for no limit", lambda number: number > 0)
_SPELLINGS: Final = {
    continuation.value: continuation
    for continuation in (Continuation.PREFIX, Continuation.CONTINUE_FINAL_MESSAGE)
}


def read_calls(model: ModelConfig, table: Table) -> ModelConfig:
    """The model with what its table says about calls; its name and engine type are read already.

    Whether its fallbacks exist is for `check_fallbacks`, once all models are read.
    """
    model = evolve(model, fallbacks=table.get("fallbacks", ListOf(_MODEL), ()))
    return evolve(
        model,
        retries=table.get("retries", _RETRIES, _REMOTE_RETRIES if model.is_remote else _LOCAL_RETRIES),
        max_attempts=table.find("max_attempts", _ATTEMPTS),
        timeouts=table.get("timeouts", _TimeoutsKind(default_timeouts(model)), default_timeouts(model)),
        prefill=_read_prefill(table, is_remote=model.is_remote),
    )


def default_timeouts(model: ModelConfig) -> CallTimeouts:
    """Timeouts of a model with this engine type and these fallbacks where its table names none."""
    if not model.is_remote:
        return _LOCAL_TIMEOUTS
    return _REMOTE_TIMEOUTS_BEFORE_FALLBACKS if model.fallbacks else _REMOTE_TIMEOUTS


@frozen
class _TimeoutsKind:
    """Limits in seconds; those that are not given are the default's."""

    default: CallTimeouts
    expected: str = "a table such as { first_token = 10, total = 600 }"

    def read(self, value: object, place: Place) -> CallTimeouts | None:
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(CALL_TIMEOUT_FIELDS, {})
        return CallTimeouts(
            connect_s=table.get("connect", SECONDS, self.default.connect_s),
            head_s=_limit(table, "head", self.default.head_s),
            first_token_s=_limit(table, "first_token", self.default.first_token_s),
            between_chunks_s=_limit(table, "between_chunks", self.default.between_chunks_s),
            total_s=_limit(table, "total", self.default.total_s),
        )


def _limit(table: Table, name: str, default: float | None) -> float | None:
    if table.values.get(name) is False:
        return None
    given = table.find(name, _SECONDS_OR_OFF)
    return default if given is None else given


def _read_prefill(table: Table, *, is_remote: bool) -> Continuation | None:
    usual = Continuation.ASSISTANT if is_remote else Continuation.LLAMACPP
    default = None if is_remote else usual
    if table.values.get("prefill") is False:
        return None

    def accept(value: object) -> Continuation | None:
        if value is True:
            return usual
        return _SPELLINGS.get(value.lower()) if isinstance(value, str) else None

    names = " or ".join(f'"{name}"' for name in _SPELLINGS)
    return table.get("prefill", Scalar(f"true, false, {names}", accept), default)


def check_fallbacks(models: Sequence[ModelConfig], tables: Sequence[Table]) -> None:
    """Note fallbacks that are nobody, the model itself, or somebody who is asked already.

    Args:
        models: All models.
        tables: The table of each.
    """
    owners: dict[str, int] = {}
    for number, model in enumerate(models):
        for name in (model.name, *model.aliases):
            if name:
                owners.setdefault(name, number)
    for number, table in enumerate(tables):
        _check_fallbacks_of(number, table, owners)


def _check_fallbacks_of(number: int, table: Table, owners: dict[str, int]) -> None:
    place = table.place.field("fallbacks")
    fallbacks = as_list(table.values.get("fallbacks")) or []
    if len(fallbacks) > MOST_FALLBACKS:
        place.report(f"{len(fallbacks)} models; expected at most {MOST_FALLBACKS}")
    others = [name for name, owner in owners.items() if owner != number]
    asked: dict[int, str] = {}
    for position, value in enumerate(fallbacks, 1):
        name, item = usable_text(value), place.item(position)
        if name is None:
            continue  # noted already
        owner = owners.get(name)
        if owner is None:
            item.refuse(
                name, f"the name of another model; {hint(name, others) if others else 'there is none'}"
            )
        elif owner == number:
            item.report(f'"{name}" is the model itself; expected the name of another model')
        elif owner in asked:
            item.report(f'"{name}" is the same model as {asked[owner]}')
        else:
            asked[owner] = item.path
