"""`gw-cli check`."""

import click

from gatewright.errors import ConfigError
from gatewright_cli import exits
from gatewright_cli.options import Common, common_options
from gatewright_cli.terminal import printable

NO_CONFIG = "there is no configuration: name one with --config FILE, or write a gatewright.lua here"


@click.command()
@common_options
def command(common: Common, /) -> int:
    """Check the configuration: say everything that is wrong with it, or what is only suspicious.

    Exits with 2 if it is not valid. Warnings do not change that: a model whose file is missing keeps no other from
    running.
    """
    chosen = common.choose()
    if chosen is None:
        raise ConfigError((NO_CONFIG,))
    for warning in chosen.warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
    number = len(chosen.config.models)
    click.echo(f"{chosen.path}: {number} model{'' if number == 1 else 's'}, no errors")
    return exits.DONE
