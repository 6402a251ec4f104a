import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.endpoints import (
    MANAGED,
    BodyShape,
    Endpoint,
    EndpointKind,
    Resource,
    match_endpoint,
    needs_admin,
)
from gatewright.api.facts import ApiFormat
from gatewright.errors import Problem


def endpoint(method: str, target: str) -> Endpoint:
    found = match_endpoint(method, target)
    assert isinstance(found, Endpoint), found
    return found


def problem(method: str, target: str) -> Problem:
    found = match_endpoint(method, target)
    assert isinstance(found, Problem), found
    return found


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", EndpointKind.BANNER),
        ("/health", EndpointKind.HEALTH),
        ("/v1/health", EndpointKind.HEALTH),
        ("/models", EndpointKind.MODEL_LIST),
        ("/v1/models", EndpointKind.MODEL_LIST),
        ("/v1/models/", EndpointKind.MODEL_LIST),
    ],
)
def test_local_routes(path: str, kind: EndpointKind):
    for method in ("GET", "HEAD"):
        found = endpoint(method, path)
        assert found.kind is kind
        assert found.is_local
    assert endpoint("GET", path + "?a=b").kind is kind


@pytest.mark.parametrize(
    ("path", "model_id"),
    [
        ("/v1/models/qwen", "qwen"),
        ("/models/qwen", "qwen"),
        ("/v1/models/org/qwen:8b", "org/qwen:8b"),
        ("/v1/models/org%2Fqwen%20x", "org/qwen x"),
        ("/v1/models/%E6%BC%A2", "漢"),
        ("/v1/models/qwen?x=1", "qwen"),
    ],
)
def test_one_model(path: str, model_id: str):
    found = endpoint("GET", path)
    assert found.kind is EndpointKind.MODEL
    assert found.model_id == model_id


@pytest.mark.parametrize(
    ("path", "api_format", "shape"),
    [
        ("/v1/chat/completions", ApiFormat.CHAT, BodyShape.CHAT),
        ("/chat/completions", ApiFormat.CHAT, BodyShape.CHAT),
        ("/v1/completions", ApiFormat.COMPLETION, BodyShape.PROMPT),
        ("/completions", ApiFormat.NATIVE, BodyShape.PROMPT),
        ("/completion", ApiFormat.NATIVE, BodyShape.PROMPT),
        ("/infill", ApiFormat.NATIVE, BodyShape.INFILL),
        ("/v1/responses", ApiFormat.RESPONSES, BodyShape.RESPONSES),
        ("/v1/messages", ApiFormat.MESSAGES, BodyShape.MESSAGES),
        ("/v1/messages/count_tokens", ApiFormat.MESSAGES, BodyShape.ANY),
        ("/v1/chat/completions/input_tokens", ApiFormat.OTHER, BodyShape.ANY),
        ("/v1/responses/input_tokens", ApiFormat.OTHER, BodyShape.ANY),
        ("/v1/embeddings", ApiFormat.OTHER, BodyShape.EMBEDDING),
        ("/embeddings", ApiFormat.OTHER, BodyShape.EMBEDDING),
        ("/embedding", ApiFormat.OTHER, BodyShape.EMBEDDING),
        ("/v1/rerank", ApiFormat.OTHER, BodyShape.RERANK),
        ("/rerank", ApiFormat.OTHER, BodyShape.RERANK),
        ("/v1/reranking", ApiFormat.OTHER, BodyShape.RERANK),
        ("/reranking", ApiFormat.OTHER, BodyShape.RERANK),
        ("/tokenize", ApiFormat.OTHER, BodyShape.ANY),
        ("/detokenize", ApiFormat.OTHER, BodyShape.ANY),
        ("/apply-template", ApiFormat.OTHER, BodyShape.ANY),
        ("/v1/audio/transcriptions", ApiFormat.OTHER, BodyShape.ANY),
        ("/v1/something/new", ApiFormat.OTHER, BodyShape.ANY),
    ],
)
def test_routes_to_an_engine(path: str, api_format: ApiFormat, shape: BodyShape):
    found = endpoint("POST", path)
    assert found == Endpoint(kind=EndpointKind.GENERATE, target=path, format=api_format, shape=shape)
    assert found.sized is (shape is not BodyShape.ANY)
    assert not found.is_local
    assert endpoint("POST", path + "?beta=true").target == path + "?beta=true"
    assert problem("GET", path).details == {"allow": "POST"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/props"),
        ("GET", "/slots"),
        ("GET", "/metrics?model=qwen"),
        ("GET", "/metrics?x=1&model=qwen"),
        ("GET", "/lora-adapters"),
        ("POST", "/props"),
        ("POST", "/lora-adapters"),
        ("POST", "/slots/0"),
        ("POST", "/slots/12?action=save"),
    ],
)
def test_routes_about_an_engine(method: str, path: str):
    found = endpoint(method, path)
    assert found.kind is EndpointKind.ENGINE
    assert found.target == path
    assert not found.sized


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics?", "/metrics?models=1"])
def test_our_own_figures_are_those_of_no_model(path: str):
    for method in ("GET", "HEAD"):
        assert endpoint(method, path).kind is EndpointKind.METRICS
        assert endpoint(method, path).is_local
    assert problem("POST", path).details == {"allow": "GET, HEAD"}
    assert needs_admin(path)
    assert not needs_admin("/metrics?model=qwen")


