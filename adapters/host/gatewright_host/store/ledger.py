"""Money: reserved before a call, settled after it, given back where nothing came of it.

All amounts are whole nano-dollars. A reservation counts for as long as its owner lives; what is spent is counted in
buckets of time (`windows`). Whoever reserves locks its accounts (all of SQLite, the accounts' rows on PostgreSQL), so
that two who look at the same account never both take what is left of it.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
)

from gatewright.accounting.spending import Charge, Window, WindowKind
from gatewright.commands import ReserveSpend
from gatewright.errors import BudgetExceeded
from gatewright.events import SpendRefused, SpendReserved
from gatewright.ids import RequestId
from gatewright_host.store import limits, owners, windows
from gatewright_host.store.tables import NANO, accounts, requests, reservations, spending
from gatewright_host.store.tables import owners as owner_rows
from gatewright_host.store.upserts import insertion
from gatewright_host.store.vocabulary import BudgetUse

_SEEN_EVERY_S: Final = 86_400.0
_CENT: Final = 0.01
_MOST_NANO: Final = 2**56
"""Of one amount, some 72 million dollars: sums of these fit every database."""
_ACCOUNTS_AT_A_TIME: Final = 500


@frozen
class _Use:
    """What is used of one account, in nano-dollars."""

    charge: Charge
    limit: int
    spent: int
    reserved: int

    @property
    def left(self) -> int:
        return self.limit - self.spent - self.reserved


def to_nano(usd: float, *, up: bool = False) -> int:
    """US dollars as nano-dollars; anything below 0, or no number, is 0."""
    if not usd > 0:
        return 0
    exact = min(usd, _MOST_NANO / NANO) * NANO
    return math.ceil(exact) if up else round(exact)


def reserve(
    connection: Connection, command: ReserveSpend, me: owners.Owner, now_s: float
) -> SpendReserved | SpendRefused:
    """Reserve an amount on all of a request's accounts, or on none; what it had reserved before is given up either way.

    A refusal for money counts as one of its key's requests of the minute all the same: the request was made.
    """
    connection.execute(delete(reservations).where(reservations.c.request_id == command.request_id))
    ended = select(requests.c.request_id).where(requests.c.request_id == command.request_id)
    if connection.execute(ended).first() is not None:
        # Its client has gone in the meantime: nobody would ever settle what is reserved now.
        return SpendReserved(command_id=command.command_id)
    if command.key is not None:
        problem = limits.check(connection, command.key, command.request_id, command.amount_tokens, now_s)
        if problem is not None:
            return SpendRefused(command_id=command.command_id, problem=problem, is_rate=True)
    elif command.amount_tokens:
        limits.correct(connection, command.request_id, command.amount_tokens)
    charges = {charge.account: charge for charge in command.charges}
    if not charges:
        return SpendReserved(command_id=command.command_id)
    _lock(connection, charges, now_s)
    amount = to_nano(command.amount_usd, up=True)
    uses = _uses(connection, charges, now_s)
    if _first_refusal(uses, amount) is not None and owners.sweep(connection, me, now_s):
        uses = _uses(connection, charges, now_s)
    refusal = _first_refusal(uses, amount)
    if refusal is not None:
        return _refused(connection, command, refusal, amount, now_s)
    if not owners.is_known(connection, me.owner, now_s):
        owners.heartbeat(connection, me, now_s)
    row = {"request_id": command.request_id, "owner": me.owner, "amount_nano": amount, "at_s": now_s}
    connection.execute(insert(reservations), [{**row, "account": account} for account in charges])
    return SpendReserved(command_id=command.command_id, warnings=_warnings(uses, amount))


def release(connection: Connection, request_id: RequestId) -> None:
    """Give up what is reserved for a request."""
    connection.execute(delete(reservations).where(reservations.c.request_id == request_id))
    limits.correct(connection, request_id, 0)


@frozen(kw_only=True)
class Settlement:
    """What one request has cost on one account.

    Attributes:
        charge: The account.
        at_s: When it ended.
        amount_nano: What it cost.
        tokens: What it took.
    """

    charge: Charge
    at_s: float
    amount_nano: int
    tokens: int


def settle(connection: Connection, settlements: Sequence[Settlement], ended: Sequence[RequestId]) -> None:
    """Count what requests have cost, in the place of what they had reserved.

    Args:
        connection: In a transaction.
        settlements: Of requests that were not settled before.
        ended: All requests that reserve nothing any more.
    """
    sums: dict[tuple[str, int], tuple[int, int, int]] = {}
    for settlement in settlements:
        place = (settlement.charge.account, windows.bucket_of(settlement.charge.window, settlement.at_s))
        amount, tokens, count = sums.get(place, (0, 0, 0))
        sums[place] = (amount + settlement.amount_nano, tokens + settlement.tokens, count + 1)
    charged = {settlement.charge.account: settlement.charge for settlement in settlements}
    if sums:
        _make_known(connection, charged, max(settlement.at_s for settlement in settlements))
        rows = insertion(connection, spending)
        new = rows.excluded
        # In the order of their names, so that two who settle on PostgreSQL never wait for each other.
        connection.execute(
            rows.on_conflict_do_update(
                index_elements=["account", "start_s"],
                set_={
                    "amount_nano": spending.c.amount_nano + new.amount_nano,
                    "tokens": spending.c.tokens + new.tokens,
                    "requests": spending.c.requests + new.requests,
                },
            ),
            [
                {
                    "account": account,
                    "start_s": start,
                    "amount_nano": amount,
                    "tokens": tokens,
                    "requests": count,
                }
                for (account, start), (amount, tokens, count) in sorted(sums.items())
            ],
        )
    if ended:
        connection.execute(delete(reservations).where(reservations.c.request_id.in_(ended)))


def budget_use(
    connection: Connection, now_s: float, names: Sequence[str] | None = None
) -> tuple[BudgetUse, ...]:
    """How much of each account is used; see `Store.budget_use`."""
    if names is None:
        names = connection.execute(select(accounts.c.account)).scalars().all()
    found = []
    for start in range(0, len(names), _ACCOUNTS_AT_A_TIME):
        some = names[start : start + _ACCOUNTS_AT_A_TIME]
        found += [_budget_use(row, now_s) for row in connection.execute(_USE, _parameters(some, now_s))]
    return tuple(sorted(found, key=lambda use: use.account))


def _budget_use(row: Any, now_s: float) -> BudgetUse:
    window = Window(kind=WindowKind(row.kind), period=row.period)
    oldest = int(row.oldest) or windows.bucket_of(window, now_s)
    return BudgetUse(
        account=row.account,
        limit_usd=row.limit_nano / NANO,
        window=window,
        hard=row.hard,
        warn_at=row.warn_at,
        spent_usd=int(row.spent) / NANO,
        reserved_usd=int(row.reserved) / NANO,
        requests=int(row.requests),
        tokens=int(row.tokens),
        starts_s=windows.starts_s(window, now_s),
        ends_s=windows.expires_s(window, oldest, now_s),
    )


def _lock(connection: Connection, charges: dict[str, Charge], now_s: float) -> None:
    """Keep others from these accounts until the transaction's end, and write down what limits they have now."""
    known = {
        row.account: row
        for row in connection.execute(
            select(accounts)
            .where(accounts.c.account.in_(sorted(charges)))
            .order_by(accounts.c.account)
            .with_for_update()
        )
    }
    changed = []
    for account, charge in sorted(charges.items()):
        values = _limits_of(charge)
        row = known.get(account)
        is_same = row is not None and all(getattr(row, name) == value for name, value in values.items())
        if row is None or not is_same or row.seen_s < now_s - _SEEN_EVERY_S:
            changed.append({"account": account, **values, "seen_s": now_s})
    if changed:
        rows = insertion(connection, accounts)
        updated = {name: rows.excluded[name] for name in changed[0] if name != "account"}
        connection.execute(rows.on_conflict_do_update(index_elements=["account"], set_=updated), changed)


