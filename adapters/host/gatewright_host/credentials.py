"""The keys of providers: read from the environment when a call is made, and missed in time."""

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Final

from gatewright.config import Config, ModelConfig

logger: Final = logging.getLogger("gatewright.gateway")

_MOST_NAMED: Final = 5
_LONGEST_UNUSUAL_NAME: Final = 16
_SHOWN_CHARACTERS: Final = 4

_told: Final[set[str]] = set()
"""Variables that the log has complained of: once is enough. Only those of the configuration and the known providers come here."""


def credential(variable: str | None, env: Mapping[str, str] = os.environ) -> str | None:
    """The key in a variable; None if none is wanted, or none is there, which is logged once.

    Args:
        variable: Environment variable; None where the provider wants no key.
        env: The environment.
    """
    if variable is None:
        return None
    value = env.get(variable, "")
    if value.strip():
        return value
    if variable not in _told:
        _told.add(variable)
        logger.warning("%s (api_key_env) is not set: calls go out without a key", _shown(variable))
    return None


def unset_variable(model: ModelConfig, env: Mapping[str, str] = os.environ) -> str | None:
    """The variable that a model names and this environment does not have, in words; None if it misses none."""
    for spec in model.variants:
        if spec.api_key_env is not None and not env.get(spec.api_key_env, "").strip():
            return _shown(spec.api_key_env)
    return None


def missing_credentials(config: Config, env: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Variables that models name and this environment does not have, one line each.

    Args:
        config: The configuration. Its models name a variable where they want one, or where their provider always does.
        env: The environment.
    """
    users: dict[str, list[str]] = {}
    for model in config.models:
        for variable in dict.fromkeys(spec.api_key_env for spec in model.variants):
            if variable is not None and not env.get(variable, "").strip():
                users.setdefault(variable, []).append(model.name)
    for variable, models in users.items():
        more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
        who = "it is" if len(models) == 1 else "they are"
        yield (
            f"{', '.join(models[:_MOST_NAMED])}{more}: api_key_env: {_shown(variable)} is not set in this environment: "
            f"{who} called without a key"
        )


def _shown(variable: str) -> str:
    """A variable's name; the beginning of what looks like the key itself, which somebody may have put there."""
    if variable == variable.upper() or len(variable) <= _LONGEST_UNUSUAL_NAME:
        return f"the environment variable {variable}"
    return f"the environment variable {variable[:_SHOWN_CHARACTERS]}…"
