"""Writing a request's outcome down."""

import logging
from collections import Counter
from typing import Final

from gatewright.commands import Outcome, RecordRequest

logger: Final = logging.getLogger("gatewright.requests")

_LEVELS: Final = {
    Outcome.ANSWERED: logging.INFO,
    Outcome.CANCELED: logging.INFO,
    Outcome.UPSTREAM_ERROR: logging.WARNING,
    Outcome.FAILED: logging.WARNING,
    Outcome.BROKE_OFF: logging.ERROR,
}


def log_record(record: RecordRequest) -> None:
    """One line for each request, as the operator's log shows it."""
    level = _LEVELS[record.outcome]
    if not logger.isEnabledFor(level):
        return
    where = "-" if record.model is None else record.model
    if record.context_tokens is not None:
        where = f"{where}@{record.context_tokens}"
    parts = [f"{record.request_id} {record.path} {where} {record.outcome} {record.status}"]
    if record.usage is not None:
        cached = f" ({record.usage.cached_tokens} cached)" if record.usage.cached_tokens else ""
        parts.append(f"tokens {record.usage.prompt_tokens}{cached}+{record.usage.completion_tokens}")
    if record.attempts > 1:
        parts.append(f"attempts {record.attempts}")
    parts.append(f"{record.total_s * 1000:.0f} ms, waited {record.wait_s * 1000:.0f} ms")
    if record.problem is not None:
        parts.append(record.problem.message)
    if record.failed_attempts:
        told = Counter(f"{failed.model}: {failed.message}" for failed in record.failed_attempts)
        times = [f"{text} ({count} times)" if count > 1 else text for text, count in told.items()]
        parts.append(f"in vain: {'; '.join(times)}")
    logger.log(level, ", ".join(parts))
