"""Which paths exist, with which methods, and what a request to each of them is like."""

from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from attrs import evolve, frozen

from gatewright.api.facts import ApiFormat
from gatewright.errors import EndpointNotFound, MethodNotAllowed, Problem


class EndpointKind(StrEnum):
    """Who answers."""

    BANNER = "banner"
    """Ourselves: who we are."""
    HEALTH = "health"
    """Ourselves: that we are here."""
    MODEL_LIST = "model_list"
    """Ourselves: the configured models."""
    MODEL = "model"
    """Ourselves: the model `Endpoint.model_id`."""
    GENERATE = "generate"
    """An engine; the model is named in the body."""
    ENGINE = "engine"
    """An engine, about itself; the model is named in the query."""
    MANAGEMENT = "management"
    """Ourselves: `Endpoint.resource`, out of the store."""
    METRICS = "metrics"
    """Ourselves: our figures, for Prometheus."""


MANAGED: Final = frozenset((EndpointKind.MANAGEMENT, EndpointKind.METRICS))
"""Kinds of which the answer is in the store or with other processes, so that it has to be waited for."""


class Resource(StrEnum):
    """What a management request is about."""

    COMPLEXITY = "complexity"
    MODELS = "models"
    MODEL = "model"
    KEYS = "keys"
    KEY = "key"
    OWN_KEY = "own_key"
    FEEDBACK = "feedback"
    EXPERIMENTS = "experiments"
    EXPERIMENT = "experiment"
    REQUEST = "request"
    BUDGETS = "budgets"
    USAGE = "usage"
    RANKING = "ranking"


class BodyShape(StrEnum):
    """Where a body keeps what becomes prompt."""

    CHAT = "chat"
    PROMPT = "prompt"
    INFILL = "infill"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    ANY = "any"
    """Nothing of it has to fit a context."""


@frozen(kw_only=True)
class Endpoint:
    """A request's place.

    Attributes:
        kind: Who answers.
        target: Path and query to send upstream.
        format: API family.
        shape: What the body is like.
        model_id: The model asked for by `MODEL`, decoded.
        resource: What a `MANAGEMENT` request is about.
        item: Name or id of the one thing that it is about, decoded.
    """

    kind: EndpointKind
    target: str
    format: ApiFormat = ApiFormat.OTHER
    shape: BodyShape = BodyShape.ANY
    model_id: str | None = None
    resource: Resource | None = None
    item: str | None = None

    @property
    def sized(self) -> bool:
        """Whether prompt and answer must fit the context."""
        return self.shape is not BodyShape.ANY

    @property
    def is_local(self) -> bool:
        """Whether we answer ourselves."""
        return self.kind not in {EndpointKind.GENERATE, EndpointKind.ENGINE}


