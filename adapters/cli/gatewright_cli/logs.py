"""`gw-cli logs`: what the engines print, as the engine host keeps it."""

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Final

import click

from gatewright.errors import ConfigError
from gatewright_cli import exits
from gatewright_cli.operating import engine_model
from gatewright_cli.options import Common, common_options
from gatewright_cli.terminal import printable
from gatewright_host.engine_log import FILES_KEPT

_POLL_S: Final = 0.2
_READ_BYTES: Final = 65_536
# As `engine_log.EnginesLogFile` writes them: date, time, engine and process, severity, text.
_LINE: Final = re.compile(r"^\S+ \S+ (?P<label>.+?)\[\d+\] (?P<severity>[DIWE]) ")
_COLORS: Final = {"E": "red", "W": "yellow"}

Wanted = Callable[[str], bool]
"""Whether a line is to be printed; none is empty."""


@click.command()
@click.argument("model", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    "number",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    metavar="N",
    help="How many of the last lines to print.",
)
@click.option("--host", "of_host", is_flag=True, help="The log of the detached engine host itself instead.")
@common_options
def command(common: Common, /, *, model: str | None, follow: bool, number: int, of_host: bool) -> int:
    """Show what the engines print, of one model (or one engine, such as qwen3@8192) or of all."""
    if of_host and model is not None:
        raise exits.Misuse("the engine host's own log is about no model")
    state = common.operators_state()
    path = state.host_log if of_host else state.engines_log
    wanted = _filter(common, model)
    position, found = 0, 0
    lines: deque[str] = deque(maxlen=number)
    for file in _files(path):
        with file.open("rb") as content:
            for raw in content:
                if wanted(line := _decode(raw)):
                    lines.append(line)
                    found += 1
            position = content.tell()
    if model is not None and not found:
        try:
            _expect_known(common, model)
        except exits.Misuse as error:
            if not follow:
                raise
            # Somebody may be about to ask it by its file, or with another configuration.
            click.echo(f"gw-cli: {printable(str(error))}; waiting for lines of it", err=True)
    for line in lines:
        _print(line)
    if follow:
        for line in _follow(path, position):
            if wanted(line):
                _print(line)
    elif not found:
        click.echo(f"no lines of {model}" if model is not None else "no lines yet", err=True)
    return exits.DONE


def _expect_known(common: Common, model: str) -> None:
    """Refuse a name that neither the log nor the configuration knows.

    Raises:
        Misuse: It is such a name.
    """
    try:
        with suppress(ConfigError):  # nobody can tell, then
            engine_model(common, model, None)
    except exits.Misuse:
        name, _, context = model.rpartition("@")
        if not name or not context.isdecimal():
            raise
        engine_model(common, name, None)


def _filter(common: Common, model: str | None) -> Wanted:
    if model is None:
        return bool
    names = {model}
    # Engines of models that no configuration names any more have lines too.
    with suppress(exits.Misuse, ConfigError):
        names.add(engine_model(common, model, None))

    def wanted(line: str) -> bool:
        match = _LINE.match(line)
        return match is not None and not names.isdisjoint((match["label"], match["label"].rpartition("@")[0]))

    return wanted


def _files(path: Path) -> Iterator[Path]:
    """The log and what it was before its file was changed, oldest first; only those that exist."""
    older = [path.with_name(f"{path.name}.{number}") for number in range(FILES_KEPT, 0, -1)]
    return (file for file in [*older, path] if file.exists())


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").rstrip("\r\n")


def _print(line: str) -> None:
    match = _LINE.match(line)
    color = _COLORS.get(match["severity"]) if match is not None else None
    click.secho(printable(line) if sys.stdout.isatty() else line, fg=color)


def _follow(path: Path, position: int) -> Iterator[str]:
    """Lines that are appended after a position; also those of the files that take the place of this one."""
    rest = b""
    while True:
        try:
            content = path.open("rb")
        except FileNotFoundError:
            position = 0
            sleep(_POLL_S)
            continue
        with content:
            content.seek(position if os.fstat(content.fileno()).st_size >= position else 0)
            while True:
                is_replaced = _is_replaced(
                    path, content.fileno()
                )  # asked first: what comes until then is read
                while data := content.read(_READ_BYTES):
                    *lines, rest = (rest + data).split(b"\n")
                    yield from map(_decode, lines)
                if is_replaced:
                    break
                sleep(_POLL_S)
        position = 0


def _is_replaced(path: Path, number: int) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(number))
    except FileNotFoundError:
        return False  # just being replaced, or not any more; the next look tells
