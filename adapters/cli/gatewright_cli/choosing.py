"""The model that `--model` means."""

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import click
from attrs import evolve, frozen

from gatewright.config import Config, ModelConfig
from gatewright.errors import ModelNotFound
from gatewright.registry import credential_problem, with_registered
from gatewright.route_config import RouteConfig
from gatewright_cli import exits
from gatewright_cli.options import Common
from gatewright_cli.storing import consulting
from gatewright_host.config_choice import ChosenConfig

_GGUF: Final = ".gguf"


@frozen
class ChosenModel:
    """A model and the configuration that it is of."""

    chosen: ChosenConfig
    model: ModelConfig


@frozen
class ChosenTarget:
    """Who is asked: a model, or a route that is going to choose one.

    Attributes:
        chosen: The configuration, with the registered models where these matter.
        target: The model or the route.
    """

    chosen: ChosenConfig
    target: ModelConfig | RouteConfig

    @property
    def name(self) -> str:
        """Its name."""
        return self.target.name


def choose_target(common: Common, name: str | None) -> ChosenTarget:
    """The model or the route that `--model` means; besides what `choose_model` knows, routes and registered models.

    The store is only opened for these, since it takes its time.

    Raises:
        ConfigError: The configuration or the GGUF file is not valid.
        Misuse: There is no such model or route, or none is named and there are several.
    """
    chosen = None if name is not None and _is_gguf_file(name) else common.choose()
    if chosen is None:
        return _of_model(choose_model(common, name))
    config = chosen.config
    wanted = name if name is not None else config.server.default_model
    if config.find_route(wanted) is None and (wanted is None or _knows(config, wanted) or _is_file(wanted)):
        return _of_model(choose_model(common, name))
    chosen = with_registered_models(common, chosen)
    route = chosen.config.find_route(wanted)
    if route is not None:
        return ChosenTarget(chosen, route)
    assert wanted is not None  # the configuration has no route without a name
    try:
        return ChosenTarget(chosen, chosen.config.find_model(wanted))
    except ModelNotFound:
        if wanted.lower().endswith(_GGUF):
            return _of_model(_of_file(common, wanted))  # says that there is none
        raise exits.Misuse(_no_such_model(chosen.config, wanted)) from None


def with_registered_models(common: Common, chosen: ChosenConfig) -> ChosenConfig:
    """The configuration with the models of the store, if there is one."""
    with consulting(common, chosen.config) as opened:
        models = opened.store.models() if opened is not None else ()
    for model in models:
        problem = credential_problem(model, chosen.config)
        if problem is not None:
            click.echo(f"gw-cli: without the registered model {model.name}: api_key_env: {problem}", err=True)
    return evolve(chosen, config=with_registered(chosen.config, models))


def _of_model(found: ChosenModel) -> ChosenTarget:
    return ChosenTarget(found.chosen, found.model)


def _knows(config: Config, name: str) -> bool:
    return any(name == model.name or name in model.aliases for model in config.models)


def _is_gguf_file(name: str) -> bool:
    return name.lower().endswith(_GGUF) and _is_file(name)


def choose_model(common: Common, name: str | None) -> ChosenModel:
    """The model that `--model` means.

    A path to a GGUF file, which ends in `.gguf` or at least exists, is served as it is; everything else is a name in
    the configuration. Without a name: the configuration's default model; without a configuration: the demo.

    Raises:
        ConfigError: The configuration or the GGUF file is not valid.
        Misuse: There is no such model, or none is named and there are several.
    """
    if name is None:
        return _default(common.choose_or_demo())
    is_named_like_one, is_file = name.lower().endswith(_GGUF), _is_file(name)
    if is_named_like_one and is_file:
        return _of_file(common, name)
    chosen = common.choose()
    if chosen is not None:
        with suppress(ModelNotFound):
            return ChosenModel(chosen, chosen.config.find_model(name))
    if is_named_like_one or is_file:
        return _of_file(common, name)
    if chosen is None:
        raise exits.Misuse(f"there is no configuration that could name a model '{name}', and no such file")
    raise exits.Misuse(_no_such_model(chosen.config, name))


def _default(chosen: ChosenConfig) -> ChosenModel:
    model = chosen.config.default_model
    if model is None:
        raise exits.Misuse(
            f"several models are configured: name one with --model ({_listed(chosen.config)}{_routes(chosen.config)}), "
            "or set server.default_model"
        )
    return ChosenModel(chosen, model)


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, RuntimeError):  # in a directory that may not be read; of a user who does not exist
        return False


def _of_file(common: Common, name: str) -> ChosenModel:
    chosen = common.choose(gguf=Path(name))
    assert chosen is not None  # a file stands in for a configuration
    return ChosenModel(chosen, chosen.config.models[0])


def _routes(config: Config) -> str:
    return "".join(f", {route.name}" for route in config.routes)


def _listed(config: Config) -> str:
    return ", ".join(model.name for model in config.models)


def _no_such_model(config: Config, name: str) -> str:
    known = [each for model in config.models for each in (model.name, *model.aliases)]
    known += [route.name for route in config.routes]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    routes = f"; routes: {', '.join(route.name for route in config.routes)}" if config.routes else ""
    return f"{ModelNotFound(name)}; {hint}models: {_listed(config)}{routes}"
