"""The ledger against an exact model, under any interleaving of what its owners do, and of their deaths."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from gatewright.accounting.spending import Charge
from gatewright.events import SpendRefused, SpendReserved
from gatewright.ids import RequestId
from gatewright_host.store import Store, tables
from gatewright_host.store.owners import EXPIRY_S
from tests.host.store.conftest import MakeUrl
from tests.host.store.stored import NOON_S, Clock, charge, ended, reserving, written

HOUR_S = 3600
BUCKET_S = 30
CENT = 10_000_000
"""In nano-dollars."""
BUDGETS = (
    charge(0.50, "everyone", period="hour"),
    charge(0.30, "key", period="hour", rolling=True),
    charge(0.20, "soft", period="hour", hard=False),
)
SOME_BUDGETS = st.sets(st.sampled_from(range(len(BUDGETS))), min_size=1)
LIMITS = {each.account: round(each.limit_usd * 1e9) for each in BUDGETS}


@define
class Owner:
    """One user of the store, as the model sees it."""

    store: Store
    is_alive: bool = True
    seen_s: float = -math.inf


@define
class Model:
    """What there is, in nano-dollars."""

    reserved: dict[str, tuple[int, int, tuple[str, ...]]] = field(factory=dict)
    """By request: owner, amount, accounts."""
    spent: list[tuple[float, int, tuple[str, ...]]] = field(factory=list)
    excess: list[tuple[float, int, tuple[str, ...]]] = field(factory=list)
    """By how much requests cost more than was reserved for them, and when."""
    ended: set[str] = field(factory=set)
    has_lapsed: bool = False
    """A living owner was silent for so long that what it had reserved went to others."""


def counts(account: str, at_s: float, now_s: float) -> bool:
    """Whether what was spent at a time is in an account's window."""
    if account == "key":
        bucket_end_s = math.floor(at_s / BUCKET_S) * BUCKET_S + BUCKET_S
        return bucket_end_s > now_s - HOUR_S
    return at_s // HOUR_S == now_s // HOUR_S


