"""An upstream's refusal in words for people: who answered what, where, and what may be missing."""

from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from gatewright.commands import RecordRequest
from gatewright.config import Config, ModelConfig
from gatewright.errors import ModelNotFound, UpstreamRefused
from gatewright_host.credentials import unset_variable

_UNKNOWN_TO_IT: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@frozen
class Refusal:
    """An upstream's error.

    Attributes:
        status: Its HTTP status.
        message: Its words.
    """

    status: int
    message: str


def refusal_text(config: Config, record: RecordRequest, passed_on: Refusal | None) -> str | None:
    """A refusal with the name of who refused, such as `big (https://host) answered 500: boom`.

    Args:
        config: The configuration.
        record: How the request ended.
        passed_on: The upstream's error, where it came as the answer.

    Returns:
        None if no upstream has refused.
    """
    if passed_on is not None:
        return _text(config, record.model, passed_on)
    problem = record.problem
    if problem is None or problem.kind != UpstreamRefused.__name__:
        return None
    for failed in record.failed_attempts:
        if (failed.kind, failed.message) == (problem.kind, problem.message):
            refusal = Refusal(failed.upstream_status or problem.status, problem.message)
            return _text(config, failed.model, refusal)
    return _text(config, record.model, Refusal(problem.status, problem.message))


def _text(config: Config, name: str | None, refusal: Refusal) -> str:
    model: ModelConfig | None = None
    with suppress(ModelNotFound):
        model = config.find_model(name) if name is not None else None
    text = f"{_who(model, name)} answered {refusal.status}: {refusal.message}"
    if model is None or refusal.status not in _UNKNOWN_TO_IT:
        return text
    unset = unset_variable(model)
    return text if unset is None else f"{text} ({unset} is not set)"


def _who(model: ModelConfig | None, name: str | None) -> str:
    if model is None or not model.is_remote:
        return name or "the engine"
    url = urlsplit(model.variants[0].connect)
    return f"{model.name} ({url.scheme}://{url.netloc.rpartition('@')[2]})"
