"""`gw-cli models`."""

from typing import Any, Final

import click

from gatewright.config import Config, ModelConfig
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.route_config import RouteConfig
from gatewright_cli import exits
from gatewright_cli.choosing import with_registered_models
from gatewright_cli.options import Common, common_options
from gatewright_cli.tables import print_json, print_table

HEADS: Final = ("NAME", "ALIASES", "ENGINE", "CONTEXTS", "PARALLEL")
ROUTE_HEADS: Final = ("ROUTE", "CANDIDATES", "ESTIMATOR", "EXPERIMENT")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def command(common: Common, /, *, as_json: bool) -> int:
    """List the configured and the registered models, and the routes that choose among them.

    Without a configuration it is the bundled model.
    """
    config = with_registered_models(common, common.choose_or_demo()).config
    if as_json:
        models = [_as_json(config, model) for model in config.models]
        print_json([*models, *[_route_as_json(config, route) for route in config.routes]])
        return exits.DONE
    print_table(HEADS, [_as_row(model) for model in config.models])
    if config.routes:
        click.echo()
        print_table(ROUTE_HEADS, [_route_as_row(config, route) for route in config.routes])
    return exits.DONE


def _as_row(model: ModelConfig) -> tuple[str, ...]:
    contexts = [
        str(spec.context_tokens) for spec in model.variants if spec.context_tokens != UNBOUNDED_CONTEXT_TOKENS
    ]
    parallel = [str(spec.parallel) if spec.parallel is not None else "-" for spec in model.variants]
    return (
        model.name,
        ",".join(model.aliases),
        model.engine.value,
        ",".join(contexts),
        ",".join(dict.fromkeys(parallel)),
    )


def _as_json(config: Config, model: ModelConfig) -> dict[str, Any]:
    return {
        "name": model.name,
        "aliases": model.aliases,
        "kind": "model",
        "default": model is config.default_model,
        "engine": model.engine.value,
        "answer_tokens": model.answer_tokens,
        "variants": [
            {"context_tokens": spec.context_tokens, "parallel": spec.parallel, "connect": spec.connect}
            for spec in model.variants
        ],
    }


def _route_as_row(config: Config, route: RouteConfig) -> tuple[str, ...]:
    return (
        route.name,
        ",".join(model.name for model in config.candidates_of(route)),
        route.estimator.kind.value,
        route.experiment.name if route.experiment is not None else "",
    )


def _route_as_json(config: Config, route: RouteConfig) -> dict[str, Any]:
    return {
        "name": route.name,
        "kind": "route",
        "default": route.name == config.server.default_model,
        "candidates": [model.name for model in config.candidates_of(route)],
        "estimator": route.estimator.kind.value,
        "experiment": route.experiment.name if route.experiment is not None else None,
    }
