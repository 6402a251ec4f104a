"""`/api/requests`, `/api/budgets`, `/api/usage`, `/api/ranking`: what was done, and what it cost."""

from typing import Final

import msgspec
from attrs import asdict

from gatewright.accounting.keys import window_to_plain
from gatewright.errors import InvalidRequest, NotFound
from gatewright_host.budget_overview import budget_overview
from gatewright_host.management.answering import Document, Query, Reply, as_list
from gatewright_host.management.asking import Asking
from gatewright_host.store.analytics import usage_rows
from gatewright_host.store.analytics_ranking import ranking_rows
from gatewright_host.store.analytics_sql import By, Slice
from gatewright_host.store.vocabulary import BudgetUse

_SLICE: Final = ("since", "until", "key", "model", "route", "task", "user")


def one_request(asked: Asking) -> Reply:
    """A request as it was written down, with the decision."""
    found = asked.written_store.find_request(asked.item)
    if found is None:
        raise NotFound(
            f"There is no request {asked.item[:100]!r}; its id is in the x-request-id of its answer"
        )
    document: Document = msgspec.to_builtins(found.record)
    for unkept in ("charges", "charged_usd", "judge"):
        document.pop(unkept, None)
    feedback: list[Document] = msgspec.to_builtins(found.feedback)
    return Reply(
        document={
            "object": "request",
            **document,
            "at_s": found.at_s,
            "prompt": found.prompt,
            "feedback": feedback,
        }
    )


def budgets(asked: Asking) -> Reply:
    """How much of each budget is used; those of which nothing was are there if they are not some key's or model's own."""
    store = asked.written_store
    used = budget_overview(store.budget_use(), asked.config.budgets, store.keys())
    return as_list([budget_document(use) for use in used])


def budget_document(use: BudgetUse) -> Document:
    """One budget as it is shown."""
    return {
        "object": "budget",
        **asdict(use, filter=lambda attribute, _: attribute.name != "window"),
        "window": window_to_plain(use.window),
        "left_usd": use.left_usd,
    }


def usage(asked: Asking) -> Reply:
    """Requests, tokens, money and time by whatever the query says."""
    query = Query.of(asked.target, ("by", "limit", *_SLICE))
    by = [_by(name) for name in query.all("by")]
    rows = usage_rows(asked.written_store, by, within=_slice(query), limit=query.count("limit"))
    names = [each.value for each in by]
    return as_list(
        [
            {
                **dict(zip(names, row.group, strict=True)),
                **asdict(row, filter=lambda attribute, _: attribute.name != "group"),
                "error_rate": row.error_rate,
                "fallback_rate": row.fallback_rate,
            }
            for row in rows
        ]
    )


def ranking(asked: Asking) -> Reply:
    """Who does which task best."""
    query = Query.of(asked.target, ("min_calls", "together", *_SLICE))
    together = query.find("together")
    if together not in {None, "true", "false"}:
        raise InvalidRequest("together: expected true or false", param="together")
    rows = ranking_rows(
        asked.written_store,
        min_calls=query.count("min_calls") or 1,
        within=_slice(query),
        together=together == "true",
    )
    return as_list([{**asdict(row), "cost_per_call_usd": row.cost_per_call_usd} for row in rows])


def _slice(query: Query) -> Slice:
    return Slice(
        since_s=query.moment_s("since"),
        until_s=query.moment_s("until"),
        key_id=query.find("key"),
        model=query.find("model"),
        route=query.find("route"),
        task=query.find("task"),
        user=query.find("user"),
    )


def _by(name: str) -> By:
    try:
        return By(name)
    except ValueError:
        raise InvalidRequest(f"by: expected {', '.join(each.value for each in By)}", param="by") from None
