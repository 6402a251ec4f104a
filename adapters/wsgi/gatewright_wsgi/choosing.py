"""Which configuration an application works with, and how one that is not valid is told."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from attrs import evolve, frozen

from gatewright.config import Config
from gatewright.errors import ConfigError
from gatewright_host.config_choice import choose_config
from gatewright_host.state_dir import StateDirError

STATE_DIR_VARIABLE: Final = "GATEWRIGHT_STATE_DIR"

NO_CONFIG: Final = (
    "there is no configuration: name one in GATEWRIGHT_CONFIG or as the argument of create_app, "
    "or put a gatewright.lua into the working directory or the user's configuration directory"
)

_BOOT_ERROR: Final = 3
"""The exit status by which a worker tells gunicorn's master that no other worker would fare better."""


@frozen
class Chosen:
    """What an application works with.

    Attributes:
        config: The configuration.
        warnings: What is suspicious about it, one line each.
        dated: Unix seconds, the same in all workers; shown as the models' creation time.
    """

    config: Config
    warnings: tuple[str, ...]
    dated: int


def choose(given: Config | str | os.PathLike[str] | None, env: Mapping[str, str], cwd: Path) -> Chosen:
    """The configuration that was given, or the one that `gw-server` would find.

    Args:
        given: A configuration, its file, or None.
        env: Environment, for `GATEWRIGHT_CONFIG` and `GATEWRIGHT_STATE_DIR`.
        cwd: Directory of relative paths.

    Raises:
        ConfigError: There is none, or it is not valid.
    """
    if isinstance(given, Config):
        chosen = Chosen(given, (), int(time.time()))
    else:
        explicit = None if given is None else Path(given)
        found = choose_config(explicit=explicit, gguf=None, demo=False, env=env, cwd=cwd)
        if found is None or found.path is None:
            raise ConfigError((NO_CONFIG,))
        # Workers start at different times, and clients would see the models change with each request.
        chosen = Chosen(found.config, found.warnings, int(found.path.stat().st_mtime))
    state_dir = env.get(STATE_DIR_VARIABLE)
    if state_dir:
        path = str((cwd / Path(state_dir).expanduser()).absolute())
        server = evolve(chosen.config.server, state_dir=path)
        chosen = evolve(chosen, config=evolve(chosen.config, server=server))
    return chosen


def check_config(given: Config | str | os.PathLike[str] | None = None) -> None:
    """Look whether `create_app` would take a configuration; touches nothing but its file.

    Args:
        given: As of `create_app`.

    Raises:
        ConfigError: There is none, or it is not valid. gunicorn ends instead.
    """
    with told_to_gunicorn():
        choose(given, os.environ, Path.cwd())


@contextmanager
def told_to_gunicorn() -> Iterator[None]:
    """Where gunicorn loads the application, an error of the configuration ends it with a line for each problem.

    An exception would be shown with its traceback; programs that handle it themselves get it.
    """
    try:
        yield
    except (ConfigError, StateDirError) as error:
        if "gunicorn.arbiter" not in sys.modules:
            raise
        _leave(error.problems if isinstance(error, ConfigError) else (str(error),))


def _leave(problems: tuple[str, ...]) -> NoReturn:
    """End this worker so that the master ends too, instead of starting others that fail in the same way for ever."""
    sys.stderr.write("".join(f"gatewright: {problem}\n" for problem in problems))
    sys.stderr.flush()
    sys.exit(_BOOT_ERROR)
