"""Configurations as they come from a file, and what becomes of them."""

from typing import Any

import pytest

from gatewright.config import Config
from gatewright.configuration.schema import config_warnings, read_config
from gatewright.errors import ConfigError

PORT_ARGS = ["--port", "${PORT}"]


def variant(**fields: Any) -> dict[str, Any]:
    return {"binary": "llama-server", "args": PORT_ARGS, "context": 4096, **fields}


def local_model(**fields: Any) -> dict[str, Any]:
    return {"name": "qwen", "variants": [variant()], **fields}


def remote_model(**fields: Any) -> dict[str, Any]:
    return {"name": "gpt", "engine": "openai", "connect": "https://api.example.com/v1", **fields}


def read(*models: dict[str, Any], **server: Any) -> Config:
    return read_config({"server": server, "models": list(models or (local_model(),))})


def problems(*models: dict[str, Any], **server: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(*models, **server)
    assert all("\n" not in line for line in caught.value.problems)
    return list(caught.value.problems)


def only_problem(*models: dict[str, Any], **server: Any) -> str:
    (problem,) = problems(*models, **server)
    return problem


def warnings(*models: dict[str, Any], **server: Any) -> tuple[str, ...]:
    return config_warnings(read(*models, **server))
