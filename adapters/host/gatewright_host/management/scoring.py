"""`/api/complexity`: how hard a request would be thought to be."""

from typing import Any, Final

import msgspec

from gatewright.api.bodies import read_body
from gatewright.api.endpoints import BodyShape
from gatewright.api.facts import ApiFormat, RequestFacts, Wishes
from gatewright.api.signals import read_signals
from gatewright.commands import EstimateComplexity
from gatewright.config import Config
from gatewright.configuration.estimators import EstimatorConfigKind
from gatewright.configuration.names import ModelName, owners_of_names
from gatewright.errors import InvalidRequest, ModelNotAllowed, NotFound
from gatewright.events import ComplexityEstimated, EstimationFailed
from gatewright.ids import CommandId, RequestId
from gatewright.route_config import EstimatorConfig, EstimatorKind, RouteConfig
from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.complexity_heuristic import estimate_complexity
from gatewright.selection.signals import PromptSignals, signals_of_text
from gatewright.wire.server import RequestHead
from gatewright_host.management.answering import (
    Document,
    Reply,
    place,
    read_object,
    refuse_fields,
    text_of,
)
from gatewright_host.management.asking import Asking
from gatewright_host.upstream_calls import ClientRequest

_SHAPES: Final = {
    "messages": BodyShape.CHAT,
    "prompt": BodyShape.PROMPT,
    "input": BodyShape.RESPONSES,
}
"""What may hold the text, and how it is read."""
_CHAT: Final = "/v1/chat/completions"
_NOBODY: Final = CommandId(0)
"""No machine waits for these answers."""
_OF_THE_OPERATOR: Final = frozenset((EstimatorKind.MODEL, EstimatorKind.CUSTOM))


def score(asked: Asking) -> Reply:
    """Estimate a request without sending it to anybody."""
    document = read_object(asked.body)
    task = text_of(document, "task", "")
    route = _route(asked, document)
    estimator = _estimator(asked.config, document, route)
    signals, text = _read(document, task, asked.body)
    if estimator.kind is EstimatorKind.NONE:
        estimator = EstimatorConfig()
    answer = _ask(asked, estimator, task, text, route)
    document = {"object": "complexity"}
    if isinstance(answer, ComplexityEstimated):
        document |= _plain(answer.estimate)
        if answer.chances:
            document["chances"] = answer.chances
    else:
        estimate = estimate_complexity(signals, thresholds=estimator.thresholds, weights=estimator.weights)
        document |= _plain(estimate)
        if answer is not None:
            document["fallback_reason"] = f"{estimator.kind.value}: {answer.reason}"
    return Reply(document=document)


def _ask(
    asked: Asking, estimator: EstimatorConfig, task: str, text: str, route: RouteConfig | None
) -> ComplexityEstimated | EstimationFailed | None:
    """What the estimator says, if it is another one than the heuristic."""
    if estimator.kind is EstimatorKind.HEURISTIC:
        return None
    candidates = asked.config.models if route is None else asked.config.candidates_of(route)
    command = EstimateComplexity(
        command_id=_NOBODY,
        request_id=RequestId("complexity"),
        estimator=estimator,
        candidates=tuple([model.name for model in candidates]),
    )
    return asked.find_office().estimate(command, _request(task, text))


def _request(task: str, text: str) -> ClientRequest:
    """A request that says just this."""
    body = msgspec.json.encode({"messages": [{"role": "user", "content": text}]})
    head = RequestHead(
        method="POST",
        target=_CHAT,
        headers=(),
        http_version="1.1",
        expects_continue=False,
        content_length=len(body),
    )
    facts = RequestFacts(path=_CHAT, format=ApiFormat.CHAT, wishes=Wishes(task=task))
    return ClientRequest(RequestId("complexity"), head, facts, body)


def _route(asked: Asking, document: Document) -> RouteConfig | None:
    if document.get("route") is None:
        return None
    name = text_of(document, "route")
    route = asked.config.find_route(name)
    if route is None:
        raise NotFound(f"There is no route {name[:100]!r}; /v1/models lists them", param="route")
    if asked.key is not None and asked.key.routes is not None and name not in asked.key.routes:
        raise ModelNotAllowed(f"The key {asked.key.name!r} may not use the route {name!r}")
    return route


def _estimator(config: Config, document: Document, route: RouteConfig | None) -> EstimatorConfig:
    """The one that the request names, else the route's, else the heuristic."""
    of_route = route.estimator if route is not None else EstimatorConfig()
    named = document.get("estimator")
    if named is None or named == of_route.kind.value:
        return of_route
    where = place().field("estimator")
    estimator = EstimatorConfigKind(ModelName(owners_of_names(config.models))).read(named, where)
    if estimator is not None and estimator.kind in _OF_THE_OPERATOR:
        # To import a function or to spend money on a model is for the configuration to decide.
        where.report(f'"{estimator.kind.value}" can only be named together with a route that has it')
    if where.problems or estimator is None:
        raise refuse_fields(where.problems)
    return estimator


def _read(document: Document, task: str, body: bytes) -> tuple[PromptSignals, str]:
    """What the heuristic looks at, and the text itself."""
    description = text_of(document, "description", "")
    inputs = document.get("inputs")
    if inputs is not None:
        if not isinstance(inputs, dict):
            raise InvalidRequest("inputs: expected an object with the task's inputs by name", param="inputs")
        return signals_of_text(task, description, inputs), "\n".join(
            [description, *(_text(each) for each in inputs.values())]
        ).strip()
    for member, shape in _SHAPES.items():
        if document.get(member) is not None:
            return read_signals(shape, read_body(body), task=task), _text(document[member])
    if task or description:
        return signals_of_text(task, description, {}), description
    raise InvalidRequest(
        "messages: missing; expected messages, prompt or input as in a request, or a task with its inputs",
        param="messages",
    )


def _text(root: Any) -> str:
    """All text in a value, in its order. Without recursion: it may be nested to any depth."""
    texts = []
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            # Of a message only what it says, not its role.
            said = value.get("content") or value.get("text")
            waiting.extend([said] if said else reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif value is not None:
            texts.append(str(value))
    return "\n".join(texts)


def _plain(estimate: ComplexityEstimate) -> Document:
    document: Document = msgspec.to_builtins(estimate)
    return document