def _limits_of(charge: Charge) -> dict[str, object]:
    return {
        "limit_nano": to_nano(charge.limit_usd),
        "kind": charge.window.kind.value,
        "period": charge.window.period,
        "hard": charge.hard,
        "warn_at": charge.warn_at,
    }


def _make_known(connection: Connection, charges: dict[str, Charge], now_s: float) -> None:
    """Accounts on which nobody ever reserved: the store could not be asked, and what was spent shows up now."""
    rows = insertion(connection, accounts)
    connection.execute(
        rows.on_conflict_do_nothing(),
        [
            {"account": account, **_limits_of(charge), "seen_s": now_s}
            for account, charge in sorted(charges.items())
        ],
    )


def _uses(connection: Connection, charges: dict[str, Charge], now_s: float) -> list[_Use]:
    return [
        _Use(charges[row.account], row.limit_nano, int(row.spent), int(row.reserved))
        for row in connection.execute(_LEFT, _parameters(sorted(charges), now_s))
    ]


_WINDOWS: Final = {
    f"{kind.value}_{period}": Window(kind=kind, period=period)
    for kind in WindowKind
    for period in windows.PERIODS_S
}


def _parameters(names: Sequence[str], now_s: float) -> dict[str, object]:
    """What the two statements below want to know."""
    starts = {name: windows.first_bucket(window, now_s) for name, window in _WINDOWS.items()}
    return {"names": list(names), "alive_s": now_s - owners.EXPIRY_S, **starts}


