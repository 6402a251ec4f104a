"""The configuration file's schema: plain values in, a `Config` out, or every problem at once.

What the values come from (Lua, a test, another format) is not known here; `docs/config.md` describes every field.
"""

from collections.abc import Mapping
from typing import Any, Final

from gatewright.config import Config, LogFormat, LogLevel, ServerConfig
from gatewright.configuration.budgets import BUDGET_FIELDS, read_budgets
from gatewright.configuration.calls import CALL_TIMEOUT_FIELDS
from gatewright.configuration.criteria import CRITERIA_FIELDS, WEIGHT_FIELDS
from gatewright.configuration.engines import (
    MODEL_FIELDS,
    REMOTE_FIELDS,
    TIMEOUT_FIELDS,
    VARIANT_FIELDS,
    read_timeouts,
)
from gatewright.configuration.estimators import ESTIMATOR_FIELDS
from gatewright.configuration.experiments import ARM_FIELDS, EXPERIMENT_FIELDS
from gatewright.configuration.listen import LISTEN_FIELDS, read_listeners
from gatewright.configuration.models import MARGIN_FIELDS, TOKENIZATION_FIELDS, read_models
from gatewright.configuration.reader import (
    COUNT,
    FLAG,
    SECONDS,
    TEXT,
    Kind,
    ListOf,
    Place,
    Scalar,
    Secret,
    TableOf,
    one_of,
    usable_text,
)
from gatewright.configuration.registry import REGISTRY_FIELDS, read_registry
from gatewright.configuration.routes import (
    FALLBACK_FIELDS,
    JUDGE_FIELDS,
    ROUTE_FIELDS,
    check_default_model,
    read_routes,
)
from gatewright.configuration.store import EXPERIENCE_FIELDS, STORE_FIELDS, read_experience, read_store
from gatewright.configuration.suspicions import config_warnings, misspelt_globals
from gatewright.configuration.transforms import TRANSFORM_FIELDS
from gatewright.configuration.windows import WINDOW_FIELDS
from gatewright.errors import ConfigError

__all__ = ["FIELD_NAMES", "GLOBALS", "SERVER_SETTINGS", "config_warnings", "misspelt_globals", "read_config"]


GLOBALS: Final = ("server", "models", "routes", "budgets", "store", "experience", "registry")
"""What a configuration consists of."""


def _host_name(value: object) -> str | None:
    text = usable_text(value)
    return None if text is None or any(c.isspace() or c == "/" for c in text) else text


SERVER_SETTINGS: Final[Mapping[str, tuple[str, Kind[object]]]] = {
    "api_keys": ("api_keys", Secret(ListOf(TEXT))),
    "open": ("open", FLAG),
    "allowed_hosts": ("allowed_hosts", ListOf(Scalar("a host name without scheme and path", _host_name))),
    "max_head_bytes": ("max_head_bytes", COUNT),
    "max_body_bytes": ("max_body_bytes", COUNT),
    "max_waiting": ("max_waiting", COUNT),
    "max_connections": ("max_connections", COUNT),
    "max_wait_s": ("max_wait_s", SECONDS),
    "queue_timeout": ("queue_timeout_s", SECONDS),
    "head_timeout": ("head_timeout_s", SECONDS),
    "body_timeout": ("body_timeout_s", SECONDS),
    "keep_alive_timeout": ("keep_alive_timeout_s", SECONDS),
    "stall_timeout": ("stall_timeout_s", SECONDS),
    "shutdown_timeout": ("shutdown_timeout_s", SECONDS),
    "state_dir": ("state_dir", TEXT),
    "log_level": ("log_level", one_of(LogLevel)),
    "log_format": ("log_format", one_of(LogFormat)),
    "default_model": ("default_model", TEXT),
    "dumps_dir": ("dumps_dir", TEXT),
    "clear_dumps_on_start": ("clear_dumps_on_start", FLAG),
}
"""Server fields that hold one setting each: the name of their attribute in `ServerConfig`, and what they may hold."""

FIELD_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "server": (*LISTEN_FIELDS, *TIMEOUT_FIELDS, *SERVER_SETTINGS),
    "model": tuple(dict.fromkeys((*MODEL_FIELDS, "variants", *VARIANT_FIELDS, *REMOTE_FIELDS))),
    "variant": VARIANT_FIELDS,
    "tokenization": TOKENIZATION_FIELDS,
    "margin": MARGIN_FIELDS,
    "timeouts": CALL_TIMEOUT_FIELDS,
    "route": ROUTE_FIELDS,
    "criteria": CRITERIA_FIELDS,
    "weights": WEIGHT_FIELDS,
    "estimator": ESTIMATOR_FIELDS,
    "fallback": FALLBACK_FIELDS,
    "transform": TRANSFORM_FIELDS,
    "experiment": EXPERIMENT_FIELDS,
    "arm": ARM_FIELDS,
    "judge": JUDGE_FIELDS,
    "budget": BUDGET_FIELDS,
    "window": WINDOW_FIELDS,
    "store": STORE_FIELDS,
    "experience": EXPERIENCE_FIELDS,
    "registry": REGISTRY_FIELDS,
}
"""Every field of every table, for whoever documents or completes them."""


def read_config(raw: Mapping[str, object]) -> Config:
    """Validate the configuration.

    Args:
        raw: The globals `server`, `models`, `routes`, `budgets`, `store`, `experience` and `registry` as nested
            dicts, lists, strings, numbers and booleans. Others are not looked at: a configuration file is a program and
            has variables of its own.

    Returns:
        The configuration, its paths as written. `server.listen` is empty if every listener is "none", which is
        for whoever serves to refuse; `gw-cli` needs none.

    Raises:
        ConfigError: Something is not allowed; its `problems` name every such field.
    """
    problems: list[str] = []
    server = _read_server(raw.get("server"), Place("server", problems))
    models = read_models(raw.get("models"), Place("models", problems), server.timeouts)
    routes = read_routes(raw.get("routes"), Place("routes", problems), models)
    budgets = read_budgets(raw.get("budgets"), Place("budgets", problems), models, routes)
    store = read_store(raw.get("store"), Place("store", problems))
    experience = read_experience(raw.get("experience"), Place("experience", problems))
    registry = read_registry(raw.get("registry"), Place("registry", problems))
    check_default_model(server.default_model, models, routes, Place("server.default_model", problems))
    if problems:
        raise ConfigError(tuple(problems))
    return Config(
        server=server,
        models=models,
        routes=routes,
        budgets=budgets,
        store=store,
        experience=experience,
        registry=registry,
    )


def _read_server(value: object, place: Place) -> ServerConfig:
    if value is None:
        place.refuse(None, "a global table; server = {} takes every default")
    table = None if value is None else TableOf("a table with named fields").read(value, place)
    if table is None:
        return ServerConfig()
    table.expect_only(FIELD_NAMES["server"], {})
    settings: dict[str, Any] = {}
    for name, (attribute, kind) in SERVER_SETTINGS.items():
        setting = table.find(name, kind)
        if setting is not None:
            settings[attribute] = setting
    timeouts = read_timeouts(table, ServerConfig().timeouts)
    return ServerConfig(listen=read_listeners(table), timeouts=timeouts, **settings)
