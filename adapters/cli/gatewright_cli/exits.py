"""Exit codes of `gw-cli`."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
"""The arguments or the configuration are wrong; nothing was begun."""
INTERRUPTED: Final = 130
"""By Ctrl-C: 128 and the number of SIGINT, as a shell has it."""
