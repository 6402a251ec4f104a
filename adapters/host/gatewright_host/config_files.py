"""Finding the configuration file, loading it, and comparing it with this machine."""

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from gatewright.config import Config, Listener, ModelConfig, ServerConfig, UnixListener
from gatewright.configuration.schema import GLOBALS, config_warnings, misspelt_globals, read_config
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright.errors import ConfigError
from gatewright.route_config import EstimatorKind, RouteConfig
from gatewright_host.credentials import missing_credentials
from gatewright_host.extras import how_to_install
from gatewright_host.lua_config import run_lua

FILE_NAME: Final = "gatewright.lua"
ENV_VARIABLE: Final = "GATEWRIGHT_CONFIG"

_LONGEST_SOCKET_PATH: Final = 103
"""Bytes; `sun_path` has 104 on macOS and the BSDs, 108 on Linux, the final NUL included."""

_MODEL_FLAGS: Final = ("-m", "--model", "-mm", "--mmproj", "-md", "--model-draft")


@frozen(kw_only=True)
class LoadedConfig:
    """A configuration that was read from a file.

    Attributes:
        config: The configuration; every path in it is absolute, a program's bare name stays one.
        path: The file.
        warnings: What is suspicious about it, one line each.
    """

    config: Config
    path: Path
    warnings: tuple[str, ...] = ()


def find_config(explicit: Path | None, env: Mapping[str, str], cwd: Path) -> Path | None:
    """The configuration file to use; None if there is none.

    The first of: `explicit`, `$GATEWRIGHT_CONFIG`, `gatewright.lua` in `cwd`, and in the user's configuration
    directory (platformdirs' `user_config_path`).

    Raises:
        ConfigError: A file that was asked for by name is not there.
    """
    if explicit is not None:
        return _existing(cwd / _expanded(explicit), str(explicit))
    named = env.get(ENV_VARIABLE)
    if named:
        return _existing(cwd / _expanded(Path(named)), f"{ENV_VARIABLE}={named}")
    here = cwd / FILE_NAME
    if _is_file(here):
        return here
    from platformdirs import user_config_path  # noqa: PLC0415  # not needed by who names a file

    of_user = user_config_path("gatewright") / FILE_NAME
    return of_user if _is_file(of_user) else None


