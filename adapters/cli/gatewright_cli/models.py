"""`gw-cli models`."""

from typing import Any

import click

from gatewright.config import Config, ModelConfig
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright_cli import exits
from gatewright_cli.options import Common, common_options
from gatewright_cli.tables import print_json, print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def command(common: Common, /, *, as_json: bool) -> int:
    """List the configured models, or the bundled one where there is no configuration."""
    chosen = common.choose_or_demo()
    if as_json:
        rows = [_as_json(chosen.config, model) for model in chosen.config.models]
        print_json(rows)
        return exits.DONE
    print_table(
        ("NAME", "ALIASES", "ENGINE", "CONTEXTS", "PARALLEL"),
        [_as_row(model) for model in chosen.config.models],
    )
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
        "default": model is config.default_model,
        "engine": model.engine.value,
        "answer_tokens": model.answer_tokens,
        "variants": [
            {"context_tokens": spec.context_tokens, "parallel": spec.parallel, "connect": spec.connect}
            for spec in model.variants
        ],
    }
