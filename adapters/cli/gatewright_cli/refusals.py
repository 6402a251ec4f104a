"""Problems with what was said on the command line, found by those who read configuration files."""

from collections.abc import Mapping, Sequence

from gatewright_cli import exits


def refuse(problems: Sequence[str], options: Mapping[str, str] | None = None) -> exits.Misuse:
    """One failure of all problems, a line each, in the words of the command line.

    Args:
        problems: As `configuration.reader.Place` collects them: the field, a colon, what is wrong.
        options: Options or arguments by the names of the fields that they set; other fields keep theirs.
    """
    return exits.Misuse("\n".join(_said(problem, options or {}) for problem in problems))


def _said(problem: str, options: Mapping[str, str]) -> str:
    place, colon, rest = problem.partition(": ")
    field = place.partition("[")[0].partition(".")[0]
    return f"{options[field]}: {rest}" if colon and field in options else problem
