"""The model that `--model` means."""

from difflib import get_close_matches
from pathlib import Path
from typing import Final

from attrs import frozen

from gatewright.config import Config, ModelConfig
from gatewright_cli import exits
from gatewright_cli.options import Common
from gatewright_host.config_choice import ChosenConfig

_GGUF: Final = ".gguf"


@frozen
class ChosenModel:
    """A model and the configuration that it is of."""

    chosen: ChosenConfig
    model: ModelConfig


def choose_model(common: Common, name: str | None) -> ChosenModel:
    """The model that `--model` means.

    A path to a GGUF file, which ends in `.gguf` or at least exists, is served as it is; everything else is a name in
    the configuration. Without a name: the configuration's default model; without a configuration: the demo.

    Raises:
        ConfigError: The configuration or the GGUF file is not valid.
        Misuse: There is no such model, or none is named and there are several.
    """
    if name is not None and name.lower().endswith(_GGUF) and Path(name).expanduser().is_file():
        return _of_file(common, name)
    chosen = common.choose() if name is not None else common.choose_or_demo()
    config = chosen.config if chosen is not None else None
    if config is not None:
        model = _find(config, name)
        if model is not None:
            assert chosen is not None
            return ChosenModel(chosen, model)
    if name is not None and (Path(name).expanduser().is_file() or name.lower().endswith(_GGUF)):
        return _of_file(common, name)
    raise exits.Misuse(_no_such_model(config, name))


def _of_file(common: Common, name: str) -> ChosenModel:
    chosen = common.choose(gguf=Path(name))
    assert chosen is not None  # a file stands in for a configuration
    return ChosenModel(chosen, chosen.config.models[0])


def _find(config: Config, name: str | None) -> ModelConfig | None:
    if name is None:
        return config.default_model
    try:
        return config.find_model(name)
    except ValueError:
        return None


def _no_such_model(config: Config | None, name: str | None) -> str:
    if config is None:
        return f"there is no configuration that could name a model '{name}', and no such file"
    names = [model.name for model in config.models]
    listed = ", ".join(names)
    if name is None:
        return f"several models are configured: name one with --model ({listed}), or set server.default_model"
    known = [*names, *(alias for model in config.models for alias in model.aliases)]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"Model '{name}' not found in configuration; {hint}models: {listed}"
