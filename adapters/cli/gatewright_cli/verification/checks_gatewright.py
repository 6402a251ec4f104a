"""Checks of what Gatewright promises beyond OpenAI's API; its documentation is docs/api.md."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from gatewright_cli.verification.check import CHAT, NO_MODEL, Checks, Group, Need, Probe
from gatewright_cli.verification.checks_models import listed_models
from gatewright_cli.verification.client import Answer
from gatewright_cli.verification.outcome import Skipped, document_of, error_of, expect, expect_status

checks = Checks(Group.GATEWRIGHT)


def _expect_id(answer: Answer, seen: set[str]) -> None:
    found = answer.values("x-request-id")
    expect(len(found) == 1 and found[0].startswith("req_"), "one x-request-id that begins with req_", found)
    expect(found[0] not in seen, "another x-request-id for each answer", found[0])
    seen.add(found[0])


def _expect_code(answer: Answer, status: HTTPStatus, code: str) -> dict[str, Any]:
    error = error_of(answer, (status,), f"{status.value}")
    expect(error.get("code") == code, f"the code {code}", error)
    expect({"message", "type", "param", "code"} <= error.keys(), "message, type, param and code", error)
    return error


def _entries(probe: Probe) -> list[dict[str, Any]]:
    """What the list of models says of the model that is used; it may be named by an alias."""
    return [
        entry for entry in listed_models(probe) if probe.model in {entry.get("id"), *entry.get("aliases", ())}
    ]


@checks.check("gw-health", "GET /health is 200 and needs no key", Need.NOTHING)
def _health(probe: Probe) -> None:
    client = probe.client.with_key(None)
    for path in ("/health", "/v1/health"):
        answer = client.get(path)
        expect_status(answer, (HTTPStatus.OK,), f"200 for {path}")
        expect(document_of(answer) == {"status": "ok"}, '{"status": "ok"}', answer.body)


@checks.check("gw-banner", "GET / says who is there", Need.ACCESS)
def _banner(probe: Probe) -> None:
    answer = probe.client.get("/")
    expect_status(answer, (HTTPStatus.OK,), "200")
    document = document_of(answer)
    expect(document.get("name") == "gatewright", "the name gatewright", document)


@checks.check("gw-request-id", "every answer has an x-request-id of its own", Need.ACCESS)
def _request_id(probe: Probe) -> None:
    seen: set[str] = set()
    _expect_id(probe.client.get("/v1/models"), seen)
    _expect_id(probe.client.get("/no/such/path"), seen)
    _expect_id(probe.client.post(CHAT, b"{nonsense"), seen)
    _expect_id(probe.client.get(CHAT), seen)
    if probe.model:
        for _ in range(2):
            _expect_id(probe.chat(max_tokens=1), seen)
        with probe.client.stream(CHAT, probe.chat_body(max_tokens=1)) as stream:
            _expect_id(Answer(stream.status, stream.headers, b""), seen)


@checks.check("gw-headers", "an answer names its model, variant, attempts and wait")
def _headers(probe: Probe) -> None:
    answer = probe.chat(max_tokens=1)
    expect_status(answer, (HTTPStatus.OK,), "200")
    model = answer.get("x-gw-model")
    known = _entries(probe)
    if any(map(_is_route, known)):
        # Its candidates or whoever is asked when they fail; the route itself answers nothing.
        models = {entry.get("id") for entry in listed_models(probe) if not _is_route(entry)}
        expect(model in models, "a model that the route has chosen as x-gw-model", model)
    else:
        expect(not known or model == known[0]["id"], f"x-gw-model {probe.model}", model)
    for name, least in (("x-gw-attempts", 1), ("x-gw-wait-ms", 0)):
        value = answer.get(name) or ""
        expect(value.isdecimal() and int(value) >= least, f"a number as {name}", value)


def _is_route(entry: dict[str, Any]) -> bool:
    return (entry.get("meta") or {}).get("route") is True


@checks.check(
    "gw-models",
    "models tell their aliases and the contexts of their variants, routes their models",
    Need.ACCESS,
)
def _models(probe: Probe) -> None:
    for model in listed_models(probe):
        aliases = model.get("aliases")
        expect(isinstance(aliases, list), "a list of aliases", model)
        for alias in aliases or ():
            answer = probe.client.get(f"/v1/models/{quote(alias, safe='')}")
            expect_status(answer, (HTTPStatus.OK,), f"200 for the alias {alias}")
            found = document_of(answer).get("id")
            expect(found == model["id"], f"{model['id']} for the alias {alias}", found)
        if _is_route(model):
            # It may have none: models that are registered later can be candidates.
            expect(
                isinstance(model["meta"].get("candidates"), list), "a list of the route's candidates", model
            )
            continue
        sizes = [variant.get("n_ctx") for variant in (model.get("meta") or {}).get("variants", ())]
        expect(sizes and sizes == sorted(sizes), "contexts of variants, the smallest first", model)


@checks.check(
    "gw-unknown-model", "an unknown model is 404 model_not_found, and no retry is asked for", Need.ACCESS
)
def _unknown_model(probe: Probe) -> None:
    answer = probe.chat(model=NO_MODEL)
    error = _expect_code(answer, HTTPStatus.NOT_FOUND, "model_not_found")
    expect(error.get("param") == "model", "the param model", error)
    retry = answer.get("x-should-retry")
    expect(retry == "false", "x-should-retry: false", retry)
    _expect_code(probe.client.get(f"/v1/models/{NO_MODEL}"), HTTPStatus.NOT_FOUND, "model_not_found")


@checks.check("gw-paths", "unknown paths are not_found, wrong methods tell the right ones", Need.ACCESS)
def _paths(probe: Probe) -> None:
    _expect_code(probe.client.get("/no/such/path"), HTTPStatus.NOT_FOUND, "not_found")
    answer = probe.client.get(CHAT)
    _expect_code(answer, HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed")
    expect(answer.get("allow") == "POST", "allow: POST", answer.get("allow"))


@checks.check("gw-overflow", "a limit that no variant holds is context_length_exceeded, with the figures")
def _overflow(probe: Probe) -> None:
    known = _entries(probe)
    largest = max((int((entry.get("meta") or {}).get("n_ctx", 0)) for entry in known), default=0)
    if not largest:
        raise Skipped("the context of the model is not known")
    # The limit counts before anything is asked of an engine, so that this costs nothing.
    answer = probe.chat(max_tokens=largest + 1)
    is_route = any(map(_is_route, known))
    # Each candidate of a route may fail on something else, so that there is no one figure to tell.
    code = "no_model_fits" if is_route else "context_length_exceeded"
    error = _expect_code(answer, HTTPStatus.BAD_REQUEST, code)
    if is_route:
        expect("rejected" in error, "how many candidates failed on what", error)
    else:
        expect(error.get("n_ctx") == largest, f"n_ctx {largest}", error)
    with probe.client.stream(CHAT, probe.chat_body(max_tokens=largest + 1)) as stream:
        _expect_code(stream.answer(), HTTPStatus.BAD_REQUEST, code)


@checks.check("gw-host", "a request in the name of a foreign host is 403 (DNS rebinding)", Need.ACCESS)
def _host(probe: Probe) -> None:
    if probe.client.target.socket_path is not None:
        raise Skipped("no browser reaches a Unix socket, so any host will do")
    answer = probe.client.get("/v1/models", host="evil.example")
    if answer.status == HTTPStatus.OK:
        raise Skipped("any host is allowed, by the configuration or by a proxy in front")
    _expect_code(answer, HTTPStatus.FORBIDDEN, "host_not_allowed")


@checks.check("gw-keys", "a key may come as x-api-key; a wrong one is invalid_api_key", Need.KEY)
def _keys(probe: Probe) -> None:
    client = probe.client.with_key(None)
    answer = client.get("/v1/models")
    if answer.status == HTTPStatus.OK:
        raise Skipped("the gateway answers without a key")
    _expect_code(answer, HTTPStatus.UNAUTHORIZED, "invalid_api_key")
    answer = client.send("GET", "/v1/models", headers={"x-api-key": str(probe.client.key)})
    expect_status(answer, (HTTPStatus.OK,), "200 for x-api-key")
