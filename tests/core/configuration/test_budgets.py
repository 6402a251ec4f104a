from typing import Any

import pytest

from gatewright.accounting.spending import BudgetConfig, BudgetScope, Window, WindowKind
from gatewright.config import Config
from gatewright.configuration.schema import config_warnings, read_config
from gatewright.errors import ConfigError
from tests.support.configs import local_model, remote_model

PRICED = remote_model(aliases=["chat"], input_per_million=1, tags=["eu"])


def read(budgets: Any, *models: dict[str, Any], **more: Any) -> Config:
    return read_config(
        {
            "server": {},
            "models": list(models or (PRICED,)),
            "routes": {"auto": {}},
            "budgets": budgets,
            **more,
        }
    )


def budget(**fields: Any) -> BudgetConfig:
    (found,) = read([{"name": "b", "limit": 5, **fields}]).budgets
    return found


def problems(budgets: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(budgets)
    return caught.value.problems


def test_no_budgets():
    assert read(None).budgets == read([]).budgets == read({}).budgets == ()


def test_a_budget_is_monthly_for_everyone_and_hard():
    assert budget() == BudgetConfig(name="b", limit_usd=5.0)
    assert budget().window == Window(kind=WindowKind.CALENDAR, period="month")


def test_everything_that_a_budget_can_say():
    assert budget(
        limit=0.5, window={"rolling": "Day"}, per="key", of="ci", action="warn", warn_at=1
    ) == BudgetConfig(
        name="b",
        limit_usd=0.5,
        window=Window(kind=WindowKind.ROLLING, period="day"),
        scope=BudgetScope.KEY,
        of="ci",
        hard=False,
        warn_at=1.0,
    )


@pytest.mark.parametrize("period", ["hour", "day", "week", "month"])
def test_calendar_windows(period):
    assert budget(window=period).window == Window(kind=WindowKind.CALENDAR, period=period)


@pytest.mark.parametrize(
    ("per", "of", "found"),
    [
        ("model", "chat", "gpt"),
        ("route", "auto", "auto"),
        ("tag", "anything", "anything"),
        ("key", None, None),
    ],
)
def test_whose_budget_it_is(per, of, found):
    assert budget(per=per, of=of).of == found


def test_budgets_by_name():
    assert read({"a": {"limit": 1}, "b": {"limit": 2}}).budgets == (
        BudgetConfig(name="a", limit_usd=1.0),
        BudgetConfig(name="b", limit_usd=2.0),
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"limit": 0}, "budgets[1].limit: got 0, expected a number of US dollars above 0"),
        ({"limit": None}, "budgets[1].limit: missing; expected a number of US dollars above 0"),
        (
            {"window": "year"},
            'budgets[1].window: got "year", expected "hour" or "day" or "week" or "month"',
        ),
        (
            {"window": {"rolling": 5}},
            'budgets[1].window.rolling: got 5, expected "hour" or "day" or "week" or "month"',
        ),
        ({"warn_at": 80}, "budgets[1].warn_at: got 80, expected a share of the limit above 0, at most 1"),
        ({"action": "stop"}, 'budgets[1].action: got "stop", expected "refuse" or "warn"'),
        (
            {"of": "x"},
            'budgets[1].of: needs to know what it names; expected per = "key", "model", "route" or "tag" beside it',
        ),
        (
            {"per": "model", "of": "gtp"},
            'budgets[1].of: got "gtp", expected the name of a model; did you mean "gpt"?',
        ),
        (
            {"per": "route", "of": "autp"},
            'budgets[1].of: got "autp", expected the name of a route; did you mean "auto"?',
        ),
        (
            {"amount": 5},
            "budgets[1].amount: unknown field; known are action, limit, name, of, per, warn_at, window",
        ),
    ],
)
def test_budgets_that_are_not_allowed(fields, problem):
    assert problems([{"name": "b", "limit": 5, **fields}]) == (problem,)


def test_names_of_budgets():
    assert problems([{"name": "b", "limit": 5}, {"name": "b", "limit": 5}, {"limit": 5}, None]) == (
        'budgets[2].name: "b" is already taken by budgets[1].name',
        "budgets[3].name: missing; expected a name of 1 to 200 printable characters, without spaces around it",
        "budgets[4]: nil in the middle of a list; is a variable's name misspelt?",
    )
    assert problems({"b": {"name": "b", "limit": 5}, "": {"limit": 5}}) == (
        "budgets.b.name: the budget's name stands before the table already",
        'budgets[""]: not a name for a budget; expected a name of 1 to 200 printable characters, without spaces around it',
    )
    assert problems({"key/x": {"limit": 5}}) == (
        'budgets["key/x"]: "key/x" has a slash in it, which separates a budget from whose it is',
    )
    assert problems(5) == (
        'budgets: got 5, expected a list of budgets such as { { name = "monthly", limit = 50 } }',
    )


# --- suspicions

UNPRICED = remote_model(name="free")


@pytest.mark.parametrize(
    ("fields", "models", "warning"),
    [
        ({}, [PRICED], None),
        ({}, [PRICED, local_model()], None),
        (
            {},
            [UNPRICED, local_model()],
            "none of the models that it is about has prices: nothing is ever spent",
        ),
        (
            {},
            [PRICED, UNPRICED],
            "calls of free count nothing: give their input_per_million and output_per_million",
        ),
        ({}, [PRICED, {"name": "own", "provider": "ollama"}], None),
        ({}, [PRICED, {"name": "own", "provider": "vllm", "connect": "http://gpu-box:8000"}], None),
        (
            {},
            [PRICED, remote_model(name="free", connect="http://127.0.0.1:4000")],
            "calls of free count nothing: give their input_per_million and output_per_million",
        ),
        (
            {},
            [{"name": "own", "provider": "ollama"}, local_model()],
            "none of the models that it is about has prices: nothing is ever spent",
        ),
        ({"action": "warn"}, [PRICED, UNPRICED], None),
        ({"per": "model", "of": "gpt"}, [PRICED, UNPRICED], None),
        ({"per": "tag", "of": "eu"}, [PRICED, UNPRICED], None),
        (
            {"per": "route", "of": "auto"},
            [PRICED, UNPRICED],
            "calls of free count nothing: give their input_per_million and output_per_million",
        ),
    ],
)
def test_budgets_that_count_nothing(fields, models, warning):
    config = read([{"name": "b", "limit": 5, **fields}], *models)
    found = [line for line in config_warnings(config) if line.startswith("budgets")]
    assert found == ([] if warning is None else [f"budgets.b: {warning}"])


def test_nobody_counts_without_a_store():
    config = read([{"name": "b", "limit": 5}], store={"enabled": False})
    assert "budgets.b: store.enabled is false: nobody counts what is spent" in config_warnings(config)
