"""What the arguments of a `llama-server` say about it, read as llama.cpp reads them: the last one counts."""

import re
from collections.abc import Sequence
from typing import Final

PORT_PLACEHOLDER: Final = "${PORT}"
"""Stands for the port that is chosen when the engine is started."""

_PLACEHOLDER: Final = re.compile(r"\$\{[^}]*\}")


def unknown_placeholders(text: str) -> list[str]:
    """Whatever looks like `${NAME}` and is not `${PORT}`."""
    return [found for found in _PLACEHOLDER.findall(text) if found != PORT_PLACEHOLDER]


def flag_value(args: Sequence[str], *names: str) -> str | None:
    """The value of a flag, given as two arguments or as `flag=value`."""
    value = None
    for position, arg in enumerate(args):
        name, equals, attached = arg.partition("=")
        if name not in names:
            continue
        if equals:
            value = attached
        elif position + 1 < len(args):
            value = args[position + 1]
    return value


def count_value(args: Sequence[str], *names: str) -> int | None:
    """The value of a flag if it is a number above 0; 0 and -1 leave the choice to llama.cpp."""
    text = flag_value(args, *names)
    # 9 digits: what is longer is no count of anything here.
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 9:  # noqa: PLR2004  # see above
        return None
    return int(text) or None


def slots(args: Sequence[str]) -> int | None:
    """Requests at a time, from `-np`."""
    return count_value(args, "-np", "--parallel")


def port(args: Sequence[str]) -> int | None:
    """The port, if it is a fixed one."""
    return count_value(args, "--port")


def slot_context_tokens(args: Sequence[str]) -> int | None:
    """Context that one slot gets: all of `-c` with unified KV, the N-th part with an explicit `-np N`."""
    total = count_value(args, "-c", "--ctx-size")
    if total is None:
        return None
    return total if _is_unified(args) else total // (slots(args) or 1)


def _is_unified(args: Sequence[str]) -> bool:
    unified = False
    for arg in args:
        if arg in ("-kvu", "--kv-unified"):
            unified = True
        elif arg in ("-no-kvu", "--no-kv-unified"):
            unified = False
    return unified
