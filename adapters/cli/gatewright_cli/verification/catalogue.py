"""All checks, in the order in which they run: the plain ones first, what may swap engines last."""

from fnmatch import fnmatchcase
from typing import Final

from gatewright_cli.verification import (
    checks_access,
    checks_chat,
    checks_embeddings,
    checks_errors,
    checks_formats,
    checks_gatewright,
    checks_http,
    checks_models,
    checks_stream,
)
from gatewright_cli.verification.check import Check, Group

CHECKS: Final[tuple[Check, ...]] = (
    *checks_models.checks.found,
    *checks_access.checks.found,
    *checks_errors.checks.found,
    *checks_chat.checks.found,
    *checks_stream.checks.found,
    *checks_formats.checks.found,
    *checks_http.checks.found,
    *checks_gatewright.checks.found,
    *checks_embeddings.checks.found,
)


def select_checks(patterns: tuple[str, ...], *, standard_only: bool) -> tuple[Check, ...]:
    """The checks of these names, in their usual order.

    Args:
        patterns: Names, in which `*` stands for anything; none for all checks.
        standard_only: Leave out what only Gatewright promises.

    Raises:
        ValueError: A pattern matches no check; the message says so.
    """
    offered = [check for check in CHECKS if not (standard_only and check.group is Group.GATEWRIGHT)]
    for pattern in patterns:
        if not any(fnmatchcase(check.name, pattern) for check in offered):
            names = ", ".join(check.name for check in offered)
            raise ValueError(f"there is no check {pattern!r}; checks: {names}")
    return tuple(
        check
        for check in offered
        if not patterns or any(fnmatchcase(check.name, pattern) for pattern in patterns)
    )
