"""Commands that consist of commands, such as `gw-cli keys list`."""

from typing import Any

import click


class Group(click.Group):
    """Shows its commands in the order in which they were added; without one it is used wrongly, which one line says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False} | kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Names, in the order of the help."""
        return list(self.commands)