class LedgerMachine(RuleBasedStateMachine):
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(NOON_S)
        self.owners = [Owner(Store.open(self.url, now=self.clock)) for _ in range(2)]
        self.model = Model()
        self.count = 0

    @initialize()
    def empty(self) -> None:
        with self.owners[0].store._database.writing() as connection:
            for table in ("reservations", "spending", "accounts", "owners", "requests", "rate_uses"):
                connection.execute(delete(tables.metadata.tables[table]))

    def teardown(self) -> None:
        for owner in self.owners:
            owner.store.close()

    # --- the model

    def spent(self, account: str) -> int:
        now_s = self.clock.now_s
        return sum(
            amount
            for at_s, amount, accounts in self.model.spent
            if account in accounts and counts(account, at_s, now_s)
        )

    def reserved(self, account: str) -> int:
        now_s = self.clock.now_s
        return sum(
            amount
            for owner, amount, accounts in self.model.reserved.values()
            if account in accounts and self.owners[owner].seen_s > now_s - EXPIRY_S
        )

    # --- what can happen

    @rule(
        owner=st.integers(0, 1),
        cents=st.lists(st.integers(0, 30), min_size=1, max_size=6),
        budgets=SOME_BUDGETS,
    )
    def reserve(self, owner: int, cents: list[int], budgets: set[int]) -> None:
        for each in cents:
            self.count += 1
            self._reserve(owner, f"r{self.count}", each * CENT, budgets)

    @precondition(lambda self: self.model.reserved or self.model.ended)
    @rule(owner=st.integers(0, 1), which=st.integers(0, 1000), cents=st.integers(0, 30), budgets=SOME_BUDGETS)
    def reserve_again(self, owner: int, which: int, cents: int, budgets: set[int]) -> None:
        """For a request that has something reserved, or has ended."""
        known = [*self.model.reserved, *self.model.ended]
        self._reserve(owner, known[which % len(known)], cents * CENT, budgets)

    def _reserve(self, owner: int, name: str, amount: int, budgets: set[int]) -> None:
        if not self.owners[owner].is_alive:
            owner = 1 - owner
        user = self.owners[owner]
        self.model.reserved.pop(name, None)
        charges = tuple(BUDGETS[each] for each in sorted(budgets))
        fits = name in self.model.ended or all(self._fits(each, amount) for each in charges)
        answer = user.store.reserve(reserving(name, amount / 1e9, *charges))
        assert isinstance(answer, SpendReserved if fits else SpendRefused)
        if isinstance(answer, SpendRefused):
            # Before anybody is refused, those who are gone for good are looked for.
            self._forget_long_gone(owner)
            account = str(answer.problem.details["budget"])
            left = max(LIMITS[account] - self.spent(account) - self.reserved(account), 0)
            assert round(answer.left_usd * 1e9) == left
        elif name not in self.model.ended:
            # Whoever reserves is alive.
            if user.seen_s <= self.clock.now_s - EXPIRY_S / 2:
                user.seen_s = self.clock.now_s
            self.model.reserved[name] = (owner, amount, tuple(each.account for each in charges))

    def _fits(self, budget: Charge, amount: int) -> bool:
        if not budget.hard or amount == 0:
            return True
        return self.spent(budget.account) + self.reserved(budget.account) + amount <= LIMITS[budget.account]

    @precondition(lambda self: self.model.reserved)
    @rule(which=st.integers(0, 1000), cost=st.integers(0, 35), times=st.integers(1, 2))
    def settle(self, which: int, cost: int, times: int) -> None:
        name = list(self.model.reserved)[which % len(self.model.reserved)]
        owner, reserved, accounts = self.model.reserved[name]
        if not self.owners[owner].is_alive:
            return
        del self.model.reserved[name]
        charges = tuple(each for each in BUDGETS if each.account in accounts)
        record = written(ended(name, cost * CENT / 1e9, *charges), self.clock.now_s)
        for _ in range(times):
            self.owners[owner].store.write([record])
        self.model.spent.append((self.clock.now_s, cost * CENT, accounts))
        self.model.excess.append((self.clock.now_s, max(cost * CENT - reserved, 0), accounts))
        self.model.ended.add(name)

    @precondition(lambda self: self.model.reserved)
    @rule(which=st.integers(0, 1000))
    def release(self, which: int) -> None:
        name = list(self.model.reserved)[which % len(self.model.reserved)]
        owner, *_ = self.model.reserved.pop(name)
        self.owners[owner].store.release(RequestId(name))

    @precondition(lambda self: self.owners[0].is_alive and self.owners[1].is_alive)
    @rule(owner=st.integers(0, 1))
    def die(self, owner: int) -> None:
        """It says nothing any more; its process looks alive, so that only the heartbeat tells."""
        self.owners[owner].is_alive = False

    @precondition(lambda self: not (self.owners[0].is_alive and self.owners[1].is_alive))
    @rule()
    def come_back(self) -> None:
        """Another process takes the place of a dead one."""
        owner = 0 if not self.owners[0].is_alive else 1
        self.owners.append(self.owners[owner])
        gone = len(self.owners) - 1
        self.model.reserved = {
            name: (gone if whose == owner else whose, amount, accounts)
            for name, (whose, amount, accounts) in self.model.reserved.items()
        }
        self.owners[owner] = Owner(Store.open(self.url, now=self.clock))

    @rule(by_s=st.sampled_from([1, 8, 14, 16, 40, 3000, 3585, 3620]))
    def time_passes(self, by_s: int) -> None:
        self.clock.advance(by_s)
        holders = {owner for owner, _, _ in self.model.reserved.values()}
        self.model.has_lapsed |= any(
            owner.is_alive and number in holders and owner.seen_s <= self.clock.now_s - EXPIRY_S
            for number, owner in enumerate(self.owners)
        )

    @rule()
    def heartbeats(self) -> None:
        for owner in self.owners[:2]:
            if owner.is_alive:
                owner.store.heartbeat()
                owner.seen_s = self.clock.now_s

    @rule()
    def clean(self) -> None:
        """Deletes what the long dead had reserved, and nothing that counts."""
        self.owners[0].store.clean_ledger()
        self._forget_long_gone(0)

    def _forget_long_gone(self, whoever_looks: int) -> None:
        long_gone = {
            number
            for number, owner in enumerate(self.owners)
            if number != whoever_looks and owner.seen_s <= self.clock.now_s - 10 * EXPIRY_S
        }
        self.model.reserved = {
            name: held for name, held in self.model.reserved.items() if held[0] not in long_gone
        }

    # --- what must always hold

    @invariant()
    def balances_balance(self) -> None:
        uses = {use.account: use for use in self.owners[0].store.budget_use()}
        for account in LIMITS:
            use = uses.get(account)
            spent, reserved = (0, 0) if use is None else (use.spent_usd, use.reserved_usd)
            assert round(spent * 1e9) == self.spent(account), account
            assert round(reserved * 1e9) == self.reserved(account), account

    @invariant()
    def no_more_is_spent_than_estimates_were_wrong_by(self) -> None:
        if self.model.has_lapsed:
            return
        now_s = self.clock.now_s
        for budget in BUDGETS:
            if budget.hard:
                account = budget.account
                excess = sum(
                    amount
                    for at_s, amount, accounts in self.model.excess
                    if account in accounts and counts(account, at_s, now_s)
                )
                assert self.spent(account) + self.reserved(account) <= LIMITS[account] + excess


@contextmanager
def at(url: str) -> Iterator[type[LedgerMachine]]:
    Store.open(url).close()
    yield type("Machine", (LedgerMachine,), {"url": url})


def test_balances_balance_whatever_happens(make_url: MakeUrl) -> None:
    url = make_url()
    examples = 40 if url.startswith("sqlite") else 10
    with at(url) as machine:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
