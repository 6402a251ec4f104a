"""The table `registry` of the configuration."""

from typing import Any

import pytest

from gatewright.configuration.schema import read_config
from gatewright.errors import ConfigError
from gatewright.route_config import RegistryConfig
from tests.support.routes import MODELS, read


def registry(fields: Any) -> RegistryConfig:
    return read_config({"server": {}, "models": list(MODELS), "registry": fields}).registry


def problems(fields: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        registry(fields)
    return caught.value.problems


def test_nothing_is_allowed_unless_it_is_said():
    assert registry({}) == registry({"api_key_env": {}}) == read().registry == RegistryConfig()


def test_variables_have_one_url_or_several():
    urls = ["https://a.example.com/v1/", "https://b.example.com"]
    assert registry({"api_key_env": {"B_KEY": urls, "A_KEY": "http://127.0.0.1:9"}}).api_key_env == (
        ("A_KEY", "http://127.0.0.1:9"),
        ("B_KEY", "https://a.example.com"),
        ("B_KEY", "https://b.example.com"),
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([1], "registry: got a list, expected a table with named fields"),
        ({"api_keys": {}}, 'registry.api_keys: unknown field; did you mean "api_key_env"?'),
        (
            {"api_key_env": ["A_KEY"]},
            (
                "registry.api_key_env: got a list, expected a table of URLs by variable, such as "
                '{ EXAMPLE_API_KEY = "https://api.example.com/v1" }'
            ),
        ),
        (
            {"api_key_env": {"A_KEY": True}},
            (
                "registry.api_key_env.A_KEY[1]: got true, expected an http or https URL such as "
                '"https://api.example.com/v1"'
            ),
        ),
        (
            {"api_key_env": {"sk-secret": "https://a.example.com"}},
            (
                "registry.api_key_env: one of the names is not the name of an environment variable, such as "
                '"OPENAI_API_KEY"'
            ),
        ),
    ],
)
def test_what_is_not_allowed(fields, problem):
    assert problems(fields) == (problem,)