def _sum(column: ColumnElement[Any], over: Any = func.sum) -> ColumnElement[Any]:
    """What an account's window holds of a column of its spending."""
    starts = [
        (
            and_(accounts.c.kind == window.kind.value, accounts.c.period == window.period),
            bindparam(name, type_=BigInteger),
        )
        for name, window in _WINDOWS.items()
    ]
    return (
        select(func.coalesce(over(column), 0))
        .where(spending.c.account == accounts.c.account, spending.c.start_s >= case(*starts, else_=0))
        .correlate(accounts)
        .scalar_subquery()
    )


_RESERVED: Final = (
    select(func.coalesce(func.sum(reservations.c.amount_nano), 0))
    .join(owner_rows, owner_rows.c.owner == reservations.c.owner)
    .where(reservations.c.account == accounts.c.account, owner_rows.c.seen_s > bindparam("alive_s"))
    .correlate(accounts)
    .scalar_subquery()
)
_IS_NAMED: Final = accounts.c.account.in_(bindparam("names", expanding=True))

# In one statement: on PostgreSQL each has a view of its own, and what is settled between two of them would be seen twice
# or not at all. Put together once, since that takes longer than to execute it.
_LEFT: Final = select(
    accounts.c.account,
    accounts.c.limit_nano,
    _sum(spending.c.amount_nano).label("spent"),
    _RESERVED.label("reserved"),
).where(_IS_NAMED)
_USE: Final = select(
    accounts,
    _sum(spending.c.amount_nano).label("spent"),
    _sum(spending.c.tokens).label("tokens"),
    _sum(spending.c.requests).label("requests"),
    _sum(spending.c.start_s, func.min).label("oldest"),
    _RESERVED.label("reserved"),
).where(_IS_NAMED)


def _first_refusal(uses: Iterable[_Use], amount: int) -> _Use | None:
    """Of the accounts that do not allow it, the one with the least left. What costs nothing is always allowed."""
    refusing = [use for use in uses if use.charge.hard and amount > max(use.left, 0)]
    return min(refusing, key=lambda use: use.left) if refusing else None


def _refused(
    connection: Connection, command: ReserveSpend, use: _Use, amount: int, now_s: float
) -> SpendRefused:
    resets_s = _resets_s(connection, use, amount, now_s)
    left = max(use.left, 0) / NANO
    until = datetime.fromtimestamp(resets_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    limit = f"{dollars(use.limit / NANO)} for the {_PERIOD_NAMES[use.charge.window.kind]} {use.charge.window.period}"
    needs = f"the call takes about {dollars(amount / NANO)}"
    if amount > use.limit:
        needs += ", more than the whole budget"
    is_reserved = amount <= use.limit - use.spent
    if is_reserved:
        needs += f", while requests under way have reserved {dollars(use.reserved / NANO)}"
    problem = BudgetExceeded(
        f"Budget {use.charge.account!r} ({limit}) does not allow it: {dollars(left)} is left, and {needs}; "
        f"its window ends at {until}",
        budget=use.charge.account,
        resets_at=math.ceil(resets_s),
    ).problem
    return SpendRefused(
        command_id=command.command_id, problem=problem, left_usd=left, is_reserved=is_reserved
    )


_PERIOD_NAMES: Final = {WindowKind.CALENDAR: "calendar", WindowKind.ROLLING: "last"}


def _resets_s(connection: Connection, use: _Use, amount: int, now_s: float) -> float:
    """Unix time at which the account allows the amount again, if nothing more is spent until then."""
    window = use.charge.window
    if window.kind is WindowKind.CALENDAR:
        return windows.expires_s(window, 0, now_s)
    rows = connection.execute(
        select(spending.c.start_s, spending.c.amount_nano)
        .where(
            spending.c.account == use.charge.account,
            spending.c.start_s >= windows.first_bucket(window, now_s),
        )
        .order_by(spending.c.start_s)
    )
    left = use.left
    for row in rows:
        left += row.amount_nano
        if left >= amount:
            return windows.expires_s(window, row.start_s, now_s)
    # Reservations are in the way: what becomes of them has expired when a whole window is over.
    return now_s + windows.PERIODS_S[window.period]


def _warnings(uses: Iterable[_Use], amount: int) -> tuple[str, ...]:
    """One line for each account that comes near its limit, this request included."""
    told = []
    for use in uses:
        used = use.spent + use.reserved + amount
        if used > use.limit:
            told.append(f"{use.charge.account}: over its limit of {dollars(use.limit / NANO)}")
        elif use.limit and used >= use.charge.warn_at * use.limit:
            share = math.floor(100 * used / use.limit)
            told.append(f"{use.charge.account}: {share} % of {dollars(use.limit / NANO)} used")
    return tuple(told)


def dollars(usd: float) -> str:
    """An amount for people."""
    if usd >= _CENT or usd == 0:
        return f"${usd:.2f}"
    return f"${usd:.9f}".rstrip("0")
