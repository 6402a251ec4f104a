"""What the async and the blocking driver share of calling an upstream: everything but the waiting."""

from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from gatewright.api.continuation import continue_body
from gatewright.api.counting import input_tokens_request, read_token_count
from gatewright.api.facts import FIRST_ERROR_STATUS, ApiFormat, RequestFacts, UpstreamError
from gatewright.api.rewriting import ask_for_usage, replace_model
from gatewright.api.transforms import Transform, transform_body
from gatewright.api.wishes import strip_wishes
from gatewright.commands import CallUpstream, CountTokens
from gatewright.events import CallFailure, RelayFailure, UpstreamAnswered
from gatewright.ids import RequestId
from gatewright.wire.client import ClientExchange, upstream_headers
from gatewright.wire.fields import Headers
from gatewright.wire.sent_answer import SentAnswer
from gatewright.wire.server import RequestHead
from gatewright.wire.upstream_answer import Begun, UpstreamAnswer
from gatewright_host.credentials import credential

COUNT_TIMEOUT_S: Final = 30.0
LAST_WORDS_S: Final = 5.0
"""Silence after which an answer whose model has finished is closed, though its upstream has not closed it."""

MOST_KEPT_BYTES: Final = 1_048_576
"""Of an answer that a judge is to see."""

EVENT_STREAM: Final[Headers] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
)
UNBUFFERED: Final[Headers] = ((b"x-accel-buffering", b"no"),)
"""For every stream: nginx would hold the events back."""

_ADDRESSES_KNOWN: Final = 1024
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


class AddressBook:
    """Base URLs taken apart, from memory where they were seen before."""

    def __init__(self) -> None:
        self._known: dict[str, Address] = {}

    def find(self, base_url: str) -> Address:
        """The parts of a base URL."""
        address = self._known.get(base_url)
        if address is None:
            if len(self._known) >= _ADDRESSES_KNOWN:  # each start of an engine may choose a new port
                self._known = {}
            address = self._known[base_url] = parse_address(base_url)
        return address


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
        facts: What the answer will be like.
    """

    method: str
    path: str
    headers: Headers
    body: bytes
    facts: RequestFacts

    def pieces(self, exchange: ClientExchange, address: Address) -> list[bytes]:
        """Its bytes, to be written one after the other."""
        path = address.prefix + self.path
        return exchange.request_bytes(self.method, address.authority, path, self.headers, self.body)


class CallStopped(Exception):
    """There will be no answer.

    Args:
        failure: Why.
        reason: One line for people.
    """

    def __init__(self, failure: CallFailure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason


class RelayStopped(Exception):
    """The answer does not reach its end.

    Args:
        failure: Why.
        reason: One line for people.
        error: What the upstream said about it, where it did.
    """

    def __init__(self, failure: RelayFailure, reason: str, error: UpstreamError | None = None) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason
        self.error = error


class Patience:
    """How long a call's next bytes may take.

    Args:
        command: The call.
        sent_at: When its request was sent, in seconds of `monotonic`.
    """

    def __init__(self, command: CallUpstream, sent_at: float) -> None:
        self._command = command
        self._sent_at = sent_at

    def left_s(self, now: float, *, has_head: bool) -> float | None:
        """Longest silence from now on; None for as long as the upstream lives.

        Args:
            now: Seconds of `monotonic`.
            has_head: The answer's head is here.
        """
        command, ends = self._command, []
        if command.head_timeout_s is not None and not has_head:
            ends.append(self._sent_at + command.head_timeout_s - now)
        if command.first_token_timeout_s is not None:
            ends.append(self._sent_at + command.first_token_timeout_s - now)
        if command.stall_timeout_s is not None and has_head:
            ends.append(command.stall_timeout_s)
        return max(0.0, min(ends)) if ends else None

    def ended(self, now: float, *, has_head: bool) -> CallStopped:
        """For a call whose time is over."""
        missing = "nothing of an answer but its head" if has_head else "no answer"
        text = f"{missing} within {now - self._sent_at:.1f} s"
        return CallStopped(CallFailure.TIMEOUT, text)


def upstream_request(request: ClientRequest, command: CallUpstream, sent: SentAnswer) -> UpstreamRequest:
    """The client's request as the upstream gets it: its own credential, its own name for the model.

    Args:
        request: What the client wants.
        command: The call.
        sent: What the client has of its answer already.
    """
    key = credential(command.api_key_env)
    headers = upstream_headers(request.head, credential=key, format=request.facts.format)
    body = transformed_body(request, command.transforms, command.provider)
    if command.upstream_model is not None:
        body = replace_model(body, command.upstream_model, request.head.get("content-type"))
    if command.asks_usage:
        body = ask_for_usage(body)
    if command.continuation is not None:
        body = continue_body(body, request.facts.format, sent.text, sent.tokens, command.continuation)
    return UpstreamRequest(request.head.method, request.facts.path, headers, body, request.facts)


def answered(command: CallUpstream, begun: Begun, upstream: UpstreamAnswer | None) -> UpstreamAnswered:
    """The completion of a call whose answer has begun.

    Args:
        command: The call.
        begun: How.
        upstream: The answer, which may have ended already.
    """
    return UpstreamAnswered(
        command_id=command.command_id,
        status=begun.status,
        error=begun.error,
        usage=upstream.usage if upstream is not None and upstream.ended else None,
    )


def transformed_body(request: ClientRequest, transforms: tuple[Transform, ...], provider: str) -> bytes:
    """A request's body after these changes, and without what is for us alone."""
    facts, content_type = request.facts, request.head.get("content-type")
    body = strip_wishes(request.body) if facts.wishes is not None else request.body
    if not transforms:
        return body
    return transform_body(body, facts.format, transforms, content_type, provider=provider)


def count_request(request: ClientRequest, command: CountTokens) -> UpstreamRequest:
    """What an engine is asked to count this request's prompt."""
    body = transformed_body(request, command.transforms, command.provider)
    path, body = input_tokens_request(request.facts, body)
    facts = RequestFacts(path=path, format=ApiFormat.OTHER)
    return UpstreamRequest("POST", path, ((b"content-type", b"application/json"),), body, facts)


def count_call(command: CountTokens) -> CallUpstream:
    """The call that asks an engine to count."""
    assert command.base_url is not None
    return CallUpstream(
        command_id=command.command_id,
        request_id=command.request_id,
        base_url=command.base_url,
        connect_timeout_s=COUNT_TIMEOUT_S,
        head_timeout_s=COUNT_TIMEOUT_S,
        stall_timeout_s=COUNT_TIMEOUT_S,
    )


def read_count(asked: UpstreamRequest, status: int, body: bytes) -> int:
    """The number of tokens in the answer to `count_request`.

    Raises:
        ValueError: There is none in it.
    """
    tokens = read_token_count(asked.path, body) if status < FIRST_ERROR_STATUS else None
    if tokens is None:
        raise ValueError(f"the engine answered {status} to {asked.path}")
    return tokens
