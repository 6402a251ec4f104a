"""`gw-cli version`."""

from importlib.metadata import version

import click

from gatewright_cli import exits


@click.command()
def command() -> int:
    """Print the version."""
    click.echo(version("gatewright"))
    return exits.DONE