_LOCAL: Final = {
    "/": EndpointKind.BANNER,
    "/health": EndpointKind.HEALTH,
    "/v1/health": EndpointKind.HEALTH,
    "/models": EndpointKind.MODEL_LIST,
    "/v1/models": EndpointKind.MODEL_LIST,
}
_GENERATE: Final = (
    (ApiFormat.CHAT, BodyShape.CHAT, ("/v1/chat/completions", "/chat/completions")),
    (ApiFormat.COMPLETION, BodyShape.PROMPT, ("/v1/completions",)),
    # Without /v1 the older of the two names: llama-server answers both in its own format.
    (ApiFormat.NATIVE, BodyShape.PROMPT, ("/completion", "/completions")),
    (ApiFormat.NATIVE, BodyShape.INFILL, ("/infill",)),
    (ApiFormat.RESPONSES, BodyShape.RESPONSES, ("/v1/responses",)),
    (ApiFormat.MESSAGES, BodyShape.MESSAGES, ("/v1/messages",)),
    (ApiFormat.MESSAGES, BodyShape.ANY, ("/v1/messages/count_tokens",)),
    (ApiFormat.OTHER, BodyShape.EMBEDDING, ("/v1/embeddings", "/embeddings", "/embedding")),
    (ApiFormat.OTHER, BodyShape.RERANK, ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking")),
    (
        ApiFormat.OTHER,
        BodyShape.ANY,
        (
            "/v1/chat/completions/input_tokens",
            "/v1/responses/input_tokens",
            "/tokenize",
            "/detokenize",
            "/apply-template",
        ),
    ),
)
_ENGINE_GET: Final = ("/props", "/slots", "/metrics", "/lora-adapters")
_ENGINE_POST: Final = ("/props", "/lora-adapters")
METRICS_PATH: Final = "/metrics"
"""Our own figures, unless the query names a model."""
_MANAGEMENT_PREFIX: Final = "/api/"
_COLLECTIONS: Final = {
    "/api/complexity": (Resource.COMPLEXITY, ("POST",)),
    "/api/feedback": (Resource.FEEDBACK, ("POST",)),
    "/api/models": (Resource.MODELS, ("GET", "HEAD", "POST")),
    "/api/keys": (Resource.KEYS, ("GET", "HEAD", "POST")),
    "/api/key": (Resource.OWN_KEY, ("GET", "HEAD")),
    "/api/experiments": (Resource.EXPERIMENTS, ("GET", "HEAD")),
    "/api/budgets": (Resource.BUDGETS, ("GET", "HEAD")),
    "/api/usage": (Resource.USAGE, ("GET", "HEAD")),
    "/api/ranking": (Resource.RANKING, ("GET", "HEAD")),
}
_ITEMS: Final = {
    "/api/models/": (Resource.MODEL, ("GET", "HEAD", "PATCH", "DELETE")),
    "/api/keys/": (Resource.KEY, ("GET", "HEAD", "PATCH", "DELETE")),
    "/api/experiments/": (Resource.EXPERIMENT, ("GET", "HEAD", "POST")),
    "/api/requests/": (Resource.REQUEST, ("GET", "HEAD")),
}
_FOR_EVERYBODY: Final = frozenset(("/api/complexity", "/api/feedback", "/api/key"))
_MODEL_PREFIXES: Final = ("/v1/models/", "/models/")
_SLOT_PREFIX: Final = "/slots/"
_OPEN_PREFIX: Final = "/v1/"
_SHOWN_CHARACTERS: Final = 100


def _table() -> Mapping[str, Mapping[str, Endpoint]]:
    table: dict[str, dict[str, Endpoint]] = {}
    for path, kind in _LOCAL.items():
        table[path] = dict.fromkeys(("GET", "HEAD"), Endpoint(kind=kind, target=path))
    for api_format, shape, paths in _GENERATE:
        for path in paths:
            table[path] = {
                "POST": Endpoint(kind=EndpointKind.GENERATE, target=path, format=api_format, shape=shape),
            }
    for path, (resource, methods) in _COLLECTIONS.items():
        endpoint = Endpoint(kind=EndpointKind.MANAGEMENT, target=path, resource=resource)
        table[path] = dict.fromkeys(methods, endpoint)
    for method, paths in (("GET", _ENGINE_GET), ("POST", _ENGINE_POST)):
        for path in paths:
            table.setdefault(path, {})[method] = Endpoint(kind=EndpointKind.ENGINE, target=path)
    return table


_TABLE: Final = _table()
_OWN_METRICS: Final = dict.fromkeys(("GET", "HEAD"), Endpoint(kind=EndpointKind.METRICS, target=METRICS_PATH))


def needs_admin(target: str) -> bool:
    """Whether a request there shows or changes what is everybody's, so that a key without all rights may not.

    Args:
        target: Path and query as they came.
    """
    path, _, query = target.partition("?")
    path = path.rstrip("/") or path
    if path == METRICS_PATH:
        return not _names_model(query)
    return path.startswith(_MANAGEMENT_PREFIX) and path not in _FOR_EVERYBODY


def match_endpoint(method: str, target: str) -> Endpoint | Problem:
    """The endpoint of a request, or why there is none.

    OPTIONS has no endpoints: to answer a preflight is to let the pages of other sites use this server.

    Args:
        method: In upper case.
        target: Path and query as they came, percent-encoded.
    """
    path, mark, query = target.partition("?")
    endpoints = _TABLE.get(path)
    if endpoints is None:
        endpoints = _find_open_endpoints(path)
    if path.rstrip("/") == METRICS_PATH and not _names_model(query):
        endpoints = _OWN_METRICS
    if not endpoints:
        return _not_found(path)
    endpoint = endpoints.get(method)
    if endpoint is None:
        allowed = ", ".join(endpoints)
        return MethodNotAllowed(
            f"{path[:_SHOWN_CHARACTERS]} takes {allowed}, not {method[:_SHOWN_CHARACTERS]}",
            details={"allow": allowed},
        ).problem
    return evolve(endpoint, target=f"{endpoint.target}?{query}") if mark else endpoint


def _find_open_endpoints(path: str) -> Mapping[str, Endpoint]:
    """Endpoints of paths that are in no table, and of those with a slash too many at their end."""
    decoded = unquote(path)
    if {".", ".."} & set(decoded.split("/")):
        return {}  # what an upstream made of these would be none of the paths above
    shorter = path.rstrip("/")
    if shorter in _TABLE:
        return _TABLE[shorter]
    for prefix in _MODEL_PREFIXES:
        if path.startswith(prefix):
            endpoint = Endpoint(
                kind=EndpointKind.MODEL, target=path, model_id=unquote(path.removeprefix(prefix))
            )
            return dict.fromkeys(("GET", "HEAD"), endpoint)
    for prefix, (resource, methods) in _ITEMS.items():
        if path.startswith(prefix) and len(path) > len(prefix):
            item = unquote(path.removeprefix(prefix))
            endpoint = Endpoint(kind=EndpointKind.MANAGEMENT, target=path, resource=resource, item=item)
            return dict.fromkeys(methods, endpoint)
    if path.startswith(_SLOT_PREFIX) and path.removeprefix(_SLOT_PREFIX).isdecimal():
        return {"POST": Endpoint(kind=EndpointKind.ENGINE, target=path)}
    if path.startswith(_OPEN_PREFIX) and len(path) > len(_OPEN_PREFIX):
        return {"POST": Endpoint(kind=EndpointKind.GENERATE, target=path)}
    return {}


def _names_model(query: str) -> bool:
    """Whether the query says whose figures are wanted: an engine's then, and not ours."""
    return any(field.partition("=")[0] == "model" for field in query.split("&"))


def _not_found(path: str) -> Problem:
    shown = path[:_SHOWN_CHARACTERS]
    near = get_close_matches(shown, _TABLE, n=3, cutoff=0.7)
    hint = f"; near it are {', '.join(near)}" if near else "; see /v1/models, /v1/chat/completions"
    return EndpointNotFound(f"There is no {shown}{hint}").problem
