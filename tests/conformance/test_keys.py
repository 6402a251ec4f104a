"""API keys of the store: what they may use, how often, for how much money and for how long, in all processes."""

import time
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import frozen

from gatewright.accounting.keys import KeyRequest
from gatewright_cli.verification.client import Answer, Client
from gatewright_host.store import Store
from tests.conformance.choosing import Choosing, Document, eventually, problem

COST_USD = 0.2
"""Of an answer of a model with `CENTS`."""


@frozen
class Owner:
    """Who has a key of the store.

    Attributes:
        key: As the management API shows it.
        here: Presents it to the gateway.
        there: Presents it to its neighbour.
    """

    key: Document
    here: Client
    there: Client

    @property
    def both(self) -> tuple[Client, Client]:
        """To all processes."""
        return self.here, self.there


MAY: Mapping[str, Mapping[str, Any]] = {
    "narrow": {"models": ["spare"], "routes": ["whole"]},
    "useless": {"models": ["tin"], "routes": ["best"]},
    "sly": {"models": ["broken-wish"], "routes": []},
    "doomed": {},
    "growing": {"models": ["tin"]},
    "hasty": {"requests_per_minute": 2},
    "wordy": {"tokens_per_minute": 1500},
    "poor": {"budget_usd": 1.5 * COST_USD, "budget_window": "day"},
}
"""Who has a key, and what it may."""


@pytest.fixture(scope="module")
def owners(choosing: Choosing) -> Mapping[str, Owner]:
    """Everybody who has a key, known to all processes."""
    found = {}
    for name, may in MAY.items():
        key = choosing.manage("POST", "/api/keys", {"name": name, **may})
        secret = key["secret"]
        found[name] = Owner(key, choosing.client.with_key(secret), choosing.neighbour.with_key(secret))
    # They are read all at once: who knows the last one knows them all.
    choosing.everywhere(lambda client: client.get("/v1/models").status == 200, found["poor"].both)
    return found


def asked(choosing: Choosing, model: str, client: Client) -> Answer:
    return client.post("/v1/chat/completions", choosing.body(model))


def refused(choosing: Choosing, model: str, client: Client) -> Document:
    """The error that ends a row of answers; what was answered before is counted in `answered`."""
    for answered in range(10):
        answer = asked(choosing, model, client)
        if answer.status == 200:
            choosing.record(answer)  # from now on its true cost counts
        else:
            waits = (answer.get("retry-after"), answer.get("x-should-retry"))
            return {**problem(answer), "answered": answered, "waits": waits}
    raise AssertionError("ten answers, and no end of it")


# --- what it may use


def test_a_key_may_use_the_models_and_routes_that_it_names(
    choosing: Choosing, owners: Mapping[str, Owner]
) -> None:
    someone = owners["narrow"]
    for client in someone.both:
        assert choosing.who("spare", via=client) == "spare"
        for forbidden in ("other-spare", "best"):
            error = choosing.refuse(forbidden, via=client)
            assert (error["status"], error["code"]) == (403, "model_not_allowed")
            assert (error["type"], error["param"]) == ("invalid_request_error", "model")
            assert forbidden in error["message"]
        answer = choosing.ask("whole", via=client)  # its best candidate is not for this key
        assert (answer.get("x-gw-model"), answer.get("x-gw-chain")) == ("spare", "spare")
        assert answer.get("x-gw-failed") is None


def test_a_key_without_any_model_of_a_route_hears_why(
    choosing: Choosing, owners: Mapping[str, Owner]
) -> None:
    someone = owners["useless"]
    error = choosing.refuse("best", via=someone.here)
    assert (error["status"], error["code"]) == (400, "no_model_fits")
    assert "the API key may not use it" in error["message"]


def test_a_key_does_not_reach_other_models_by_its_wishes(
    choosing: Choosing, owners: Mapping[str, Owner]
) -> None:
    someone = owners["sly"]
    before = len(choosing.provider.received("other-spare"))
    error = choosing.refuse("broken-wish", via=someone.here, gatewright={"fallbacks": ["other-spare"]})
    assert error["status"] >= 500
    assert len(choosing.provider.received("other-spare")) == before


