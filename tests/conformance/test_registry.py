"""Models that are registered while gateways run, in all processes."""

import json

from gatewright_cli.verification.check import CHAT
from gatewright_cli.verification.client import Client
from tests.conformance.choosing import Choosing, problem


def status(choosing: Choosing, name: str, client: Client) -> int:
    return client.post(CHAT, choosing.body(name)).status


def listed(client: Client) -> set[str]:
    return {each["id"] for each in json.loads(client.get("/v1/models").body)["data"]}


def test_a_registered_model_serves_by_name_and_by_route_until_it_is_gone(choosing: Choosing) -> None:
    error = choosing.refuse("fresh")
    assert (error["status"], error["code"]) == (400, "no_model_fits")
    model = {
        "name": "newcomer",
        "connect": choosing.provider.url,
        "upstream_model": "speaks-newcomer",
        "tags": ["fresh"],
        "quality": 0.6,
    }
    created = choosing.manage("POST", "/api/models", model)
    assert (created["source"], created["tags"]) == ("store", ["fresh"])
    try:
        choosing.everywhere(
            lambda client: status(choosing, "newcomer", client) == 200,
        )
        choosing.everywhere(
            lambda client: status(choosing, "fresh", client) == 200,
        )
        choosing.everywhere(
            lambda client: "newcomer" in listed(client),
        )
        answer = choosing.ask("fresh")
        assert (answer.get("x-gw-route"), answer.get("x-gw-model")) == ("fresh", "newcomer")
        assert choosing.who("fresh", gatewright={"criteria": {"min_quality": 0.5}}) == "newcomer"

        change = {"upstream_model": "speaks-newname", "tags": ["fresh", "new"], "input_per_million": 100}
        choosing.manage("PATCH", "/api/models/newcomer", change, via=choosing.neighbour)
        choosing.everywhere(
            lambda client: "speaks-newname" in client.post(CHAT, choosing.body("newcomer")).body.decode(),
            choosing.both,
        )
        answer = choosing.ask("newcomer")
        assert float(answer.get("x-gw-cost-usd") or 0) == 0.1
        newest = choosing.manage("GET", "/api/models?tag=new")["data"]
        assert [each["name"] for each in newest] == ["newcomer"]
    finally:
        choosing.manage("DELETE", "/api/models/newcomer")
    choosing.everywhere(
        lambda client: status(choosing, "newcomer", client) == 404,
    )
    choosing.everywhere(
        lambda client: status(choosing, "fresh", client) == 400,
    )
    choosing.everywhere(
        lambda client: "newcomer" not in listed(client),
    )


def test_what_stands_in_the_file_is_changed_there_alone(choosing: Choosing) -> None:
    shown = choosing.manage("GET", "/api/models/master")
    assert (shown["source"], shown["quality"]) == ("config", 0.95)
    for method, path, body in (
        ("PATCH", "/api/models/master", {"quality": 0.1}),
        ("DELETE", "/api/models/master", None),
        ("POST", "/api/models", {"name": "master", "connect": choosing.provider.url}),
        ("POST", "/api/models", {"name": "auto", "connect": choosing.provider.url}),
    ):
        error = problem(choosing.send(method, path, body))
        assert (error["status"], error["code"]) == (409, "conflict"), (method, path, error)
    assert choosing.manage("GET", "/api/models/master") == shown


def test_a_model_that_cannot_be_is_refused_by_its_fields(choosing: Choosing) -> None:
    error = problem(
        choosing.send(
            "POST", "/api/models", {"name": "x", "connect": "nowhere", "quality": 3, "colour": "red"}
        )
    )
    assert error["status"] == 400
    for field in ("connect", "quality", "colour"):
        assert field in error["message"]
    assert choosing.send("PATCH", "/api/models/nobody", {"quality": 0.5}).status == 404