@pytest.mark.parametrize(
    ("path", "resource", "item", "methods"),
    [
        ("/api/complexity", Resource.COMPLEXITY, None, "POST"),
        ("/api/feedback", Resource.FEEDBACK, None, "POST"),
        ("/api/models", Resource.MODELS, None, "GET, HEAD, POST"),
        ("/api/models/", Resource.MODELS, None, "GET, HEAD, POST"),
        ("/api/models/org/qwen%208b", Resource.MODEL, "org/qwen 8b", "GET, HEAD, PATCH, DELETE"),
        ("/api/keys", Resource.KEYS, None, "GET, HEAD, POST"),
        ("/api/key", Resource.OWN_KEY, None, "GET, HEAD"),
        ("/api/keys/key_1", Resource.KEY, "key_1", "GET, HEAD, PATCH, DELETE"),
        ("/api/experiments", Resource.EXPERIMENTS, None, "GET, HEAD"),
        ("/api/experiments/a%2Fb", Resource.EXPERIMENT, "a/b", "GET, HEAD, POST"),
        ("/api/requests/req_1?x=1", Resource.REQUEST, "req_1", "GET, HEAD"),
        ("/api/budgets", Resource.BUDGETS, None, "GET, HEAD"),
        ("/api/usage?by=model", Resource.USAGE, None, "GET, HEAD"),
        ("/api/ranking?task=x", Resource.RANKING, None, "GET, HEAD"),
    ],
)
def test_management(path: str, resource: Resource, item: str | None, methods: str):
    for method in methods.split(", "):
        found = endpoint(method, path)
        assert (found.kind, found.resource, found.item) == (EndpointKind.MANAGEMENT, resource, item)
        assert found.kind in MANAGED
        assert found.is_local
        assert not found.sized
    assert problem("PUT", path).details == {"allow": methods}
    everybodys = {Resource.COMPLEXITY, Resource.FEEDBACK, Resource.OWN_KEY}
    assert needs_admin(path) == (resource not in everybodys)


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/nope", "/api/requests", "/api/requests/", "/api/models/../keys"]
)
def test_there_is_nothing_else_to_manage(path: str):
    assert problem("GET", path).status == 404


def test_another_method_is_told_which_are_allowed():
    for method in ("DELETE", "OPTIONS", "get", "BREW"):
        wrong = problem(method, "/v1/models")
        assert wrong.status == 405
        assert wrong.kind == "MethodNotAllowed"
        assert wrong.details == {"allow": "GET, HEAD"}
    assert problem("HEAD", "/props").details == {"allow": "GET, POST"}


@pytest.mark.parametrize(
    "path", ["/nope", "/v1", "/v1/", "/slots/x", "*", "a:80", "", "/V1/models", "/v1/../props", "/v1/%2e%2e/props"]
)  # fmt: skip
def test_there_is_nothing_else(path: str):
    assert problem("POST", path).status == 404
    assert problem("POST", path).kind == "EndpointNotFound"


def test_what_is_near_is_named():
    assert "/chat/completions" in problem("POST", "/chat/completion").message
    assert "/v1/models" in problem("GET", "/xyzzy").message
    assert len(problem("GET", "/" + "x" * 10_000).message) < 300


@settings(deadline=None)
@given(
    st.sampled_from(["GET", "POST", "OPTIONS"]), st.text(st.characters(min_codepoint=33, max_codepoint=126))
)
def test_every_target_has_an_answer(method: str, target: str):
    for prefix in ("", "/", "/v1/", "/models/", "/api/", "/api/keys/", "/metrics?"):
        assert isinstance(match_endpoint(method, prefix + target), Endpoint | Problem)
