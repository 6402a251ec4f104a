"""Budgets as people and programs are shown them: what the store has of them, and what the configuration says."""

from collections.abc import Iterable, Sequence

from attrs import evolve

from gatewright.accounting.budgets import charges_of, is_counted, key_account, key_of
from gatewright.accounting.keys import StoredKey, is_configured_key
from gatewright.accounting.spending import BudgetConfig, BudgetScope
from gatewright_host.store.vocabulary import BudgetUse


def budget_overview(
    uses: Iterable[BudgetUse], budgets: Sequence[BudgetConfig] | None, keys: Iterable[StoredKey]
) -> list[BudgetUse]:
    """All accounts by name; those that count no longer, since their budget or key was removed, come last.

    The store keeps an account for as long as what was spent on it may be asked for, which is longer than there is a budget.
    Of budgets of everyone there is always one, also where nothing was spent yet.

    Args:
        uses: What the store has.
        budgets: Of the configuration; None if there is no configuration that could tell.
        keys: All keys, which may have budgets of their own.
    """
    keys = tuple(keys)
    of_keys = {key_account(key.id) for key in keys if key.budget_usd is not None}
    names = {key.id: key.name for key in keys}
    found = {}
    for use in uses:
        is_live = use.account in of_keys or budgets is None or is_counted(use.account, budgets)
        key_id = key_of(use.account)
        is_gone = key_id is not None and key_id not in names and not is_configured_key(key_id)
        name = names.get(key_id or "", "")
        found[use.account] = evolve(use, configured=is_live and not is_gone, key_name=name)
    of_everyone = [budget for budget in budgets or () if budget.scope is BudgetScope.EVERYONE]
    for charge in charges_of(of_everyone, model=""):
        found.setdefault(charge.account, BudgetUse.untouched(charge))
    return sorted(found.values(), key=lambda use: (not use.configured, use.account))
