"""What most subcommands share: their options, and the configuration and state directory that these lead to."""

import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click
from attrs import frozen

from gatewright.config import Config, LogFormat, LogLevel
from gatewright.errors import ConfigError
from gatewright_host.config_choice import ChosenConfig, choose_config
from gatewright_host.config_files import FILE_NAME
from gatewright_host.log_setup import set_up_logging
from gatewright_host.state_dir import StateDir

STATE_DIR_VARIABLE: Final = "GATEWRIGHT_STATE_DIR"

Function = Callable[..., int]


@frozen
class Common:
    """Values of the options that most subcommands have.

    Attributes:
        config_path: Configuration file; None for the usual places.
        state_dir: State directory; None for the configuration's or the user's.
        verbose: Say more.
    """

    config_path: Path | None
    state_dir: Path | None
    verbose: bool

    def choose(self, *, gguf: Path | None = None) -> ChosenConfig | None:
        """The configuration; None if there is none.

        Args:
            gguf: Model file to be served instead.

        Raises:
            ConfigError: It is not valid.
        """
        return choose_config(explicit=self.config_path, gguf=gguf, demo=False, env=os.environ, cwd=Path.cwd())

    def choose_or_demo(self) -> ChosenConfig:
        """The configuration, or else the one of the bundled demo model.

        Raises:
            ConfigError: It is not valid.
        """
        chosen = self.choose()
        if chosen is None:
            chosen = choose_config(explicit=None, gguf=None, demo=True, env=os.environ, cwd=Path.cwd())
            assert chosen is not None  # the demo is always there
        return chosen

    def state(self, config: Config | None) -> StateDir:
        """The state directory: by option or environment, by the configuration, or the user's.

        Raises:
            StateDirError: It cannot be used.
        """
        configured = config.server.state_dir if config is not None else None
        return StateDir.at(self.state_dir or configured)

    def operators_state(self) -> StateDir:
        """The state directory for looking at engines: one that is named makes the configuration superfluous.

        Raises:
            ConfigError: The configuration is not valid.
            StateDirError: The directory cannot be used.
        """
        if self.state_dir is not None:
            return self.state(None)
        try:
            chosen = self.choose()
        except ConfigError as error:
            hint = "it may name the state directory; --state-dir DIR does without the configuration"
            raise ConfigError((*error.problems, hint)) from None
        return self.state(chosen.config if chosen is not None else None)


def common_options(function: Function) -> Function:
    """Gives a subcommand the options of `Common`, as its first argument."""

    @click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Configuration file.  [default: $GATEWRIGHT_CONFIG, ./{FILE_NAME}, the user's]",
    )
    @click.option(
        "--state-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        envvar=STATE_DIR_VARIABLE,
        help="Where socket, logs and records are kept.  [default: the configuration's, the user's]",
    )
    @click.option("-v", "--verbose", is_flag=True, help="Say more about what happens, and about failures.")
    @wraps(function)
    def wrapper(
        *args: Any, config_path: Path | None, state_dir: Path | None, verbose: bool, **options: Any
    ) -> int:
        _set_up_logging(verbose=verbose)
        return function(Common(config_path, state_dir, verbose), *args, **options)

    return wrapper


def _set_up_logging(*, verbose: bool) -> None:
    """Show everything, or nothing: what a person needs to know is told by the commands themselves."""
    if verbose:
        set_up_logging(LogLevel.DEBUG, LogFormat.TEXT)
    else:
        quiet = logging.getLogger("gatewright")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
