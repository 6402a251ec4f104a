"""Which configuration a command works with: a file, one GGUF, or the bundled demo."""

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from gatewright.config import Config
from gatewright_host.config_files import find_config, load_config
from gatewright_host.gguf_config import config_for_gguf, demo_config


@frozen(kw_only=True)
class ChosenConfig:
    """A configuration and where it came from.

    Attributes:
        config: The configuration.
        path: Its file; None if it was derived from a GGUF.
        warnings: What is suspicious about it, one line each.
        is_demo: It is the bundled demo's, for want of anything else.
    """

    config: Config
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    is_demo: bool = False


def choose_config(
    *, explicit: Path | None, gguf: Path | None, demo: bool, env: Mapping[str, str], cwd: Path
) -> ChosenConfig | None:
    """Find the configuration of a command.

    Args:
        explicit: File named on the command line.
        gguf: Model file named on the command line, which stands in for a configuration.
        demo: Use the bundled demo model, whatever files there are.
        env: Environment, for `GATEWRIGHT_CONFIG`.
        cwd: Directory of relative paths.

    Returns:
        None if there is nothing to work with.

    Raises:
        ConfigError: What was found is not valid.
    """
    if demo:
        return ChosenConfig(config=demo_config(), is_demo=True)
    if gguf is not None:
        return ChosenConfig(config=config_for_gguf(cwd / gguf.expanduser()))
    path = find_config(explicit, env, cwd)
    if path is None:
        return None
    loaded = load_config(path)
    return ChosenConfig(config=loaded.config, path=loaded.path, warnings=loaded.warnings)