def test_a_key_of_the_store_works_whoever_wrote_it_there(choosing: Choosing) -> None:
    with Store.open(f"sqlite:///{choosing.state.path}/gatewright.db") as store:
        secret, stored = store.create_key(KeyRequest(name="by hand", models=frozenset({"spare"})))
        here, there = choosing.client.with_key(secret), choosing.neighbour.with_key(secret)
        try:
            choosing.everywhere(lambda client: asked(choosing, "spare", client).status == 200, (here, there))
            record = choosing.record(choosing.ask("spare", via=here))
            assert record["key_id"] == stored.id
        finally:
            store.delete_key(stored.id)
    choosing.everywhere(lambda client: client.get("/v1/models").status == 401, (here, there))


# --- how long


def test_a_key_ends_at_its_time(choosing: Choosing) -> None:
    key = choosing.manage("POST", "/api/keys", {"name": "guest", "expires_s": time.time() + 1.5})
    guest, elsewhere = choosing.client.with_key(key["secret"]), choosing.neighbour.with_key(key["secret"])
    eventually(lambda: guest.get("/v1/models").status == 200, "it is known")
    for client in (guest, elsewhere):
        eventually(lambda one=client: b"expired" in one.get("/v1/models").body, "its time is over")
        answer = client.post("/v1/chat/completions", choosing.body("spare"))
        assert problem(answer)["code"] == "invalid_api_key"


def test_a_key_that_is_taken_away_is_worth_nothing_within_seconds(
    choosing: Choosing, owners: Mapping[str, Owner]
) -> None:
    someone = owners["doomed"]
    assert choosing.who("spare", via=someone.there) == "spare"
    choosing.manage("DELETE", f"/api/keys/{someone.key['id']}")
    choosing.everywhere(lambda client: asked(choosing, "spare", client).status == 401, someone.both)


def test_what_a_key_may_can_be_changed(choosing: Choosing, owners: Mapping[str, Owner]) -> None:
    someone = owners["growing"]
    assert asked(choosing, "spare", someone.here).status == 403
    choosing.manage("PATCH", f"/api/keys/{someone.key['id']}", {"models": None})
    choosing.everywhere(lambda client: asked(choosing, "spare", client).status == 200, someone.both)
    assert asked(choosing, "best", someone.here).status == 200


# --- how often


def test_requests_of_a_minute_are_counted_over_all_processes(
    choosing: Choosing, owners: Mapping[str, Owner]
) -> None:
    someone = owners["hasty"]
    first = asked(choosing, "spare", someone.there).status
    error = refused(choosing, "spare", someone.here)
    assert first == 200
    assert 1 <= error["answered"] <= 3  # a minute may just have ended
    assert (error["status"], error["code"]) == (429, "rate_limit_exceeded")
    retry_after, should_retry = error["waits"]
    assert 1 <= int(retry_after) <= 60
    assert should_retry != "false"
    assert asked(choosing, "whole", someone.there).status == 429  # no other model helps against it


def test_tokens_of_a_minute_are_counted_as_they_were_used(
    choosing: Choosing, owners: Mapping[str, Owner]
) -> None:
    someone = owners["wordy"]
    error = refused(choosing, "spare", someone.here)
    assert 2 <= error["answered"] <= 4  # each is thought to take a few, and takes 1100
    assert (error["status"], error["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(error["waits"][0]) <= 60


# --- for how much


def test_the_budget_of_a_key_ends(choosing: Choosing, owners: Mapping[str, Owner]) -> None:
    someone = owners["poor"]
    error = refused(choosing, "keyed", someone.here)
    assert error["answered"] == 2  # the second began while some was left
    assert (error["status"], error["code"], error["type"]) == (429, *("insufficient_quota",) * 2)
    assert error["waits"][1] == "false"
    assert error["resets_at"] > time.time()
    for stream in (False, True):
        body = choosing.body("keyed", stream=stream)
        assert someone.there.post("/v1/chat/completions", body).status == 429
    assert choosing.who("spare", via=someone.here) == "spare"  # what costs nothing still goes
    (account,) = [
        each
        for each in choosing.manage("GET", "/api/budgets")["data"]
        if someone.key["id"] in each["account"]
    ]
    assert account["spent_usd"] == pytest.approx(2 * COST_USD)
    assert account["reserved_usd"] == 0
    own = choosing.manage("GET", "/api/key", via=someone.here)
    assert [each["account"] for each in own["budgets"]] == [account["account"]]
    assert own["budgets"][0]["left_usd"] == account["left_usd"]
