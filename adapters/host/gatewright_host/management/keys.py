"""`/api/keys` and `/api/key`: who may do what. A secret is shown once, when its key is made."""

import time
from collections.abc import Sequence

from attrs import evolve

from gatewright.accounting.budgets import charges_of
from gatewright.accounting.keys import (
    KeyRequest,
    StoredKey,
    key_to_plain,
    read_key_request,
    rights_to_plain,
)
from gatewright.accounting.spending import BudgetScope
from gatewright.errors import NameTaken, NotFound
from gatewright_host.management.answering import Document, Reply, as_list, place, read_object, refuse_fields
from gatewright_host.management.asking import Asking
from gatewright_host.management.reports import budget_document
from gatewright_host.store.vocabulary import BudgetUse


def answer_collection(asked: Asking) -> Reply:
    """All keys, or a new one."""
    if asked.method == "GET":
        stored = asked.store.keys()
        return as_list([_shown(key) for key in stored])
    request = _read(asked)
    _check_admins(asked, [*asked.store.keys(), request])
    secret, key = asked.store.create_key(request)
    asked.see_keys(lambda book: key in book.keys)
    return Reply(document={**_shown(key), "secret": secret}, status=201)


def answer_one(asked: Asking) -> Reply:
    """One key: show, change or delete it."""
    stored = asked.store.keys()
    key = next((key for key in stored if key.id == asked.item), None)
    if key is None:
        raise NotFound(f"There is no key {asked.item!r}; GET /api/keys lists them")
    if asked.method == "GET":
        return Reply(document=_shown(key))
    others = [each for each in stored if each is not key]
    if asked.method == "DELETE":
        _check_admins(asked, others)
        asked.store.delete_key(key.id)
        asked.see_keys(lambda book: all(each.id != key.id for each in book.keys))
        return Reply(document=None, status=204)
    request = _read(asked, key)
    _check_admins(asked, [*others, request])
    changed = asked.store.update_key(key.id, request)
    asked.see_keys(lambda book: changed in book.keys)
    return Reply(document=_shown(changed))


def show_own(asked: Asking) -> Reply:
    """The key that the request came with: what it may do, and how much of its own budgets is left."""
    key = asked.key
    if key is None:
        raise NotFound("The request was let in without an API key, and needs none")
    own = [budget for budget in asked.config.budgets if budget.scope is BudgetScope.KEY]
    charges = charges_of(own, model="", key=key)
    uses = asked.written_store.budget_use([charge.account for charge in charges]) if charges else ()
    used = {use.account: use for use in uses}
    budgets = [used.get(charge.account, BudgetUse.untouched(charge)) for charge in charges]
    book = asked.find_office().keeper.key_book
    stored = next((each for each in book.keys if each.id == key.key_id), None)
    document = {"object": "key", **rights_to_plain(key)} if stored is None else _shown(stored)
    document["budgets"] = [budget_document(evolve(use, key_name=key.name)) for use in budgets]
    return Reply(document=document)


def _check_admins(asked: Asking, keys: Sequence[KeyRequest]) -> None:
    """See that somebody is left who may come here: once there are keys, nobody without one may.

    Args:
        asked: The request.
        keys: All keys, as they are going to be.
    """
    if keys and not asked.config.server.api_keys and not any(key.is_admin for key in keys):
        raise NameTaken(
            "No key with is_admin would be left, and nobody could manage this server over HTTP: make one with "
            '"is_admin": true first, or put one into server.api_keys',
            param="is_admin",
        )


def _read(asked: Asking, present: StoredKey | None = None) -> KeyRequest:
    where = place()
    document = read_object(asked.body)
    request = read_key_request(document, where, present)
    expires_s = document.get("expires_s")
    if isinstance(expires_s, int | float) and expires_s <= time.time():
        where.field("expires_s").report("that time has passed: expected a Unix time to come")
    if where.problems or request is None:
        raise refuse_fields(where.problems)
    return request


def _shown(key: StoredKey) -> Document:
    return {"object": "key", **key_to_plain(key)}
