"""The management API on a real store, without a server around it."""

import json
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from attrs import evolve

from gatewright.accounting.budgets import charges_of
from gatewright.accounting.keys import KeyBook, KeyRequest
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.spending import BudgetConfig, BudgetScope, Charge, KeyFacts
from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.commands import EstimateComplexity, Outcome, RecordRequest, ReserveSpend
from gatewright.config import Config, ModelConfig, ServerConfig
from gatewright.engines.spec import EngineSpec
from gatewright.events import ComplexityEstimated, EstimationFailed, GatewayEvent
from gatewright.ids import CommandId, RequestId
from gatewright.route_config import (
    ArmConfig,
    EstimatorConfig,
    EstimatorKind,
    ExperimentConfig,
    RouteConfig,
    StoreConfig,
)
from gatewright.selection.complexity import ComplexityEstimate, TaskComplexity
from gatewright.selection.decision import Decision
from gatewright.selection.profiles import Capability, Feature, ModelProfile
from gatewright.wire.server import RequestHead
from gatewright_host.management import Management, is_waiting_for_keys, wait_for_keys
from gatewright_host.metrics import Metrics
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Keeper
from gatewright_host.upstream_calls import ClientRequest
from tests.support.host import until_blocking


def model(name: str, *aliases: str, **profile: Any) -> ModelConfig:
    return ModelConfig(
        name=name,
        aliases=aliases,
        variants=(EngineSpec(model=name, context_tokens=4096, connect="http://x"),),
        profile=ModelProfile(name=name, context_tokens=4096, **profile),
    )


CONFIG = Config(
    models=(
        model("qwen", "alias", capabilities=frozenset((Capability.CODE,)), tags=frozenset(("here",))),
        model("gpt", provider="openai", features=frozenset((Feature.TOOLS,))),
    ),
    routes=(
        RouteConfig(
            name="auto",
            experiment=ExperimentConfig(
                name="trial", arms=(ArmConfig(name="a", share=0.5), ArmConfig(name="b", share=0.5))
            ),
        ),
        RouteConfig(
            name="asked", estimator=EstimatorConfig(kind=EstimatorKind.CUSTOM, function="my.module:function")
        ),
    ),
    budgets=(
        BudgetConfig(name="all", limit_usd=10.0),
        BudgetConfig(name="each", limit_usd=1.0, scope=BudgetScope.KEY),
    ),
)
RECORD = RecordRequest(
    request_id=RequestId("req_1"),
    outcome=Outcome.ANSWERED,
    path="/v1/chat/completions",
    model="qwen",
    route="auto",
    status=200,
    attempts=1,
    task="sums",
    key_id="key_ci",
    cost_usd=0.5,
    total_s=1.0,
    decision=Decision(chain=("qwen", "gpt"), route="auto", reason="the best", experiment="trial", arm="a"),
    outcomes=(
        ModelOutcome(
            request_id="req_1", model="qwen", success=True, at=0.0, task="sums", experiment="trial", arm="a"
        ),
    ),
    charges=(Charge(account="all", limit_usd=10.0),),
)
CI = KeyFacts(key_id="key_ci", name="ci")
OTHER = KeyFacts(key_id="key_other", name="other")
BOSS = KeyFacts(key_id="key_boss", name="boss", is_admin=True)


class World:
    """A process's share in a store, and what its Management answers."""

    def __init__(self, state: StateDir, config: Config = CONFIG) -> None:
        self.config = config
        self.events: list[GatewayEvent] = []
        self.metrics: Metrics | None = Metrics(state)
        self.keeper = Keeper(config, state, self.events.append, on_config=self._use)
        self.keeper.start()
        assert self.keeper.wait_ready(30)
        self.estimated: list[tuple[EstimateComplexity, ClientRequest]] = []
        self.estimation: ComplexityEstimated | EstimationFailed = EstimationFailed(
            command_id=CommandId(0), reason="too slow"
        )
        self.management = Management(self, lambda: self.config)

    def _use(self, config: Config) -> None:
        self.config = config

    def estimate(
        self, command: EstimateComplexity, request: ClientRequest
    ) -> ComplexityEstimated | EstimationFailed:
        self.estimated.append((command, request))
        return self.estimation

    def close(self) -> None:
        self.keeper.close()

    def ask(
        self, method: str, target: str, body: Any = None, key: KeyFacts | None = None
    ) -> tuple[int, dict[str, Any]]:
        endpoint = match_endpoint(method, target)
        assert isinstance(endpoint, Endpoint), endpoint
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = RequestHead(
            method=method,
            target=target,
            headers=(),
            http_version="1.1",
            expects_continue=False,
            content_length=len(data),
        )
        status, _, answer = self.management.answer(endpoint, head, data, key)
        return status, json.loads(answer) if answer else {}

    def get(self, target: str) -> Any:
        status, document = self.ask("GET", target)
        assert status == 200, document
        return document

    def refused(self, method: str, target: str, body: Any = None, **others: Any) -> tuple[int, Any, Any]:
        status, document = self.ask(method, target, body, **others)
        assert status >= 400, document
        assert document["error"]["message"]
        return status, document["error"]["code"], document["error"]["param"]

    def message(self, method: str, target: str, body: Any = None, **others: Any) -> str:
        text: str = self.ask(method, target, body, **others)[1]["error"]["message"]
        return text


@pytest.fixture
def world(state: StateDir) -> Iterator[World]:
    one = World(state)
    yield one
    one.close()


# --- models


def test_a_model_s_life(world: World):
    wanted = {"name": "mine", "connect": "http://example.org", "quality": 0.8, "tags": ["far"]}
    status, made = world.ask("POST", "/api/models", wanted)
    assert status == 201
    assert (made["name"], made["source"], made["quality"]) == ("mine", "store", 0.8)
    assert world.config.find_model("mine").profile.quality == 0.8  # this process serves it already
    assert world.get("/api/models/mine") == made
    status, changed = world.ask("PATCH", "/api/models/mine", {"quality": 0.9})
    assert (status, changed) == (200, {**made, "quality": 0.9})
    assert world.config.find_model("mine").profile.quality == 0.9
    assert world.ask("DELETE", "/api/models/mine") == (204, {})
    assert [each.name for each in world.config.models] == ["qwen", "gpt"]
    assert world.refused("GET", "/api/models/mine") == (404, "not_found", None)


def test_models_by_what_they_have(world: World):
    world.ask("POST", "/api/models", {"name": "mine", "connect": "http://x.org", "capabilities": ["code"]})

    def names(query: str = "") -> list[str]:
        return [each["name"] for each in world.get(f"/api/models{query}")["data"]]

    assert names() == ["qwen", "gpt", "mine"]
    assert names("?capability=code") == ["qwen", "mine"]
    assert names("?capability=code&tag=here") == ["qwen"]
    assert names("?capability=code,chat") == []
    assert names("?feature=tools&provider=openai") == ["gpt"]
    assert names("?source=store") == ["mine"]
    assert world.refused("GET", "/api/models?colour=red") == (400, None, "colour")


def test_the_file_s_models_are_for_the_file_to_change(world: World):
    assert world.get("/api/models/alias")["name"] == "qwen"
    for method in ("PATCH", "DELETE"):
        for name in ("qwen", "alias"):
            assert world.refused(method, f"/api/models/{name}", {"quality": 1}) == (409, "conflict", None)
    assert "configuration file" in world.message("DELETE", "/api/models/qwen")


@pytest.mark.parametrize("name", ["qwen", "alias", "auto", "mine", "other name"])
def test_a_name_means_one_thing(world: World, name: str):
    first = {"name": "mine", "aliases": ["other name"], "connect": "http://x.org"}
    assert world.ask("POST", "/api/models", first)[0] == 201
    second = {"name": name, "connect": "http://x.org"}
    assert world.refused("POST", "/api/models", second) == (409, "conflict", "name")
    third = {"name": "new", "aliases": ["free", name], "connect": "http://x.org"}
    assert world.refused("POST", "/api/models", third) == (409, "conflict", "aliases[2]")
    assert f'aliases[2]: "{name}" is already taken by ' in world.message("POST", "/api/models", third)


@pytest.mark.parametrize("name", ["", " mine", "mi\nne", "x" * 201, 7])
def test_names_go_by_the_rule_of_the_configuration(world: World, name: object):
    for field, wanted in [("name", {"name": name}), ("aliases[1]", {"name": "mine", "aliases": [name]})]:
        said = world.refused("POST", "/api/models", {**wanted, "connect": "http://x.org"})
        assert (said[0], said[2]) == (400, field)


def test_a_model_cannot_send_any_variable_of_the_server_anywhere(world: World):
    wanted = {"name": "mine", "connect": "http://collector.example.org", "api_key_env": "DATABASE_PASSWORD"}
    assert world.refused("POST", "/api/models", wanted) == (400, None, "api_key_env")
    assert "registry = { api_key_env = {" in world.message("POST", "/api/models", wanted)
    preset = {"name": "mine", "provider": "openai"}
    status, made = world.ask("POST", "/api/models", preset)
    assert (status, made["api_key_env"]) == (201, "OPENAI_API_KEY")
    moved = {"connect": "http://collector.example.org", "api_key_env": "OPENAI_API_KEY"}
    assert world.refused("PATCH", "/api/models/mine", moved) == (400, None, "api_key_env")
    assert world.get("/api/models/mine") == made
    away = {"connect": "http://collector.example.org"}
    assert world.refused("PATCH", "/api/models/mine", away) == (400, None, "api_key_env")


def test_all_wrong_fields_of_a_model_are_named(world: World):
    wrong = {"name": "mine", "connekt": "http://x.org", "quality": 2, "capabilities": ["flying"]}
    message = world.message("POST", "/api/models", wrong)
    for field in ("connekt", "quality", "capabilities", "connect"):
        assert field in message
    assert world.refused("POST", "/api/models", b"{")[0] == 400
    assert world.refused("POST", "/api/models", [])[0] == 400
    assert world.refused("PATCH", "/api/models/nobody", {})[0] == 404


def test_other_processes_see_a_model_within_seconds(world: World, state: StateDir):
    other = World(state)
    try:
        world.ask("POST", "/api/models", {"name": "mine", "connect": "http://x.org"})
        end = time.monotonic() + 20
        while all(each.name != "mine" for each in other.config.models) and time.monotonic() < end:
            time.sleep(0.05)
        assert other.config.find_model("mine").profile.name == "mine"
    finally:
        other.close()


# --- keys


def test_a_key_s_life(world: World):
    status, boss = world.ask("POST", "/api/keys", {"name": "boss", "is_admin": True})
    assert status == 201
    facts = world.keeper.key_book.find(boss["secret"], time.time())
    assert isinstance(facts, KeyFacts)
    assert (facts.key_id, facts.is_admin) == (boss["id"], True)
    status, made = world.ask("POST", "/api/keys", {"name": "ci", "models": ["qwen"]})
    secret = made.pop("secret")
    assert secret.startswith(made["prefix"])
    assert world.get(f"/api/keys/{made['id']}") == made  # without the secret
    listed = world.get("/api/keys")["data"]
    assert [each["name"] for each in listed] == ["boss", "ci"]
    assert secret not in json.dumps(listed)
    status, changed = world.ask("PATCH", f"/api/keys/{made['id']}", {"models": None, "budget_usd": 3})
    assert (status, changed["models"], changed["budget_usd"]) == (200, None, 3)
    present = world.keeper.key_book.find(secret, time.time())
    assert isinstance(present, KeyFacts)
    assert present.budget_usd == 3
    assert world.ask("DELETE", f"/api/keys/{made['id']}")[0] == 204
    assert not isinstance(world.keeper.key_book.find(secret, time.time()), KeyFacts)
    assert world.refused("GET", f"/api/keys/{made['id']}") == (404, "not_found", None)


def test_nobody_locks_everybody_out(world: World):
    assert world.refused("POST", "/api/keys", {"name": "ci"}) == (409, "conflict", "is_admin")
    _, boss = world.ask("POST", "/api/keys", {"name": "boss", "is_admin": True})
    assert world.ask("POST", "/api/keys", {"name": "ci"})[0] == 201
    assert world.refused("DELETE", f"/api/keys/{boss['id']}")[0] == 409
    assert world.refused("PATCH", f"/api/keys/{boss['id']}", {"is_admin": False})[0] == 409
    world.config = evolve(CONFIG, server=ServerConfig(api_keys=("key",)))
    assert world.ask("DELETE", f"/api/keys/{boss['id']}")[0] == 204  # the configured one is left


def test_all_wrong_fields_of_a_key_are_named(world: World):
    wrong = {"name": "", "budget_usd": -1, "expires_s": 1.0}
    message = world.message("POST", "/api/keys", wrong)
    assert [line.partition(":")[0] for line in message.split("; ")] == ["name", "budget_usd", "expires_s"]
    assert world.refused("POST", "/api/keys", wrong) == (400, None, "name")


# --- feedback


def test_feedback_is_kept_and_counted(world: World):
    world.keeper.record(RECORD)
    said = {"request_id": "req_1", "score": 0.25, "comment": "not quite"}
    status, document = world.ask("POST", "/api/feedback", said, CI)
    assert (status, document) == (200, {"object": "feedback", **said})
    assert world.ask("POST", "/api/feedback", {"request_id": "req_1", "success": True}, BOSS)[0] == 200
    kept = world.get("/api/requests/req_1")["feedback"]
    assert [(each["score"], each["comment"]) for each in kept] == [(0.25, "not quite"), (1.0, "")]
    assert world.metrics is not None
    assert b'gatewright_feedback_score_count{model="qwen"} 2.0' in world.metrics.render()[1]


def test_nobody_judges_the_answers_of_others(world: World):
    world.keeper.record(RECORD)
    said = {"request_id": "req_1", "success": False}
    assert world.refused("POST", "/api/feedback", said, key=OTHER) == (404, "not_found", "request_id")
    unknown = {"request_id": "nobody's", "success": False}
    assert world.refused("POST", "/api/feedback", unknown, key=OTHER) == (404, "not_found", "request_id")
    assert world.ask("POST", "/api/feedback", said)[0] == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"success": True}, "request_id"),
        ({"request_id": 5, "success": True}, "request_id"),
        ({"request_id": "req_1"}, "score"),
        ({"request_id": "req_1", "success": True, "score": 1}, "score"),
        ({"request_id": "req_1", "success": 1}, "success"),
        ({"request_id": "req_1", "score": 1.5}, "score"),
        ({"request_id": "req_1", "score": "good"}, "score"),
        ({"request_id": "req_1", "score": True}, "score"),
        ({"request_id": "req_1", "score": 1, "comment": 3}, "comment"),
        ({"request_id": "req_1", "score": 1, "stars": 3}, "stars"),
    ],
)
def test_feedback_that_says_nothing_clear(world: World, body: dict[str, Any], param: str):
    assert world.refused("POST", "/api/feedback", body) == (400, None, param)


# --- complexity


def test_a_request_is_scored_with_its_dimensions(world: World):
    easy = world.ask("POST", "/api/complexity", {"prompt": "Say hello."})[1]
    text = "Prove step by step that the algorithm terminates, then derive its complexity: " * 20
    hard = world.ask("POST", "/api/complexity", {"messages": [{"role": "user", "content": text}]})[1]
    assert easy["score"] < hard["score"]
    assert easy["estimator"] == "heuristic"
    assert {"name", "score", "weight", "reason"} <= set(hard["dimensions"][0])
    for body in ({"input": "Say hello."}, {"task": "t", "inputs": {"a": "Say hello."}}, {"task": "greet"}):
        assert world.ask("POST", "/api/complexity", body)[1]["complexity"] in list(TaskComplexity)


def test_the_estimator_of_a_route_is_asked(world: World):
    estimate = ComplexityEstimate(complexity=TaskComplexity.EXPERT, score=0.9, estimator="mine")
    world.estimation = ComplexityEstimated(command_id=CommandId(0), estimate=estimate, chances={"qwen": 0.1})
    body = {"route": "asked", "task": "sums", "messages": [{"role": "user", "content": "one and\none"}]}
    document = world.ask("POST", "/api/complexity", body)[1]
    assert (document["complexity"], document["estimator"], document["chances"]) == (
        "expert",
        "mine",
        {"qwen": 0.1},
    )
    command, request = world.estimated[0]
    assert command.estimator == CONFIG.routes[1].estimator
    assert command.candidates == ("qwen", "gpt")
    assert json.loads(request.body)["messages"][0]["content"] == "one and\none"
    assert request.facts.wishes is not None
    assert request.facts.wishes.task == "sums"


def test_the_heuristic_takes_the_place_of_an_estimator_that_fails(world: World):
    document = world.ask("POST", "/api/complexity", {"route": "asked", "prompt": "hi"})[1]
    assert document["estimator"] == "heuristic"
    assert document["fallback_reason"] == "custom: too slow"
    assert "fallback_reason" not in world.ask("POST", "/api/complexity", {"prompt": "hi"})[1]
    assert len(world.estimated) == 1


@pytest.mark.parametrize("estimator", ["custom", "model", {"kind": "custom", "python": "os:getcwd"}])
def test_clients_do_not_choose_what_is_run(world: World, estimator: Any):
    body = {"prompt": "hi", "estimator": estimator}
    status, code, param = world.refused("POST", "/api/complexity", body)
    assert (status, code, str(param).partition(".")[0]) == (400, None, "estimator")
    assert world.estimated == []


def test_scoring_by_a_route_needs_the_right_to_it(world: World):
    narrow = evolve(CI, routes=frozenset(("auto",)))
    assert world.ask("POST", "/api/complexity", {"route": "auto", "prompt": "hi"}, narrow)[0] == 200
    body = {"route": "asked", "prompt": "hi"}
    assert world.refused("POST", "/api/complexity", body, key=narrow)[:2] == (403, "model_not_allowed")
    assert world.refused("POST", "/api/complexity", {"route": "nope", "prompt": "hi"})[0] == 404
    assert world.refused("POST", "/api/complexity", {}) == (400, None, "messages")
    assert world.refused("POST", "/api/complexity", {"inputs": [1]}) == (400, None, "inputs")
    deep: bytes = b'{"messages": ' + b"[" * 400 + b'"x"' + b"]" * 400 + b"}"
    assert world.ask("POST", "/api/complexity", deep)[0] == 200


# --- experiments


def test_an_experiment_by_hand(world: World):
    world.keeper.record(RECORD)
    world.keeper.flush(10)
    listed = world.get("/api/experiments")["data"]
    assert [(each["name"], each["route"]) for each in listed] == [("trial", "auto")]
    assert [(arm["name"], arm["requests"], arm["share"]) for arm in listed[0]["arms"]] == [
        ("a", 1, 0.5),
        ("b", 0, 0.5),
    ]

    def act(action: str, arm: str | None = None) -> Any:
        status, document = world.ask("POST", "/api/experiments/trial", {"action": action, "arm": arm})
        assert status == 200, document
        return document

    stopped = act("stop", "b")
    assert [(arm["is_stopped"], arm["share"]) for arm in stopped["arms"]] == [(False, 1.0), (True, 0.0)]
    assert world.refused("POST", "/api/experiments/trial", {"action": "stop", "arm": "a"})[0] == 409
    assert world.refused("POST", "/api/experiments/trial", {"action": "promote", "arm": "b"})[0] == 409
    act("resume", "b")
    promoted = act("promote", "b")
    assert [arm["share"] for arm in promoted["arms"]] == [0.0, 1.0]
    assert world.refused("POST", "/api/experiments/trial", {"action": "stop", "arm": "b"})[0] == 409
    assert act("end")["is_ended"] is True
    afresh = act("resume")
    assert (afresh["is_ended"], [arm["share"] for arm in afresh["arms"]]) == (False, [0.5, 0.5])
    assert world.get("/api/experiments/trial") == afresh


def test_what_cannot_be_done_to_an_experiment(world: World):
    assert world.refused("GET", "/api/experiments/nope") == (404, "not_found", None)
    for body, param in (
        ({"action": "win"}, "action"),
        ({}, "action"),
        ({"action": "stop"}, "arm"),
        ({"action": "stop", "arm": "z"}, "arm"),
        ({"action": "end", "why": "so"}, "why"),
    ):
        assert world.refused("POST", "/api/experiments/trial", body) == (400, None, param)


# --- reports


def test_a_stored_request_with_its_decision(world: World):
    world.keeper.record(RECORD)
    document = world.get("/api/requests/req_1")
    assert (document["request_id"], document["model"], document["key_id"]) == ("req_1", "qwen", "key_ci")
    assert document["decision"]["chain"] == ["qwen", "gpt"]
    assert document["decision"]["reason"] == "the best"
    assert document["prompt"] is None
    assert abs(document["at_s"] - time.time()) < 60
    assert world.refused("GET", "/api/requests/req_2") == (404, "not_found", None)


