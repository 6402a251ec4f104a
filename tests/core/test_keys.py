import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.accounting.keys import (
    KEY_FIELDS,
    KeyBook,
    KeyRequest,
    StoredKey,
    hash_key,
    key_to_plain,
    read_key_request,
)
from gatewright.accounting.spending import KeyFacts, Window, WindowKind
from gatewright.configuration.reader import Place
from gatewright.errors import Problem

SECRET = "gw-0123456789abcdef"
KEY = StoredKey.make("key_1", SECRET, KeyRequest(name="ci", models=frozenset(("qwen",))), created_s=100.0)


def read(raw: Any, present: StoredKey | None = None) -> KeyRequest:
    place = Place("")
    request = read_key_request(raw, place, present)
    assert place.problems == []
    assert request is not None
    return request


def refuse(raw: Any, present: StoredKey | None = None) -> list[str]:
    place = Place("")
    assert read_key_request(raw, place, present) is None
    assert place.problems
    return place.problems


# --- finding


def test_what_is_kept_of_a_secret_is_its_sha_256():
    assert hash_key(SECRET) == hashlib.sha256(SECRET.encode()).hexdigest()
    assert SECRET not in repr(KEY)
    assert KEY.hash not in repr(KEY)
    assert SECRET.startswith(KEY.prefix)
    assert len(KEY.prefix) < len(SECRET)


def test_a_presented_secret_is_found_and_others_are_not():
    book = KeyBook([KEY])
    facts = book.find(SECRET, 0.0)
    assert facts == KeyFacts(key_id="key_1", name="ci", models=frozenset(("qwen",)))
    for other in (SECRET + "x", SECRET[:-1], "", KEY.hash, KEY.prefix, KEY.id, SECRET.upper(), "\udcff"):
        problem = book.find(other, 0.0)
        assert isinstance(problem, Problem)
        assert (problem.kind, problem.status, problem.code) == ("Unauthorized", 401, "invalid_api_key")


def test_an_expired_key_is_told_so_by_name():
    key = KEY.changed(KeyRequest(name="old", expires_s=500.0))
    book = KeyBook([key])
    assert isinstance(book.find(SECRET, 499.9), KeyFacts)
    problem = book.find(SECRET, 500.0)
    assert isinstance(problem, Problem)
    assert "expired" in problem.message
    assert "'old'" in problem.message
    assert SECRET not in problem.message


def test_a_book_that_was_not_read_is_not_an_empty_one():
    assert KeyBook().is_read
    assert not KeyBook(is_read=False).is_read
    assert len(KeyBook([KEY])) == 1


def test_a_change_keeps_id_secret_and_time():
    changed = KEY.changed(KeyRequest(name="new", is_admin=True))
    assert (changed.id, changed.hash, changed.prefix, changed.created_s) == (
        KEY.id,
        KEY.hash,
        KEY.prefix,
        100.0,
    )
    assert changed.request == KeyRequest(name="new", is_admin=True)
    assert changed.facts.is_admin


@given(st.lists(st.text(min_size=1), unique=True, max_size=20), st.text())
def test_every_key_is_found_by_its_own_secret_alone(secrets: list[str], other: str):
    keys = [StoredKey.make(f"key_{n}", secret, KeyRequest(name="k"), 0.0) for n, secret in enumerate(secrets)]
    book = KeyBook(keys)
    for key, secret in zip(keys, secrets, strict=True):
        assert book.find(secret, 0.0) == key.facts
    if other not in secrets:
        assert isinstance(book.find(other, 0.0), Problem)


# --- reading wishes


def test_a_name_is_enough():
    assert read({"name": "ci"}) == KeyRequest(name="ci")


def test_everything_that_can_be_said_of_a_key():
    raw = {
        "name": "ci",
        "expires_s": 1e10,
        "is_admin": True,
        "models": ["qwen", "gpt"],
        "routes": [],
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "budget_usd": 2.5,
        "budget_window": {"rolling": "day"},
    }
    request = read(raw)
    assert set(raw) == set(KEY_FIELDS)
    assert request.models == {"qwen", "gpt"}
    assert request.routes == frozenset()  # none at all, which is another thing than all of them
    assert request.budget_window == Window(kind=WindowKind.ROLLING, period="day")
    key = StoredKey.make("key_2", SECRET, request, 0.0)
    shown = key_to_plain(key)
    assert {name: shown[name] for name in raw} == raw | {"models": ["gpt", "qwen"]}
    assert read({name: shown[name] for name in KEY_FIELDS}) == request


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "ci", "models": "qwen"}, "models"),
        ({"name": "ci", "models": [1]}, "models[1]"),
        ({"name": "ci", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "ci", "tokens_per_minute": 1.5}, "tokens_per_minute"),
        ({"name": "ci", "budget_usd": -1}, "budget_usd"),
        ({"name": "ci", "budget_usd": "5"}, "budget_usd"),
        ({"name": "ci", "budget_window": "year"}, "budget_window"),
        ({"name": "ci", "budget_window": {"rolling": "year"}}, "budget_window.rolling"),
        ({"name": "ci", "budget_window": {}}, "budget_window.rolling"),
        ({"name": "ci", "is_admin": "yes"}, "is_admin"),
        ({"name": "ci", "expires_s": "tomorrow"}, "expires_s"),
        ({"name": "ci", "budget": 3}, "budget"),
        ({"name": "ci", "id": "key_9"}, "id"),
        ({"name": "ci", "hash": "0"}, "hash"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(raw: dict[str, Any], field: str):
    assert [line.partition(":")[0] for line in refuse(raw)] == [field]


def test_all_problems_are_told_at_once():
    assert len(refuse({"modells": [], "tokens_per_minute": 0, "is_admin": 1})) == 4  # the name is missing too


def test_no_object_is_no_key():
    assert refuse([1]) != []


def test_a_change_leaves_what_it_does_not_name_and_null_takes_limits_away():
    key = KEY.changed(
        KeyRequest(name="ci", is_admin=True, models=frozenset(("qwen",)), budget_usd=5.0, expires_s=9e9)
    )
    assert read({}, key) == key.request
    assert read({"name": "other"}, key).models == {"qwen"}
    freed = read({"models": None, "budget_usd": None, "expires_s": None, "is_admin": None}, key)
    assert freed == KeyRequest(name="ci")
    assert refuse({"name": None}, key)[0].startswith("name: missing")
    assert refuse({"budget_usd": -1}, key)[0].startswith("budget_usd: ")
