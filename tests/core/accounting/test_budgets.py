"""Whose accounts a request is charged to, and which of them are used up."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gatewright.accounting.budgets import charges_of, is_counted, key_of, used_up
from gatewright.accounting.spending import BudgetConfig, BudgetScope, KeyFacts

TAGS = ("eu", "small")
KEY = KeyFacts(key_id="k1", name="ci", budget_usd=1.0)
OWNERS = {
    BudgetScope.EVERYONE: (None,),
    BudgetScope.KEY: (None, "ci", "k1", "other"),
    BudgetScope.MODEL: (None, "m", "other"),
    BudgetScope.ROUTE: (None, "auto", "other"),
    BudgetScope.TAG: (None, "eu", "us"),
}
ACCOUNTS = (
    "a",
    "b",
    "a/key=ci",
    "b/key=k1",
    "a/model=m",
    "b/model=other",
    "b/route=auto",
    "a/tag=eu",
    "b/tag=small",
    "key/k1",
)


@st.composite
def budgets(draw: st.DrawFn) -> tuple[BudgetConfig, ...]:
    found = []
    for name in ("a", "b"):
        scope = draw(st.sampled_from(BudgetScope))
        owner = draw(st.sampled_from(OWNERS[scope]))
        found.append(BudgetConfig(name=name, limit_usd=1.0, scope=scope, of=owner, hard=draw(st.booleans())))
    return tuple(found)


@given(
    budgets(),
    st.frozensets(st.sampled_from(ACCOUNTS)),
    st.tuples(st.sampled_from(("m", "other")), st.sampled_from(((), ("eu",), TAGS))),
    st.sampled_from((None, "auto")),
    st.sampled_from((None, KEY, evolve(KEY, budget_usd=None))),
)
def test_a_model_is_out_of_budget_if_one_of_its_hard_charges_is(
    limits: tuple[BudgetConfig, ...],
    accounts: frozenset[str],
    model: tuple[str, tuple[str, ...]],
    route: str | None,
    key: KeyFacts | None,
) -> None:
    name, tags = model
    charges = charges_of(limits, model=name, tags=tags, route=route, key=key)
    expected = {charge.account for charge in charges if charge.hard} & accounts
    found = used_up(limits, accounts, route=route, key=key).account_of(name, tags)
    assert found in expected if expected else found is None


@pytest.mark.parametrize(
    ("account", "counts"),
    [
        ("all", True),
        ("all/key=ci", False),
        ("each", False),
        ("each/key=k1", True),
        ("each/model=qwen", False),
        ("dear/tag=expensive", True),
        ("dear/tag=cheap", False),
        ("gone", False),
        ("key/key_1", False),
    ],
)
def test_accounts_count_while_there_is_their_budget(account, counts):
    budgets = (
        BudgetConfig(name="all", limit_usd=1.0),
        BudgetConfig(name="each", limit_usd=1.0, scope=BudgetScope.KEY),
        BudgetConfig(name="dear", limit_usd=1.0, scope=BudgetScope.TAG, of="expensive"),
    )
    assert is_counted(account, budgets) is counts


def test_keys_of_one_name_have_a_budget_each_and_a_new_name_is_no_new_budget() -> None:
    each = (BudgetConfig(name="each", limit_usd=1.0, scope=BudgetScope.KEY),)
    named = (BudgetConfig(name="named", limit_usd=1.0, scope=BudgetScope.KEY, of="ci"),)
    one, other = evolve(KEY, budget_usd=None), evolve(KEY, key_id="k2", budget_usd=None)

    def accounts(budgets: tuple[BudgetConfig, ...], key: KeyFacts) -> list[str]:
        return [charge.account for charge in charges_of(budgets, model="m", key=key)]

    assert [accounts(each, key) for key in (one, other)] == [["each/key=k1"], ["each/key=k2"]]
    assert accounts(each, evolve(one, name="new")) == ["each/key=k1"]
    assert [accounts(named, key) for key in (one, other)] == [["named/key=ci"]] * 2
    assert accounts((evolve(named[0], of="k2"),), other) == ["named/key=k2"]


@pytest.mark.parametrize(
    ("account", "key_id"),
    [
        ("each/key=k1", "k1"),
        ("key/k1", "k1"),
        ("each/model=k1", None),
        ("all", None),
        ("a/b/key=config:1", "config:1"),
    ],
)
def test_whose_account_it_is(account: str, key_id: str | None) -> None:
    assert key_of(account) == key_id
