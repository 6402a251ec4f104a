from typing import Any

import pytest

from gatewright.configuration.schema import read_config
from gatewright.errors import ConfigError
from gatewright.route_config import (
    BudgetFailure,
    ExperienceConfig,
    StoreConfig,
)
from tests.support.routes import MODELS, read


def store(**fields: Any) -> StoreConfig:
    return read_config({"server": {}, "models": list(MODELS), "store": fields}).store


def test_the_store():
    assert store() == StoreConfig() == read().store
    assert store(
        url="postgresql+psycopg://u:p@host/db",
        enabled=False,
        prompts=True,
        retention_days=False,
        when_unavailable="closed",
    ) == StoreConfig(
        url="postgresql+psycopg://u:p@host/db",
        enabled=False,
        prompts=True,
        retention_days=None,
        when_unavailable=BudgetFailure.CLOSED,
    )


@pytest.mark.parametrize(
    "url", ["postgres-secret", "mysql://u:secret@h/d", "sqlite secret://", "http://[secret"]
)
def test_a_url_that_is_not_allowed_is_never_shown(url):
    with pytest.raises(ConfigError) as caught:
        store(url=url)
    (problem,) = caught.value.problems
    assert problem.startswith("store.url: got a string, expected a URL such as")
    assert "secret" not in problem


def test_a_store_that_is_not_allowed():
    with pytest.raises(ConfigError) as caught:
        store(retention_days=0, when_unavailable="shut", keep=True)
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "store.keep",
        "store.retention_days",
        "store.when_unavailable",
    ]


def experience(**fields: Any) -> ExperienceConfig:
    return read_config({"server": {}, "models": list(MODELS), "experience": fields}).experience


def test_experience():
    assert experience() == ExperienceConfig() == read().experience
    assert experience(half_life_days=0.5).half_life_s == 43_200


@pytest.mark.parametrize("days", [0, -1, False, "30", float("inf")])
def test_a_half_life_that_is_not_allowed(days):
    with pytest.raises(ConfigError) as caught:
        experience(half_life_days=days, half_life=30)
    unknown, problem = caught.value.problems
    assert unknown == 'experience.half_life: unknown field; did you mean "half_life_days"?'
    assert problem.startswith("experience.half_life_days: got ")
    assert problem.endswith(", expected a number of days above 0")