def load_config(path: Path) -> LoadedConfig:
    """Load a configuration file.

    Relative paths in it (a `binary` with a slash, `work_dir`, `state_dir`, `dumps_dir`, `listen_unix`, a SQLite file) start at the
    file's directory, and `~` is the home directory. What is missing on this machine is a warning only: one model
    with a bad path must not keep the others from running.

    Raises:
        ConfigError: The file cannot be loaded or is not valid.
    """
    path = path.absolute()
    found = run_lua(path)
    misspelt = misspelt_globals(found.other_tables, found.values, GLOBALS)
    try:
        written = read_config(found.values)
    except ConfigError as error:
        # What is missing may stand there under another name.
        raise ConfigError(tuple(f"{path.name}: {line}" for line in (*error.problems, *misspelt))) from None
    config = _resolve_config(written, path.parent)
    warnings = [
        *misspelt,
        *config_warnings(config),
        *_socket_warnings(config.server),
        *missing_credentials(config),
    ]
    for model in config.models:
        warnings += _model_warnings(model)
    for route in config.routes:
        warnings += _estimator_warnings(route)
    # Variants mostly share their program: one line is enough.
    return LoadedConfig(config=config, path=path, warnings=tuple(dict.fromkeys(warnings)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # in a directory that may not be read


def _existing(path: Path, name: str) -> Path:
    if _is_file(path):
        return path
    raise ConfigError((f"{name}: is a directory" if path.is_dir() else f"{name}: no such file",))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        return path  # no such user: a file may well have this name


def _resolve(text: str, base: Path) -> str:
    return str(base / _expanded(Path(text)))


def _resolve_program(binary: str, base: Path) -> str:
    """A bare name is for PATH; whatever has a directory is a path."""
    is_path = os.sep in binary or (os.altsep or os.sep) in binary or binary.startswith("~")
    return _resolve(binary, base) if is_path else binary


def _resolve_config(config: Config, base: Path) -> Config:
    server = config.server
    server = evolve(
        server,
        listen=tuple(_resolve_listener(listener, base) for listener in server.listen),
        state_dir=None if server.state_dir is None else _resolve(server.state_dir, base),
        dumps_dir=None if server.dumps_dir is None else _resolve(server.dumps_dir, base),
    )
    return evolve(
        config,
        server=server,
        models=tuple(_resolve_model(model, base) for model in config.models),
        store=evolve(config.store, url=_resolve_url(config.store.url, base)),
    )


def _resolve_url(url: str | None, base: Path) -> str | None:
    """A SQLite file is a path like any other; other URLs are left alone."""
    if url is None:
        return None
    scheme, slashes, path = url.partition(":///")
    is_file = (
        scheme.partition("+")[0] == "sqlite" and path not in ("", ":memory:") and not path.startswith("file:")
    )
    return scheme + slashes + _resolve(path, base) if is_file else url


def _resolve_listener(listener: Listener, base: Path) -> Listener:
    return (
        UnixListener(path=_resolve(listener.path, base)) if isinstance(listener, UnixListener) else listener
    )


def _resolve_model(model: ModelConfig, base: Path) -> ModelConfig:
    tokenization = model.tokenization
    if tokenization is not None:
        tokenization = evolve(tokenization, binary=_resolve_program(tokenization.binary, base))
    variants = tuple(_resolve_engine(spec, base) for spec in model.variants)
    return evolve(model, variants=variants, tokenization=tokenization)


def _resolve_engine(spec: EngineSpec, base: Path) -> EngineSpec:
    if spec.process is None:
        return spec
    work_dir = spec.process.work_dir
    process = evolve(
        spec.process,
        binary=_resolve_program(spec.process.binary, base),
        work_dir=None if work_dir is None else _resolve(work_dir, base),
    )
    return evolve(spec, process=process)


def _socket_warnings(server: ServerConfig) -> Iterator[str]:
    for listener in server.listen:
        if isinstance(listener, UnixListener) and len(os.fsencode(listener.path)) > _LONGEST_SOCKET_PATH:
            yield f"server.listen_unix: {listener.path} is longer than {_LONGEST_SOCKET_PATH} bytes"


def _model_warnings(model: ModelConfig) -> Iterator[str]:
    if model.tokenization is not None:
        tokenization = model.tokenization
        yield from _program_warnings(
            f"{model.name}: tokenization", ProcessSpec(binary=tokenization.binary, args=tokenization.args)
        )
    for spec in model.variants:
        if spec.process is not None:
            yield from _program_warnings(model.name, spec.process)


def _estimator_warnings(route: RouteConfig) -> Iterator[str]:
    """What an estimator needs and this Python does not have."""
    arms = route.experiment.arms if route.experiment is not None else ()
    for estimator in (route.estimator, *(arm.estimator for arm in arms if arm.estimator is not None)):
        if estimator.kind is EstimatorKind.LEARNED and find_spec("sklearn") is None:
            yield f"{route.name}: the learned estimator needs scikit-learn: {how_to_install('learned')}"
        if estimator.kind is EstimatorKind.CUSTOM and estimator.function is not None:
            package = estimator.function.partition(":")[0].partition(".")[0]
            if find_spec(package) is None:
                yield f"{route.name}: estimator {estimator.function}: there is no Python module {package}"


def _program_warnings(label: str, process: ProcessSpec) -> Iterator[str]:
    trouble = _trouble_with(process.binary, dict(process.env).get("PATH"))
    if trouble is not None:
        yield f"{label}: binary {process.binary} {trouble}"
    if process.work_dir is not None and not Path(process.work_dir).is_dir():
        yield f"{label}: work_dir {process.work_dir} is not a directory"
        return
    for flag, value in zip(process.args, process.args[1:], strict=False):
        # Other programs have an -m of their own, such as Python.
        if flag not in _MODEL_FLAGS or not value.endswith(".gguf"):
            continue
        file = Path(value)
        if not file.is_absolute() and process.work_dir is None:
            yield f"{label}: {flag} {value} is relative to wherever the engines are started from; write the whole path"
        elif not _is_file(Path(process.work_dir or "/") / file):
            yield f"{label}: {flag} {value}: no such file"


def _trouble_with(binary: str, search_path: str | None) -> str | None:
    """Why the program cannot be run, as far as can be seen without running it."""
    if Path(binary).name == binary:
        return "is not on PATH" if shutil.which(binary, path=search_path) is None else None
    if not _is_file(Path(binary)):
        return "does not exist"
    return None if os.access(binary, os.X_OK) else "is not executable"
