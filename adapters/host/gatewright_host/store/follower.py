"""What a process wants to know of the store's news, as events for its Gateway."""

import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

from attrs import evolve

from gatewright.accounting.keys import KeyBook
from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.events import BudgetsSeen, ExperimentsSet, GatewayEvent, OutcomesLearnt
from gatewright.registry import RegisteredModel
from gatewright_host.store.store import Store
from gatewright_host.store.vocabulary import Cursor, News

MOST_AT_ONCE: Final = 500
"""Outcomes that a Gateway is told of in one event, which takes about 5 ms."""
MOST_OUTCOMES: Final = 20_000
"""So many outcomes of the past are told to a Gateway when it begins."""
Told = TypeVar("Told", ModelOutcome, Feedback)

_BUDGETS_ANYWAY_S: Final = 30.0
"""Windows end by themselves."""


def gateway_epoch_s() -> float:
    """Unix time at which the clock of this process's Gateway stood at 0."""
    return time.time() - time.monotonic()


class Follower:
    """Reads on from where it was; used by one thread.

    Args:
        submit: Told of news.
        on_keys: Told of all API keys, when any has changed.
        on_models: Told of all registered models, when any has changed.
        budgets_s: Seconds between two looks at the budgets.
    """

    def __init__(
        self,
        submit: Callable[[GatewayEvent], None],
        on_keys: Callable[[KeyBook], None],
        on_models: Callable[[tuple[RegisteredModel, ...]], None],
        budgets_s: float,
    ) -> None:
        self._submit = submit
        self._on_keys = on_keys
        self._on_models = on_models
        self._budgets_s = budgets_s
        self._cursor: Cursor | None = None
        self._left_usd: dict[str, float] = {}
        self._budgets_at = -math.inf
        self._has_spent = True

    def look(self, store: Store) -> None:
        """Read what is new, and tell it.

        Raises:
            StoreError: It cannot be read; the next look goes on from the same place.
        """
        # Asked first, so that a change during this look is seen by the next one.
        has_changed = store.has_changed()
        if self._cursor is None:
            self._tell(store, store.first_news(MOST_OUTCOMES))
        elif has_changed:
            self._tell(store, store.news(self._cursor))
        self._has_spent = self._has_spent or has_changed
        self._look_at_budgets(store)

    def _tell(self, store: Store, news: News) -> None:
        if news.models_changed:
            self._on_models(store.models())
        if news.keys_changed:
            self._on_keys(KeyBook(store.keys()))
        if news.experiments_changed:
            self._submit(ExperimentsSet(states=store.experiment_states()))
        if news.outcomes or news.feedback:
            self._tell_outcomes(news)
        self._cursor = news.cursor

    def _tell_outcomes(self, news: News) -> None:
        """A few at a time: whoever takes them in has requests to serve, too."""
        epoch_s = gateway_epoch_s()
        outcomes = [_on_clock(outcome, epoch_s) for outcome in news.outcomes]
        for start in range(0, len(outcomes), MOST_AT_ONCE):
            self._submit(OutcomesLearnt(outcomes=tuple(outcomes[start : start + MOST_AT_ONCE])))
        feedback = [_on_clock(said, epoch_s) for said in news.feedback]
        for start in range(0, len(feedback), MOST_AT_ONCE):
            self._submit(OutcomesLearnt(feedback=tuple(feedback[start : start + MOST_AT_ONCE])))

    def _look_at_budgets(self, store: Store) -> None:
        now = time.monotonic()
        passed_s = now - self._budgets_at
        if passed_s < (self._budgets_s if self._has_spent else _BUDGETS_ANYWAY_S):
            return
        left_usd = {
            use.account: use.left_usd for use in store.budget_use() if use.spent_usd or use.reserved_usd
        }
        self._budgets_at = now
        self._has_spent = False
        if left_usd != self._left_usd:
            self._left_usd = left_usd
            self._submit(BudgetsSeen(left_usd=left_usd))


def _on_clock(told: Told, epoch_s: float) -> Told:
    return evolve(told, at=told.at - epoch_s)
