"""Exit codes of `gw-cli`."""

from typing import Final

import click

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
"""The arguments or the configuration are wrong; nothing was begun."""
INTERRUPTED: Final = 130
"""By Ctrl-C: 128 and the number of SIGINT, as a shell has it."""
TERMINATED: Final = 143
"""By SIGTERM, such as that of `timeout`."""


class Misuse(click.ClickException):
    """What was asked for makes no sense, and the message alone says why."""

    exit_code = USAGE
