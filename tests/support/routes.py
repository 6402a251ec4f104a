"""Configurations with routes, and what becomes of them."""

from typing import Any

import pytest

from gatewright.config import Config
from gatewright.configuration.schema import config_warnings, read_config
from gatewright.errors import ConfigError
from gatewright.route_config import RouteConfig
from tests.support.configs import local_model, remote_model

MODELS = (
    remote_model(name="big", aliases=["gpt"], input_per_million=2.5, output_per_million=10, tags=["eu"]),
    remote_model(name="small", input_per_million=0.15, output_per_million=0.6),
    local_model(),
)


def read(*models: dict[str, Any], **routes: Any) -> Config:
    return read_config({"server": {}, "models": list(models or MODELS), "routes": routes})


def route(**fields: Any) -> RouteConfig:
    (found,) = read(auto=fields).routes
    return found


def problems(**fields: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(auto=fields)
    assert all("\n" not in line for line in caught.value.problems)
    return list(caught.value.problems)


def only_problem(**fields: Any) -> str:
    (problem,) = problems(**fields)
    return problem


def warnings(*models: dict[str, Any], **fields: Any) -> tuple[str, ...]:
    return config_warnings(read(*models, auto=fields))
