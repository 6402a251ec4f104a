"""What an API key may use in a minute: requests and tokens, over every stretch of 60 s."""

import math
from typing import Final

from attrs import evolve
from sqlalchemy import Connection, delete, func, insert, select, text, update

from gatewright.accounting.spending import KeyFacts
from gatewright.errors import Problem, RateLimited
from gatewright.ids import RequestId
from gatewright_host.store.tables import rate_uses

WINDOW_S: Final = 60.0
_SHORTEST_S: Final = 0.1
_LOCK_CLASS: Final = 7148
_MOST_TOKENS: Final = 2**42
"""That are written for one request: clients may wish for what they like, and sums of these fit every database."""


def check(
    connection: Connection, key: KeyFacts, request_id: RequestId, amount_tokens: int, now_s: float
) -> Problem | None:
    """Count a request on its key, unless that would exceed a limit; a request counts once, however often it is checked."""
    if key.requests_per_minute is None and key.tokens_per_minute is None:
        return None
    if connection.dialect.name == "postgresql":
        # Until the transaction's end, so that nobody else of this key counts what we see now.
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:kind, hashtext(:key))"),
            {"kind": _LOCK_CLASS, "key": key.key_id},
        )
    connection.execute(delete(rate_uses).where(rate_uses.c.request_id == request_id))
    recent = (
        rate_uses.c.key_id == key.key_id,
        rate_uses.c.at_s > now_s - WINDOW_S,
    )
    requests, tokens = connection.execute(
        select(func.count(), func.coalesce(func.sum(rate_uses.c.tokens), 0)).where(*recent)
    ).one()
    problem = _problem(key, int(requests), int(tokens), amount_tokens)
    if problem is not None:
        uses = connection.execute(
            select(rate_uses.c.at_s, rate_uses.c.tokens).where(*recent).order_by(rate_uses.c.at_s)
        ).all()
        return problem.with_retry_after(
            _wait_s(key, [(use.at_s, use.tokens) for use in uses], amount_tokens, now_s)
        )
    if key.tokens_per_minute is not None and amount_tokens > key.tokens_per_minute:
        return _too_large(key, key.tokens_per_minute, amount_tokens)
    connection.execute(
        insert(rate_uses).values(
            request_id=request_id, key_id=key.key_id, at_s=now_s, tokens=_countable(amount_tokens)
        )
    )
    return None


def correct(connection: Connection, request_id: RequestId, tokens: int) -> None:
    """Say how many tokens a request takes or took, where that was thought otherwise before."""
    connection.execute(
        update(rate_uses).where(rate_uses.c.request_id == request_id).values(tokens=_countable(tokens))
    )


def _countable(tokens: int) -> int:
    return min(max(tokens, 0), _MOST_TOKENS)


def forget(connection: Connection, now_s: float) -> None:
    """Delete what is in no minute any more."""
    connection.execute(delete(rate_uses).where(rate_uses.c.at_s <= now_s - 2 * WINDOW_S))


def _problem(key: KeyFacts, requests: int, tokens: int, amount_tokens: int) -> Problem | None:
    if key.requests_per_minute is not None and requests >= key.requests_per_minute:
        return RateLimited(
            f"API key {key.name!r} has made its {key.requests_per_minute} requests of this minute; try again later"
        ).problem
    limit = key.tokens_per_minute
    if limit is not None and amount_tokens <= limit < tokens + amount_tokens:
        return RateLimited(
            f"API key {key.name!r} has used {tokens} of its {limit} tokens of this minute, "
            f"and the request takes about {amount_tokens}; try again later"
        ).problem
    return None


def _too_large(key: KeyFacts, limit: int, amount_tokens: int) -> Problem:
    problem = RateLimited(
        f"The request takes about {amount_tokens} tokens, more than the {limit} that API key {key.name!r} "
        "may use in a minute; shorten it, or ask for a larger limit"
    ).problem
    return evolve(problem, should_retry=False)


def _wait_s(key: KeyFacts, uses: list[tuple[float, int]], amount_tokens: int, now_s: float) -> float:
    """Seconds until enough of what was used is older than a minute."""
    requests = len(uses)
    tokens = sum(used for _, used in uses)
    last_s = now_s
    for at_s, used in uses:
        if _problem(key, requests, tokens, amount_tokens) is None:
            break
        requests -= 1
        tokens -= used
        last_s = at_s
    # Rounded up, so that whoever waits that long does not come too early.
    return max(math.ceil((last_s + WINDOW_S - now_s) * 10) / 10, _SHORTEST_S)
