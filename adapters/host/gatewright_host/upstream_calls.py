"""What the async and the blocking driver share of calling an upstream: everything but the waiting."""

import os
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from gatewright.api.counting import input_tokens_request, read_token_count
from gatewright.api.errors import read_upstream_error
from gatewright.api.facts import FIRST_ERROR_STATUS, RequestFacts
from gatewright.api.rewriting import replace_model
from gatewright.commands import CallUpstream
from gatewright.events import RelayFailure, UpstreamAnswered
from gatewright.ids import RequestId
from gatewright.wire.client import ResponseHead, upstream_headers
from gatewright.wire.fields import Headers
from gatewright.wire.server import RequestHead

ERROR_BODY_BYTES: Final = 65_536
"""More of an upstream's error is relayed, but not read for its meaning."""
COUNT_TIMEOUT_S: Final = 30.0

EVENT_STREAM: Final[Headers] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
)
UNBUFFERED: Final[Headers] = ((b"x-accel-buffering", b"no"),)
"""For every stream: nginx would hold the events back."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Address:
    """An upstream's base URL, taken apart.

    Attributes:
        host: Name or address to connect to.
        port: Port to connect to.
        tls: Whether to encrypt.
        authority: `Host` header.
        prefix: Path before the API path, without a slash at its end.
    """

    host: str
    port: int
    tls: bool
    authority: str
    prefix: str


def parse_address(base_url: str) -> Address:
    """Take a base URL apart; the configuration has checked it."""
    parts = urlsplit(base_url)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return Address(parts.hostname or "", port, parts.scheme == "https", parts.netloc, parts.path.rstrip("/"))


@frozen
class ClientRequest:
    """A client's request as it came.

    Attributes:
        request_id: Its id.
        head: Request line and headers.
        facts: What it asks.
        body: All of it.
    """

    request_id: RequestId
    head: RequestHead
    facts: RequestFacts
    body: bytes


@frozen
class UpstreamRequest:
    """What an upstream is sent.

    Attributes:
        method: In upper case.
        path: Path and query.
        headers: Without those of the connection.
        body: All of it.
    """

    method: str
    path: str
    headers: Headers
    body: bytes


class RelayStopped(Exception):
    """The answer does not reach its end.

    Args:
        failure: Why.
        reason: One line for people.
    """

    def __init__(self, failure: RelayFailure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason


def upstream_request(request: ClientRequest, command: CallUpstream) -> UpstreamRequest:
    """The client's request as the upstream gets it: its own credential, its own name for the model."""
    credential = os.environ.get(command.api_key_env) if command.api_key_env is not None else None
    headers = upstream_headers(request.head, credential=credential, format=request.facts.format)
    body = request.body
    if command.upstream_model is not None:
        body = replace_model(body, command.upstream_model, request.head.get("content-type"))
    return UpstreamRequest(request.head.method, request.facts.path, headers, body)


def upstream_answered(command: CallUpstream, head: ResponseHead, body: bytes) -> UpstreamAnswered:
    """The completion of a call whose answer is here, as far as it is to be read."""
    error = None
    if head.status >= FIRST_ERROR_STATUS:
        error = read_upstream_error(head.status, head.headers, body)
    return UpstreamAnswered(command_id=command.command_id, status=head.status, error=error)


def count_request(request: ClientRequest) -> UpstreamRequest:
    """What an engine is asked to count this request's prompt."""
    path, body = input_tokens_request(request.facts, request.body)
    return UpstreamRequest("POST", path, ((b"content-type", b"application/json"),), body)


def read_count(asked: UpstreamRequest, status: int, body: bytes) -> int:
    """The number of tokens in the answer to `count_request`.

    Raises:
        ValueError: There is none in it.
    """
    tokens = read_token_count(asked.path, body) if status < FIRST_ERROR_STATUS else None
    if tokens is None:
        raise ValueError(f"the engine answered {status} to {asked.path}")
    return tokens
