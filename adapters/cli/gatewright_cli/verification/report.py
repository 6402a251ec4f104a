"""What is printed: a row as soon as a check has ended, or JSON when all have."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import click

from gatewright_cli.terminal import printable
from gatewright_cli.verification.check import Check
from gatewright_cli.verification.runner import Outcome, Reception, Result

_GAP: Final = "  "
_WORDS: Final = {Outcome.PASSED: "pass", Outcome.FAILED: "fail", Outcome.SKIPPED: "skip"}
_COLORS: Final = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.SKIPPED: "yellow"}
_TIME_WIDTH: Final = 7
HEADS: Final = ("RESULT", "CHECK", "WHAT")


class Table:
    """A table whose rows are printed one by one, since a model may take its time.

    Args:
        checks: All that will have a row.
        verbose: Tell the time of each as well, and the last exchange of one that failed.
    """

    def __init__(self, checks: Sequence[Check], *, verbose: bool) -> None:
        self._name_width = max(len(HEADS[1]), *(len(check.name) for check in checks))
        self._verbose = verbose
        time = "TIME".rjust(_TIME_WIDTH) + _GAP if verbose else ""
        click.secho(f"{HEADS[0]}{_GAP}{HEADS[1].ljust(self._name_width)}{_GAP}{time}{HEADS[2]}", bold=True)

    def add(self, result: Result) -> None:
        """Print a row: what holds, or what does not, or why nobody knows."""
        word = click.style(_WORDS[result.outcome].ljust(len(HEADS[0])), fg=_COLORS[result.outcome])
        name = result.check.name.ljust(self._name_width)
        time = f"{result.seconds:.2f} s".rjust(_TIME_WIDTH) + _GAP if self._verbose else ""
        click.echo(f"{word}{_GAP}{name}{_GAP}{time}{printable(result.detail or result.check.promise)}")
        if self._verbose:
            for line in "\n".join(result.exchange).splitlines():
                click.echo(f"    {printable(line)}")


def summary(results: Sequence[Result]) -> str:
    """All of it in one line."""
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome)


def plain_report(reception: Reception, results: Sequence[Result]) -> dict[str, Any]:
    """What `--json` prints."""
    probe = reception.probe
    counts = Counter(result.outcome for result in results)
    return {
        "url": probe.client.target.url,
        "model": probe.model or None,
        "embedding_model": probe.embedding_model or None,
        **{outcome.value: counts[outcome] for outcome in Outcome},
        "checks": [
            {
                "name": result.check.name,
                "group": result.check.group.value,
                "promise": result.check.promise,
                "outcome": result.outcome.value,
                "detail": result.detail or None,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }
