"""`gw-cli explain` of routes and of decisions that were made."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, InProcess, model_lua
from tests.cli.figures import ROUTES, configure, fill, open_store

HARD = "Prove step by step that the square root of 2 is irrational, then write a Python function for it"


def explained(quick: InProcess, *args: str) -> dict[str, Any]:
    done = quick.run("explain", "-m", "auto", "--json", *args)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_the_whole_ranking_is_shown_with_each_term(quick: InProcess) -> None:
    configure(quick)
    plain = explained(quick, HARD)
    assert next(each["model"] for each in plain["ranking"]) == plain["decision"]["chain"][0]
    assert {each["model"] for each in plain["ranking"]} == {"small", "medium", "large"}
    for each in plain["ranking"]:
        assert [term["name"] for term in each["terms"]] == ["quality", "cost", "latency", "readiness"]
        assert each["score"] == pytest.approx(sum(term["value"] * term["weight"] for term in each["terms"]))
    scores = [each["score"] for each in plain["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert plain["rejected"] == []


def test_each_loser_is_told_by_what_it_lost(quick: InProcess) -> None:
    configure(quick)
    best, *others = explained(quick, HARD)["ranking"]
    assert best["why_not"] is None
    for each in others:
        behind = best["score"] - each["score"]
        assert each["why_not"].startswith(f"{behind:.3f} behind {best['model']}")
    text = quick.run("explain", "-m", "auto", HARD).out
    assert all(each["why_not"] in text for each in others)


def test_who_fails_on_what_is_told(quick: InProcess) -> None:
    configure(quick)
    plain = explained(quick, "--capability", "code", "--max-cost", "0.005", HARD)
    assert [each["model"] for each in plain["ranking"]] == ["medium"]
    assert {each["model"]: each["criterion"] for each in plain["rejected"]} == {
        "small": "capabilities",
        "large": "cost",
    }
    lines = quick.run("explain", "-m", "auto", "--capability", "reasoning", HARD).out.splitlines()
    assert ["small", "capabilities", "lacks reasoning"] in [line.split(maxsplit=2) for line in lines]


def test_nobody_left_is_no_failure_of_the_explanation(quick: InProcess) -> None:
    configure(quick)
    plain = explained(quick, "--min-quality", "0.99", HARD)
    assert (plain["decision"], plain["ranking"], plain["chain"]) == (None, [], [])
    assert "no model of 3 fits" in plain["error"]
    assert "no model of 3 fits" in quick.run("explain", "-m", "auto", "--min-quality", "0.99", HARD).out


def test_complexity_is_told_with_its_dimensions(quick: InProcess) -> None:
    configure(quick)
    hard, easy = (explained(quick, text)["complexity"] for text in (HARD, "hi"))
    assert hard["score"] > easy["score"]
    assert {each["name"] for each in hard["dimensions"]} >= {"size", "code", "mathematics"}
    text = quick.run("explain", "-m", "auto", "hi").out
    assert f"complexity  {easy['complexity']} ({easy['score']:.2f}" in text
    assert "DIMENSION" in text


def test_what_matters_can_be_said(quick: InProcess) -> None:
    configure(quick)
    assert explained(quick, "--prefer", "cost", "hi")["decision"]["chain"][0] == "small"
    assert explained(quick, "--prefer", "quality", HARD)["decision"]["chain"][0] == "large"


def test_what_was_learnt_counts(quick: InProcess) -> None:
    configure(quick)
    fresh = explained(quick, HARD)
    fill(quick, 300)
    taught = explained(quick, HARD)
    assert fresh["outcomes"] == 0
    assert taught["outcomes"] > 300

    def quality(plain: dict[str, Any], model: str) -> float:
        return next(float(each["expected_quality"]) for each in plain["ranking"] if each["model"] == model)

    assert quality(taught, "small") != quality(fresh, "small")
    assert "outcomes make it" in quick.run("explain", "-v", "-m", "auto", HARD).out


CHANGING = """
server = {}
models = {
  { name = "short", engine = presets.engines.openai, connect = "http://127.0.0.1:1", input_per_million = 1,
    output_per_million = 10, transform = { overrides = { max_tokens = 17 } } },
}
routes = {
  plain = { candidates = { "short" } },
  brief = { candidates = { "short" }, transform = { overrides = { max_tokens = 5 } } },
}
"""


@pytest.mark.engine
def test_a_running_host_is_asked_how_the_engines_stand(cli: Cli, tiny_model: Path) -> None:
    far = (
        '{ name = "far", engine = presets.engines.openai, connect = "http://127.0.0.1:1", quality = 0.75, '
        "input_per_million = 0.01 }"
    )
    path = cli.write_config(model_lua("tiny", tiny_model, 4096, extra="quality = 0.8, latency_ms = 100"), far)
    path.write_text(path.read_text() + "routes = { auto = {} }\n")

    def chosen() -> tuple[str, str]:
        done = cli.run("explain", "-m", "auto", "--json", "hi")
        assert done.code == 0, done.err
        plain = json.loads(done.out)
        return plain["decision"]["chain"][0], plain["engines"]

    assert chosen() == ("far", "none runs: those that run here would have to be loaded")
    assert cli.run("ask", "-m", "tiny", "--max-tokens", "1", "hi").code == 0
    assert chosen() == ("tiny", "as they are now")
    assert "engines     as they are now" in cli.run("explain", "-m", "auto", "hi").out


def test_what_changes_do_to_the_answers_length_counts(quick: InProcess) -> None:
    (quick.directory / "gatewright.lua").write_text(CHANGING)
    named = quick.run("explain", "-m", "short", "hi").out
    assert "answer  17 tokens (limit of the request)" in named
    assert "changes sets max_tokens = 17" in named
    chosen = quick.run("explain", "-m", "brief", "hi").out
    assert "for brief   sets max_tokens = 5" in chosen
    assert "answer  5 tokens (limit of the request)" in chosen
    costs = [
        json.loads(quick.run("explain", "-m", route, "--json", "hi").out)["decision"]["estimated_cost_usd"]
        for route in ("plain", "brief")
    ]
    assert costs[1] < costs[0] / 5


def test_transforms_budgets_and_the_arm_are_told(quick: InProcess) -> None:
    configure(quick)
    quick.run("experiments", "promote", "words", "terse")
    fill(quick, 100)
    plain = explained(quick, "hi")
    assert plain["arm"] == "terse"
    assert [each["of"] for each in plain["transforms"]] == ["auto", "arm terse"]
    (budget,) = plain["budgets"]
    assert budget["account"] == "monthly"
    assert 0 < budget["left_usd"] < 10 == budget["limit_usd"]
    text = quick.run("explain", "-m", "auto", "hi").out
    assert '"Be brief."' in text
    assert "of $10.00 left" in text


def test_an_estimator_that_asks_a_model_is_not_asked(quick: InProcess) -> None:
    configure(
        quick, ROUTES.replace("auto = {", 'auto = { estimator = { kind = "model", model = "small" },', 1)
    )
    plain = explained(quick, "hi")
    assert plain["complexity_note"] == "by the heuristic: small is not asked for an explanation"
    assert plain["complexity"]["estimator"] == "heuristic"


@pytest.mark.parametrize("estimator", ['kind = "custom", python = "no.such:thing"', 'kind = "learned"'])
def test_an_estimator_that_cannot_tell_is_replaced_by_the_heuristic(quick: InProcess, estimator: str) -> None:
    configure(quick, ROUTES.replace("auto = {", f"auto = {{ estimator = {{ {estimator} }},", 1))
    plain = explained(quick, "hi")
    assert plain["complexity_note"].startswith("by the heuristic: ")
    assert plain["complexity"]["estimator"] == "heuristic"
    assert len(plain["ranking"]) == 3


def test_a_draw_is_no_explanation(quick: InProcess) -> None:
    configure(quick, ROUTES.replace("auto = {", 'auto = { exploration = "thompson",', 1))
    plain = explained(quick, HARD)
    assert plain["decision"]["chain"][0] == plain["ranking"][0]["model"]
    assert "a server draws" in quick.run("explain", "-m", "auto", "hi").out


def test_registered_models_are_candidates(quick: InProcess) -> None:
    configure(quick, "routes = { any = {} }\n")
    quick.run(
        "registry", "add", "mine", "--connect", "http://127.0.0.1:9", "--quality", "1", "--latency", "1"
    )
    plain = json.loads(quick.run("explain", "-m", "any", "--json", "--prefer", "quality", "hi").out)
    assert plain["decision"]["chain"][0] == "mine"
    assert json.loads(quick.run("explain", "-m", "mine", "--json", "hi").out)["model"] == "mine"


def test_a_route_can_be_the_default(quick: InProcess) -> None:
    configure(quick)
    path = quick.directory / "gatewright.lua"
    path.write_text(path.read_text().replace("server = {  }", 'server = { default_model = "auto" }'))
    done = quick.run("explain", "hi")
    assert done.code == 0, done.err
    assert done.out.startswith("route       auto\n")


def test_a_store_that_cannot_be_used_leaves_what_is_configured(quick: InProcess) -> None:
    configure(quick)
    open_store(quick).close()
    (path,) = [path for path in (quick.directory / "state").iterdir() if path.suffix == ".db"]
    path.write_bytes(b"something else" * 100)
    done = quick.run("explain", "-m", "auto", "--json", HARD)
    assert done.code == 0
    assert json.loads(done.out)["outcomes"] == 0
    assert all(line.startswith("gw-cli: without what was learnt: ") for line in done.err.splitlines())


def test_a_decision_that_was_made(quick: InProcess) -> None:
    configure(quick)
    fill(quick, 30)
    with open_store(quick) as store:
        found = store.find_request("req_000003")
    assert found is not None
    decision = found.record.decision
    assert decision is not None
    text = quick.run("explain", "--request", "req_000003").out
    assert decision.reason in text
    assert f"chain: {', '.join(decision.chain)}" in text
    assert f"arm {decision.arm}" in text
    plain = json.loads(quick.run("explain", "--request", "req_000003", "--json").out)
    assert plain["decision"]["chain"] == list(decision.chain)
    assert len(plain["outcomes"]) == len(found.record.outcomes)
    assert "charges" not in plain
    done = quick.run("explain", "--request", "req_x")
    assert (done.code, done.err) == (1, "gw-cli: no request 'req_x' is recorded\n")


def test_a_misspelt_name_is_told_with_the_routes(quick: InProcess) -> None:
    configure(quick)
    done = quick.run("explain", "-m", "autoo", "hi")
    assert done.code == 2
    assert "did you mean 'auto'? models: small, medium, large; routes: auto" in done.err


def test_models_lists_routes_and_registered_models(quick: InProcess) -> None:
    configure(quick)
    quick.run("registry", "add", "mine", "--connect", "http://127.0.0.1:9")
    lines = [line.split() for line in quick.run("models").out.splitlines()]
    assert [line[0] for line in lines if line] == [
        "NAME",
        "small",
        "medium",
        "large",
        "mine",
        "ROUTE",
        "auto",
    ]
    assert ["auto", "small,medium,large", "heuristic", "words"] in lines
    plain = json.loads(quick.run("models", "--json").out)
    assert [(each["name"], each["kind"]) for each in plain][-2:] == [("mine", "model"), ("auto", "route")]
