"""Read a client's request: just enough to choose an engine for it. The body itself goes upstream as it came.

Only what would be decided wrongly is refused here; what an engine alone can judge (unknown fields, odd roles, values
of sampling parameters) is left to the engine.
"""

import math
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
from attrs import evolve

from gatewright.api.bodies import Body, is_given, read_body
from gatewright.api.choices import answer_choices, is_free_text
from gatewright.api.endpoints import BodyShape, Endpoint, EndpointKind
from gatewright.api.facts import ApiFormat, RequestFacts, Wishes
from gatewright.api.multipart import find_field
from gatewright.api.needs import needed_features, needed_modalities
from gatewright.api.prompt import PromptMeter, walk_prompt
from gatewright.api.signals import read_signals
from gatewright.api.wishes import read_wishes, with_identity
from gatewright.errors import InvalidRequest
from gatewright.wire.fields import Headers, find_header

if TYPE_CHECKING:
    from gatewright.config import Config


class _Metadata(msgspec.Struct):
    user_id: Any = None


_METADATA: Final = msgspec.json.Decoder(_Metadata)
_UNLIMITED: Final = -1  # llama-server's way to say that the answer ends by itself
_MOST_TOKENS: Final = 2**53  # beyond this a float no longer holds every whole number
_ANSWERLESS: Final = frozenset((BodyShape.EMBEDDING, BodyShape.RERANK))
_SHOWN_CHARACTERS: Final = 100
_MAX_NAME_CHARACTERS: Final = 512


def read_request(
    endpoint: Endpoint, headers: Headers, body: bytes, config: "Config | None" = None
) -> RequestFacts:
    """What the Gateway needs to know of a request to an engine.

    Args:
        endpoint: From `match_endpoint`, not a local one.
        headers: Of the request, names in lower case. Whatever its content type, everything but a form in parts is read
            as JSON, as llama-server does and `curl -d` expects; pages of other sites are turned away by `check_access`.
        body: All of it.
        config: The present one; only if it has routes is the text looked at for how hard the request is.

    Raises:
        InvalidRequest: Nobody could serve it; the message names the field and what is allowed.
    """
    facts = _read(endpoint, headers, body, with_signals=config is not None and bool(config.routes))
    client_timeout_s = _client_timeout(headers)
    return facts if client_timeout_s is None else evolve(facts, client_timeout_s=client_timeout_s)


def _client_timeout(headers: Headers) -> float | None:
    """How long the client waits for the next byte: the official clients of OpenAI and Anthropic tell it."""
    value = find_header(headers, b"x-stainless-read-timeout") or find_header(headers, b"x-stainless-timeout")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None  # "None" and "NOT_GIVEN" are among what these clients send
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _read(endpoint: Endpoint, headers: Headers, body: bytes, *, with_signals: bool) -> RequestFacts:
    content_type = find_header(headers, b"content-type")
    if endpoint.kind is EndpointKind.ENGINE:
        return RequestFacts(
            path=endpoint.target, format=endpoint.format, model=_model_in_query(endpoint), sized=False
        )
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if endpoint.shape is BodyShape.ANY:
        if media_type == "multipart/form-data":
            model = find_field(body, content_type or "", "model")
            return RequestFacts(
                path=endpoint.target,
                format=endpoint.format,
                model=model or _model_in_query(endpoint),
                sized=False,
            )
        if not body:
            return RequestFacts(
                path=endpoint.target, format=endpoint.format, model=_model_in_query(endpoint), sized=False
            )
    if media_type.startswith("multipart/"):
        raise InvalidRequest(
            f"The request body must be JSON, with 'Content-Type: application/json', not '{media_type[:_SHOWN_CHARACTERS]}'"
        )
    return _read_json(endpoint, headers, read_body(body), with_signals=with_signals)


def _read_json(endpoint: Endpoint, headers: Headers, body: Body, *, with_signals: bool) -> RequestFacts:
    meter = PromptMeter()
    messages = walk_prompt(endpoint.shape, body, meter)
    stream = _flag(body.stream, "stream")
    choices = answer_choices(endpoint.format, body)
    wishes = _wishes(endpoint, headers, body)
    signals = None
    if with_signals and endpoint.sized and endpoint.shape not in _ANSWERLESS:
        signals = read_signals(endpoint.shape, body, task="" if wishes is None else wishes.task)
    return RequestFacts(
        path=endpoint.target,
        format=endpoint.format,
        model=_model(body.model) or _model_in_query(endpoint),
        stream=stream,
        sized=endpoint.sized,
        prompt_bytes=meter.text_bytes,
        prompt_tokens_given=meter.tokens,
        messages=messages,
        media=meter.media,
        answer_tokens=_answer_tokens(endpoint.shape, body) if endpoint.sized else None,
        choices=choices,
        continuable=stream and choices == 1 and is_free_text(endpoint.format, body),
        wants_usage=stream
        and isinstance(body.stream_options, dict)
        and bool(body.stream_options.get("include_usage")),
        wishes=wishes,
        features=needed_features(endpoint.format, body),
        modalities=needed_modalities(meter),
        signals=signals,
    )


def _wishes(endpoint: Endpoint, headers: Headers, body: Body) -> Wishes | None:
    wishes = read_wishes(body.gatewright, headers)
    user = body.user if body.user is not None else body.safety_identifier
    if user is None and endpoint.format is ApiFormat.MESSAGES and is_given(body.metadata):
        user = _user_in_metadata(body.metadata)
    session = body.session_id
    if session is None:
        session = body.conversation if body.conversation is not None else body.prompt_cache_key
    if user is None and session is None:
        return wishes
    return with_identity(wishes, user, session.get("id") if isinstance(session, dict) else session)


def _user_in_metadata(metadata: msgspec.Raw) -> Any:
    """Where Anthropic's clients name the user."""
    try:
        return _METADATA.decode(metadata).user_id
    except msgspec.DecodeError:
        return None


def _model(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > _MAX_NAME_CHARACTERS:
        raise InvalidRequest("'model' must be the name of a model", param="model")
    return value


def _model_in_query(endpoint: Endpoint) -> str | None:
    _, mark, query = endpoint.target.partition("?")
    if not mark:
        return None
    try:
        models = parse_qs(query, max_num_fields=100).get("model")
    except ValueError:
        raise InvalidRequest("The query has too many fields") from None
    return models[-1] if models else None


def _flag(value: Any, name: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequest(f"'{name}' must be true or false", param=name)


def _answer_tokens(shape: BodyShape, body: Body) -> int | None:
    """The limit of the answer. Where several are named, the largest: which of them counts depends on the engine."""
    if shape in _ANSWERLESS:
        return 0
    limits = [
        _limit(value, name)
        for name, value in (
            ("max_tokens", body.max_tokens),
            ("max_completion_tokens", body.max_completion_tokens),
            ("max_output_tokens", body.max_output_tokens),
            ("n_predict", body.n_predict),
        )
        if value is not None
    ]
    largest = 0
    for limit in limits:
        if limit is None:
            return None
        largest = max(largest, limit)
    return largest if limits else None


def _limit(value: Any, name: str) -> int | None:
    """One limit; None for no limit. 0 and -1 are llama-server's, which a fraction does not disturb either."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < _UNLIMITED:
        raise InvalidRequest(f"'{name}' must be a whole number of tokens, or -1 for no limit", param=name)
    if value > _MOST_TOKENS:
        raise InvalidRequest(f"'{name}' must be at most {_MOST_TOKENS}", param=name)
    return None if value == _UNLIMITED else value
