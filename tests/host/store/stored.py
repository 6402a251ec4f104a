"""Short ways to say what the tests of the store say again and again."""

import itertools
from typing import Any

from gatewright.accounting.spending import Charge, KeyFacts, Window, WindowKind
from gatewright.commands import Outcome, RecordRequest, ReserveSpend
from gatewright.events import SpendRefused, SpendReserved
from gatewright.ids import CommandId, RequestId
from gatewright_host.store import BudgetUse, Store, Written

NOON_S = 1_767_700_800.0
"""2026-01-06 12:00:00 UTC, a Tuesday."""
_command_ids = itertools.count(1)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now_s: float = NOON_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, by_s: float) -> None:
        self.now_s += by_s


def charge(
    limit_usd: float = 1.0,
    account: str = "monthly",
    *,
    period: str = "month",
    rolling: bool = False,
    hard: bool = True,
    warn_at: float = 0.8,
) -> Charge:
    kind = WindowKind.ROLLING if rolling else WindowKind.CALENDAR
    return Charge(
        account=account,
        limit_usd=limit_usd,
        window=Window(kind=kind, period=period),
        hard=hard,
        warn_at=warn_at,
    )


def reserving(
    request_id: str, amount_usd: float, *charges: Charge, tokens: int = 0, key: KeyFacts | None = None
) -> ReserveSpend:
    return ReserveSpend(
        command_id=CommandId(next(_command_ids)),
        request_id=RequestId(request_id),
        charges=charges,
        amount_usd=amount_usd,
        amount_tokens=tokens,
        key=key,
    )


def reserve(
    store: Store,
    request_id: str,
    amount_usd: float,
    *charges: Charge,
    tokens: int = 0,
    key: KeyFacts | None = None,
) -> SpendReserved | SpendRefused:
    return store.reserve(reserving(request_id, amount_usd, *charges, tokens=tokens, key=key))


def ended(request_id: str, cost_usd: float = 0.0, *charges: Charge, **fields: Any) -> RecordRequest:
    return RecordRequest(
        request_id=RequestId(request_id),
        outcome=fields.pop("outcome", Outcome.ANSWERED),
        path=fields.pop("path", "/v1/chat/completions"),
        cost_usd=cost_usd,
        charges=charges,
        charged_usd={each.account: cost_usd for each in charges},
        **fields,
    )


def written(record: RecordRequest, at_s: float = NOON_S, **fields: Any) -> Written:
    return Written(record=record, at_s=at_s, gateway_epoch_s=fields.pop("epoch_s", NOON_S - 1000), **fields)


def settle(
    store: Store, request_id: str, cost_usd: float, *charges: Charge, at_s: float = NOON_S, **fields: Any
) -> None:
    store.write([written(ended(request_id, cost_usd, *charges, **fields), at_s)])


def use_of(store: Store, account: str = "monthly") -> BudgetUse:
    (use,) = store.budget_use([account])
    return use
