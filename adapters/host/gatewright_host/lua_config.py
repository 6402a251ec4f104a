"""Running a Lua configuration file, and its globals as plain Python values."""

import json
import sys
import threading
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from gatewright.configuration.schema import GLOBALS
from gatewright.errors import ConfigError
from gatewright_host import bundled

_RESULT: Final = "loader.gatewright.result"
_INSTALL_LUA: Final = (
    "no Lua interpreter (5.1 to 5.5) found on PATH; install one, such as with `apt install lua5.4`, "
    "`dnf install lua` or `brew install lua`"
)
_LONGEST_MESSAGE: Final = 500

_stdout_lock: Final = threading.Lock()
"""`redirect_stdout` exchanges `sys.stdout` for the whole process; two at a time would restore each other's."""


@frozen
class LuaGlobals:
    """What a configuration file has set.

    Attributes:
        values: Those of its globals that a configuration consists of, where they exist.
        other_tables: Names of its other global tables, as many as a person would write.
    """

    values: dict[str, object]
    other_tables: tuple[str, ...] = ()


def load_lua(path: Path) -> dict[str, object]:
    """Run the file and return the values of its globals; see `run_lua`."""
    return run_lua(path).values


def run_lua(path: Path) -> LuaGlobals:
    """Run the file and return its globals.

    Tables come as lists if all their keys are positive whole numbers (a hole is None), else as dicts; an empty
    table is an empty dict. What the file prints goes to stderr.

    Raises:
        ConfigError: The file is missing, has an error (named by its line), or holds what no setting can be; or
            there is no Lua interpreter.
    """
    try:
        is_file = path.is_file()
    except OSError as error:
        raise ConfigError((f"{path}: {error.strerror}",)) from None
    if not is_file:
        raise ConfigError((f"{path}: no such file",))
    result = json.loads(_run(path), object_pairs_hook=_table)
    if "error" in result:
        raise ConfigError((_one_line(_text(result["error"], errors="replace")),))
    problems = [
        _one_line(f"{path.name}: {_text(problem, errors='replace')}") for problem in result["problems"]
    ]
    # The prelude names the same.
    values = {name: _plain(result[name], name, path, problems) for name in GLOBALS}
    if problems:
        raise ConfigError(tuple(problems))
    return LuaGlobals(
        values={name: value for name, value in values.items() if value is not None},
        other_tables=tuple(result["others"]),  # identifiers, so they are ASCII
    )


def _run(path: Path) -> str:
    """The prelude's report on the file."""
    # Both cost more to import than `gw-cli --help` takes altogether.
    from importlib.resources import as_file, files  # noqa: PLC0415  # see above

    from python_lua_helper import PyLuaHelper  # noqa: PLC0415  # see above

    output = StringIO()
    script = files("gatewright_host") / "lua" / "prelude.lua"
    try:
        with as_file(script) as prelude, _stdout_lock, redirect_stdout(output):
            exported = PyLuaHelper(
                str(path), export_vars=[_RESULT], pre_script=str(prelude), extra_strings=_embedded()
            )
        encoded = exported.get(_RESULT)
    except UnicodeDecodeError:
        raise ConfigError((f"{path.name}: prints text that is not UTF-8",)) from None
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigError((_explain(path, error),)) from error
    finally:
        sys.stderr.write(output.getvalue())  # the answer of a command owns stdout
    if not isinstance(encoded, str):
        raise ConfigError((f"{path.name}: redefines what Lua needs to report the configuration",))
    return encoded


def _embedded() -> list[str]:
    """What becomes of `presets.embedded`, in the order in which the prelude reads it."""
    return [str(bundled.engine_script()), str(bundled.demo_model())]


def _explain(path: Path, error: Exception) -> str:
    """What the helper's failure means; it gives no more than its text."""
    text = str(error)
    if "Lua interpreter" in text:
        return f"{path.name}: {_INSTALL_LUA}"
    if "timed out" in text:
        return f"{path.name}: still running after 3 minutes; is there a loop without an end?"
    if isinstance(error, RuntimeError) or "index.tmp" in text:
        code = text.rpartition("error code ")[2] if "error code " in text else "0"
        return (
            f"{path.name}: Lua ended with exit code {code} before the file's end; does the file call os.exit?"
        )
    return f"{path.name}: cannot be loaded: {_one_line(text)}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 3] + "..."


def _text(encoded: str, errors: str = "strict") -> str:
    """The prelude writes one character for each byte."""
    return encoded.encode("latin-1").decode("utf-8", errors)


def _table(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    """A table whose keys carry their type as first letter; names from the prelude are ASCII here still."""
    return {key[1:] if key[0] == "s" else json.loads(key[1:]): value for key, value in pairs}


def _plain(value: object, where: str, path: Path, problems: list[str]) -> object:
    """The value with its strings decoded; what is not UTF-8 is a problem and comes as None."""
    if isinstance(value, list):
        return [_plain(item, f"{where}[{number}]", path, problems) for number, item in enumerate(value, 1)]
    if isinstance(value, dict):
        table = {}
        for key, item in value.items():
            name = _plain(key, f"a name in {where}", path, problems)
            table[name] = _plain(item, f"{where}.{name}", path, problems)
        return table
    if not isinstance(value, str):
        return value
    try:
        return _text(value)
    except UnicodeDecodeError:
        problems.append(f"{path.name}: {where}: a string that is not UTF-8")
        return None