def test_usage_by_what_is_asked(world: World):
    world.keeper.record(RECORD)
    world.keeper.record(evolve(RECORD, request_id=RequestId("req_2"), model="gpt", key_id=None))
    rows = world.get("/api/usage?by=model,key")["data"]
    assert {(row["model"], row["key"], row["requests"]) for row in rows} == {
        ("qwen", "key_ci", 1),
        ("gpt", "", 1),
    }
    assert sum(row["cost_usd"] for row in rows) == 1.0
    assert [row["requests"] for row in world.get("/api/usage")["data"]] == [2]
    assert [row["model"] for row in world.get("/api/usage?by=model&key=key_ci&limit=5")["data"]] == ["qwen"]
    assert world.get("/api/usage?until=2001-01-01")["data"] == []
    assert len(world.get("/api/usage?by=hour&since=2001-01-01T00:00:00%2B02:00")["data"]) == 1
    assert len(world.get("/api/usage?since=978307200.5")["data"]) == 1
    for query, param in (
        ("by=colour", "by"),
        ("since=yesterday", "since"),
        ("until=1e999", "until"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("colour=red", "colour"),
    ):
        assert world.refused("GET", f"/api/usage?{query}") == (400, None, param)


def test_who_does_a_task_best(world: World):
    world.keeper.record(RECORD)
    rows = world.get("/api/ranking?task=sums")["data"]
    assert [(row["task"], row["model"], row["calls"], row["success_rate"]) for row in rows] == [
        ("sums", "qwen", 1, 1.0)
    ]
    assert world.get("/api/ranking?min_calls=2")["data"] == []
    assert world.get("/api/ranking?together=true")["data"][0]["task"] == ""
    assert world.refused("GET", "/api/ranking?together=maybe") == (400, None, "together")


def test_budgets_used_and_untouched(world: World):
    assert [(each["account"], each["left_usd"]) for each in world.get("/api/budgets")["data"]] == [
        ("all", 10.0)
    ]
    world.keeper.reserve(
        ReserveSpend(
            command_id=CommandId(1), request_id=RequestId("req_1"), charges=RECORD.charges, amount_usd=2.0
        )
    )
    held = world.get("/api/budgets")["data"][0]
    assert (held["reserved_usd"], held["spent_usd"], held["left_usd"]) == (2.0, 0.0, 8.0)
    assert held["window"] == "month"


def test_budgets_that_were_removed_are_told_apart(world: World):
    _, key = world.keeper.store.create_key(KeyRequest(name="own", budget_usd=5.0))
    of_key = f"each/key={key.id}"
    for number, account in enumerate(("gone", of_key, "each/key=key_gone", "each/model=qwen")):
        charges = (Charge(account=account, limit_usd=10.0),)
        world.keeper.reserve(
            ReserveSpend(
                command_id=CommandId(number),
                request_id=RequestId(f"req_{number}"),
                charges=charges,
                amount_usd=2.0,
            )
        )
    facts = evolve(key.facts, budget_usd=5.0)
    world.keeper.reserve(
        ReserveSpend(
            command_id=CommandId(9),
            request_id=RequestId("req_9"),
            charges=charges_of((), model="qwen", key=facts),
            amount_usd=2.0,
        )
    )
    shown = [(each["account"], each["configured"]) for each in world.get("/api/budgets")["data"]]
    live = ["all", of_key, f"key/{key.id}"]
    removed = ["each/key=key_gone", "each/model=qwen", "gone"]
    assert shown == [*((name, True) for name in live), *((name, False) for name in removed)]
    named = {each["account"]: each["key_name"] for each in world.get("/api/budgets")["data"]}
    assert [named[name] for name in live] == ["", "own", "own"]
    world.keeper.store.update_key(key.id, evolve(key.request, budget_usd=None))
    shown = [(each["account"], each["configured"]) for each in world.get("/api/budgets")["data"]]
    assert (f"key/{key.id}", False) in shown


def test_a_key_sees_its_own_rights_and_budgets_and_nobody_elses(world: World):
    _, key = world.keeper.store.create_key(
        KeyRequest(name="own", budget_usd=5.0, models=frozenset(("qwen",)), expires_s=4e9)
    )
    until_blocking(lambda: key in world.keeper.key_book.keys)
    untouched = world.ask("GET", "/api/key", key=key.facts)[1]
    assert untouched["object"] == "key"
    assert (untouched["id"], untouched["name"], untouched["models"]) == (key.id, "own", ["qwen"])
    assert untouched["expires_s"] == 4e9
    assert not {"secret", "hash"} & set(untouched)
    world.keeper.reserve(
        ReserveSpend(
            command_id=CommandId(1),
            request_id=RequestId("req_1"),
            charges=charges_of(CONFIG.budgets, model="qwen", key=key.facts),
            amount_usd=0.25,
        )
    )
    budgets = world.ask("GET", "/api/key", key=key.facts)[1]["budgets"]
    assert [(each["account"], each["limit_usd"], each["left_usd"]) for each in budgets] == [
        (f"each/key={key.id}", 1.0, 0.75),
        (f"key/{key.id}", 5.0, 4.75),
    ]
    assert [each["left_usd"] for each in untouched["budgets"]] == [1.0, 5.0]
    others = world.ask("GET", "/api/key", key=OTHER)[1]
    assert [(each["account"], each["left_usd"]) for each in others["budgets"]] == [
        ("each/key=key_other", 1.0)
    ]
    assert world.refused("GET", "/api/key") == (404, "not_found", None)


# --- without a store


def test_a_store_that_is_switched_off_is_told_of(state: StateDir):
    world = World(state, evolve(CONFIG, store=StoreConfig(enabled=False)))
    try:
        for target in ("/api/models", "/api/keys", "/api/usage", "/api/experiments"):
            assert world.refused("GET", target) == (503, "store_unavailable", None)
        assert world.ask("POST", "/api/complexity", {"prompt": "hi"})[0] == 200
        assert world.ask("GET", "/api/models/qwen")[0] == 200
        none = Management(None, lambda: CONFIG)
        world.management = none
        assert world.refused("GET", "/api/keys") == (503, "store_unavailable", None)
        assert world.refused("GET", "/metrics") == (503, "store_unavailable", None)
    finally:
        world.close()


def test_a_defect_is_answered_too(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail() -> NoReturn:
        raise OverflowError("too large")

    monkeypatch.setattr(world.keeper.store, "keys", fail)
    assert world.refused("GET", "/api/keys") == (500, None, None)
    assert "a defect of this program" in caplog.text


def test_figures_are_shown(world: World):
    endpoint = match_endpoint("GET", "/metrics")
    assert isinstance(endpoint, Endpoint)
    head = RequestHead(
        method="GET",
        target="/metrics",
        headers=((b"accept", b"application/openmetrics-text"),),
        http_version="1.1",
        expects_continue=False,
        content_length=None,
    )
    status, headers, body = world.management.answer(endpoint, head, b"", None)
    assert status == 200
    assert dict(headers)[b"content-type"].startswith(b"application/openmetrics-text")
    assert b"gatewright_requests_in_flight" in body


# --- the moment after a start


class SlowKeeper:
    def __init__(self, unavailable: str | None = None, ready_after: int = 1) -> None:
        self.unavailable = unavailable
        self.looks_left = ready_after

    def wait_ready(self, timeout_s: float) -> bool:
        assert timeout_s > 0
        self.looks_left -= 1
        return self.looks_left <= 0


def test_whoever_comes_before_the_keys_are_read_waits_for_them_unless_the_store_is_away():
    from gatewright.api.access import Access, check_access  # noqa: PLC0415  # beside its one use

    unknown = check_access("GET", "/v1/models", (), ServerConfig(), keys=KeyBook(is_read=False))
    refused = check_access("GET", "/v1/models", (), ServerConfig(api_keys=("k",)))
    assert is_waiting_for_keys(unknown, SlowKeeper())
    assert not is_waiting_for_keys(unknown, SlowKeeper("no connection"))
    assert not is_waiting_for_keys(unknown, None)
    assert not is_waiting_for_keys(refused, SlowKeeper())
    assert not is_waiting_for_keys(Access(), SlowKeeper())
    keeper = SlowKeeper(ready_after=3)
    wait_for_keys(keeper)
    assert keeper.looks_left == 0
    gone = SlowKeeper("no connection", ready_after=3)
    wait_for_keys(gone)
    assert gone.looks_left == 2
    wait_for_keys(None)
