"""Reading a command line the way llama.cpp does: what a flag is, and what the arguments set.

llama.cpp compares every argument to the known spellings as a whole and takes the next argument verbatim as the value.
So does this module. argparse cannot: it splits ``-nx`` into ``-n x`` and refuses values that begin with a dash.

Nothing here needs xllamacpp. The outcome is a dictionary from names of ``CommonParams`` attributes (dotted where they
nest) to plain values, which ``params`` applies.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, NoReturn

Settings = dict[str, object]
Store = Callable[[Settings, object], None]
Reader = Callable[[str], object]

# Keys of Settings that are no attributes of CommonParams.
ACTION = "(action)"  # "help", "version" or "list-devices": what to do instead of serving
LOG_DISABLE = "(log-disable)"

TRUE = ("on", "enabled", "true", "1")
FALSE = ("off", "disabled", "false", "0")


class UsageError(Exception):
    """The command line or the environment cannot be obeyed; the text says which part and what is allowed."""


class Flag(NamedTuple):
    """One option: how it is spelled, what it takes and what it sets.

    Attributes:
        names: The spellings, as llama-server has them.
        spelling: All of them for ``--help``, with the name of the argument.
        help: What it is for, in one line.
        store: Puts the value read (True or False for a flag without one) into the settings.
        reader: Turns the argument into a value, or raises ValueError with what is allowed; None if it takes none.
        off: The spellings that say no.
        env: The environment variable that sets it, llama-server's own; the command line goes before it.
        refusal: Why it cannot be had here, for flags that only llama-server has.
    """

    names: tuple[str, ...]
    spelling: str
    help: str
    store: Store
    reader: Reader | None = None
    off: tuple[str, ...] = ()
    env: str = ""
    refusal: str = ""


def flag(
    spelling: str, help_line: str, store: Store | str, reader: Reader | None = None, env: str = ""
) -> Flag:
    """Write a flag as ``--help`` shows it.

    Args:
        spelling: ``-x, --long METAVAR``, or ``--switch / --no-switch``.
        help_line: What it is for.
        store: What to do with the value, or the name of the one setting it goes to.
        reader: How to read the argument that the metavar announces.
        env: The environment variable, without ``LLAMA_ARG_`` where it begins so.
    """
    positive, _, negative = spelling.partition(" / ")
    names = tuple(word.rstrip(",") for word in positive.split() if word.startswith("-"))
    if isinstance(store, str):
        store = _setting(store)
    variable = f"LLAMA_ARG_{env}" if env and not env.startswith("LLAMA_") else env
    return Flag(
        names, spelling, help_line, store, reader, tuple(negative.split(", ")) if negative else (), variable
    )


def _setting(target: str) -> Store:
    def store(settings: Settings, value: object) -> None:
        settings[target] = value

    return store


def parse(table: Iterable[Flag], argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read environment and command line into settings; of a flag given twice, the last counts.

    Args:
        table: Every known flag.
        argv: The arguments, without the program's name.
        environ: The environment; llama-server's ``LLAMA_ARG_*`` variables count where the command line is silent.

    Raises:
        UsageError: A flag or value that cannot be obeyed.
    """
    settings: Settings = {}
    known: dict[str, tuple[Flag, bool]] = {}
    for flag in table:
        known |= dict.fromkeys(flag.names, (flag, True)) | dict.fromkeys(flag.off, (flag, False))
        _read_environment(flag, environ, settings)
    arguments = iter(argv)
    for argument in arguments:
        # llama.cpp reads --ctx_size as --ctx-size, too.
        name = argument.replace("_", "-") if argument.startswith("--") else argument
        if name not in known:
            _refuse(argument, name, known)
        flag, is_on = known[name]
        if flag.refusal:
            raise UsageError(f"{argument} {flag.refusal}")
        if flag.reader is None:
            flag.store(settings, is_on)
            continue
        value = next(arguments, None)
        if value is None:
            raise UsageError(f"{argument} needs a value: {flag.spelling}")
        flag.store(settings, _read(flag.reader, value, argument))
    return settings


def _read(reader: Reader, value: str, origin: str) -> object:
    try:
        return reader(value)
    except ValueError as error:
        raise UsageError(f"{origin}: {value!r} is not allowed; it takes {error}") from None


def _read_environment(flag: Flag, environ: Mapping[str, str], settings: Settings) -> None:
    if not flag.env:
        return
    if (
        flag.off and flag.env.replace("LLAMA_ARG_", "LLAMA_ARG_NO_") in environ
    ):  # whatever its value, as in llama.cpp
        flag.store(settings, False)  # noqa: FBT003 -- the value of any flag is positional
    elif flag.env in environ and flag.reader:
        flag.store(settings, _read(flag.reader, environ[flag.env], flag.env))
    elif flag.env in environ:
        word = environ[flag.env]
        if word not in TRUE and word not in FALSE:
            raise UsageError(
                f"{flag.env}: {word!r} is not allowed; it takes one of {', '.join(TRUE + FALSE)}"
            )
        if flag.off or word in TRUE:  # a switch without a way to say no cannot be switched off
            flag.store(settings, word in TRUE)


def _refuse(argument: str, name: str, known: Iterable[str]) -> NoReturn:
    if not argument.startswith("-"):
        raise UsageError(f"unexpected argument {argument!r}; every value follows its flag")
    import difflib  # noqa: PLC0415 -- only a mistake pays for it

    close = difflib.get_close_matches(name, known, n=1)
    raise UsageError(f"unknown flag {argument}; " + (f"did you mean {close[0]}?" if close else "see --help"))
