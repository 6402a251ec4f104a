"""Whose accounts a request is charged to."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from gatewright.accounting.spending import BudgetConfig, BudgetScope, Charge, KeyFacts

_OF_MODELS: Final = frozenset({BudgetScope.MODEL, BudgetScope.TAG})
"""Budgets that depend on who answers."""


def charges_of(
    budgets: Sequence[BudgetConfig],
    *,
    model: str,
    tags: Iterable[str] = (),
    route: str | None = None,
    key: KeyFacts | None = None,
) -> tuple[Charge, ...]:
    """The accounts on which a request to a model counts.

    Args:
        budgets: All budgets of the configuration.
        model: Who is to answer.
        tags: That model's tags.
        route: Route that the request named.
        key: Its API key, whose own budget counts as well.
    """
    charges = []
    # By its id: several keys may have one name, and to rename a key is not to forget what it has spent.
    owners = {
        BudgetScope.EVERYONE: (),
        BudgetScope.KEY: () if key is None else (key.key_id,),
        BudgetScope.MODEL: (model,),
        BudgetScope.ROUTE: () if route is None else (route,),
        BudgetScope.TAG: tuple(sorted(tags)),
    }
    for budget in budgets:
        if budget.scope is BudgetScope.EVERYONE:
            charges.append(_charge(budget, budget.name))
            continue
        if budget.of is None:
            charges.extend(_charge(budget, account_name(budget, owner)) for owner in owners[budget.scope])
        elif budget.of in owners[budget.scope] or (
            budget.scope is BudgetScope.KEY and key is not None and budget.of == key.name
        ):
            charges.append(_charge(budget, account_name(budget, budget.of)))
    if key is not None and key.budget_usd is not None:
        charges.append(
            Charge(account=key_account(key.key_id), limit_usd=key.budget_usd, window=key.budget_window)
        )
    return tuple(charges)


@frozen
class UsedUp:
    """What is used up of the hard budgets that one request counts on.

    Attributes:
        everywhere: Account that it counts on whoever answers; None if none of these is used up.
        models: Accounts by name of the model that would count on them.
        tags: The same by tag.
    """

    everywhere: str | None
    models: Mapping[str, str]
    tags: Mapping[str, str]

    def account_of(self, model: str, tags: Collection[str]) -> str | None:
        """An account that is used up and on which a call of this model would count."""
        account = self.everywhere or self.models.get(model)
        if account is not None or self.tags.keys().isdisjoint(tags):
            return account
        return self.tags[min(self.tags.keys() & set(tags))]


def used_up(
    budgets: Sequence[BudgetConfig], accounts: Collection[str], *, route: str | None, key: KeyFacts | None
) -> UsedUp:
    """Find what is used up for one request, without a look at each model.

    Args:
        budgets: All budgets of the configuration.
        accounts: Names of all accounts that are used up.
        route: Route that the request named.
        key: Its API key.
    """
    shared = [budget for budget in budgets if budget.scope not in _OF_MODELS]
    everywhere = [
        charge.account
        for charge in charges_of(shared, model="", route=route, key=key)
        if charge.hard and charge.account in accounts
    ]
    found: dict[BudgetScope, dict[str, str]] = {scope: {} for scope in _OF_MODELS}
    for budget in budgets:
        if not budget.hard or budget.scope not in _OF_MODELS:
            continue
        beginning = account_name(budget, "")
        for account in accounts:
            owner = account.removeprefix(beginning)
            if owner != account and budget.of in {None, owner}:
                found[budget.scope].setdefault(owner, account)
    return UsedUp(everywhere[0] if everywhere else None, found[BudgetScope.MODEL], found[BudgetScope.TAG])


def account_name(budget: BudgetConfig, owner: str) -> str:
    """Name of the account of a budget that is not everybody's, such as `monthly/model=qwen`."""
    return f"{budget.name}/{budget.scope}={owner}"


def key_account(key_id: str) -> str:
    """Name of the account of a key's own budget."""
    return f"key/{key_id}"


def key_of(account: str) -> str | None:
    """Id of the key whose account it is; None of other accounts, and of those of budgets that name a key."""
    _, _, owner = account.rpartition("/")
    key_id = owner.removeprefix(f"{BudgetScope.KEY}=")
    return key_id if key_id != owner or account == key_account(owner) else None


def is_counted(account: str, budgets: Iterable[BudgetConfig]) -> bool:
    """Whether a request may still be charged to the account by one of these budgets.

    Args:
        account: Name of an account that some request was charged to.
        budgets: All budgets of the configuration.
    """
    return any(
        account == budget.name
        if budget.scope is BudgetScope.EVERYONE
        else account == account_name(budget, budget.of)
        if budget.of is not None
        else account.startswith(account_name(budget, ""))
        for budget in budgets
    )


def _charge(budget: BudgetConfig, account: str) -> Charge:
    return Charge(
        account=account,
        limit_usd=budget.limit_usd,
        window=budget.window,
        hard=budget.hard,
        warn_at=budget.warn_at,
    )
