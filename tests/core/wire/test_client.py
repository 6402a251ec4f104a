from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.facts import ApiFormat
from gatewright.wire.client import (
    RESPONSE_END,
    BodyData,
    ClientExchange,
    ResponseHead,
    UpstreamBroken,
    forwardable_headers,
    upstream_headers,
)
from gatewright.wire.server import NEED_DATA, RequestHead

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
TO_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
INFORMED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN


def begun(method: str = "POST") -> ClientExchange:
    exchange = ClientExchange()
    exchange.request_bytes(method, "engine:81", "/x", (), b"{}")
    return exchange


def read(pieces: list[bytes], exchange: ClientExchange | None = None) -> tuple[list[Any], ClientExchange]:
    """All events, with the content joined."""
    exchange = exchange or begun()
    seen: list[Any] = []
    for piece in pieces:
        exchange.receive(piece)
        while (event := exchange.next_event()) is not NEED_DATA:
            if isinstance(event, BodyData) and seen and isinstance(seen[-1], BodyData):
                event = BodyData(seen.pop().data + event.data)
            if seen and seen[-1] == event and isinstance(event, UpstreamBroken):
                break
            seen.append(event)
    return seen, exchange


# --- requests


def test_a_request_is_written_in_one_piece():
    headers = ((b"content-type", b"application/json"),)
    assert ClientExchange().request_bytes("POST", "engine:81", "/v1/x?a=%20", headers, b"{}") == [
        b"POST /v1/x?a=%20 HTTP/1.1\r\nhost: engine:81\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
    ]


def test_a_large_body_is_not_copied():
    body = b"x" * 100_000
    head, same = ClientExchange().request_bytes("POST", "e", "/", (), body)
    assert head.endswith(b"content-length: 100000\r\n\r\n")
    assert same is body


def test_only_methods_with_bodies_tell_an_empty_one():
    assert ClientExchange().request_bytes("GET", "e", "/", ()) == [b"GET / HTTP/1.1\r\nhost: e\r\n\r\n"]
    assert b"content-length: 0" in ClientExchange().request_bytes("POST", "e", "/", ())[0]


@pytest.mark.parametrize(
    ("method", "host", "path"),
    [
        ("GET", "e", "/a b"),
        ("GET", "e", "/a\r\nX: y"),
        ("GET", "e", "http://x/"),
        ("GET", "e", ""),
        ("GET", "e\r\n", "/"),
        ("GET", "", "/"),
        ("GET /", "e", "/"),
        ("GET", "e", "/é"),
    ],
)
def test_a_request_cannot_be_split(method: str, host: str, path: str):
    with pytest.raises(ValueError, match="not a request"):
        ClientExchange().request_bytes(method, host, path, ())


def test_one_request_at_a_time():
    exchange = begun()
    with pytest.raises(RuntimeError):
        exchange.request_bytes("GET", "e", "/", ())
    with pytest.raises(RuntimeError):
        exchange.next_cycle()


# --- answers


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED, EMPTY, INFORMED])
def test_whole_split_and_byte_by_byte_agree(answer: bytes):
    whole, exchange = read([answer])
    assert [type(event) for event in whole] == (
        [ResponseHead, type(RESPONSE_END)]
        if answer is EMPTY
        else [ResponseHead, BodyData, type(RESPONSE_END)]
    )
    assert exchange.reusable
    for at in range(1, len(answer)):
        seen, exchange = read([answer[:at], answer[at:]])
        assert seen == whole
        assert exchange.reusable
    seen, exchange = read([answer[at : at + 1] for at in range(len(answer))])
    assert seen == whole
    assert exchange.reusable


def test_the_head_of_an_answer():
    (head, body, end), _ = read([PLAIN])
    assert head == ResponseHead(200, ((b"content-type", b"application/json"), (b"content-length", b"5")), 5)
    assert head.get("Content-Type") == "application/json"
    assert (body, end) == (BodyData(b"hello"), RESPONSE_END)
    assert read([CHUNKED])[0][0].content_length is None


def test_all_chunks_of_a_read_come_as_one():
    exchange = begun()
    exchange.receive(CHUNKED)
    assert isinstance(exchange.next_event(), ResponseHead)
    assert exchange.next_event() == BodyData(b"hello")
    assert exchange.next_event() is RESPONSE_END
    assert exchange.next_event() is NEED_DATA


def test_the_next_exchange_on_the_same_connection():
    _, exchange = read([PLAIN])
    exchange.next_cycle()
    assert exchange.reusable
    exchange.request_bytes("POST", "e", "/", ())
    assert not exchange.reusable
    seen, exchange = read([CHUNKED], exchange)
    assert seen[-1] is RESPONSE_END


def test_an_answer_to_head_has_no_body():
    seen, exchange = read([PLAIN[:-5]], begun("HEAD"))
    assert [type(event) for event in seen] == [ResponseHead, type(RESPONSE_END)]
    assert seen[0].content_length == 5
    assert exchange.reusable


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"Content-Type", b"Connection: X, Close\r\nContent-Type"),
        PLAIN + b"H",
        CHUNKED + b"H",
        CHUNKED.replace(b"Transfer", b"Content-Length: 3\r\nTransfer"),
    ],
)
def test_connections_that_are_not_used_again(answer: bytes):
    seen, exchange = read([answer])
    assert seen[-1] is RESPONSE_END
    assert seen[-2] == BodyData(b"hello")
    assert not exchange.reusable
    with pytest.raises(RuntimeError):
        exchange.next_cycle()


def test_a_connection_that_ends_or_speaks_between_exchanges_is_not_used_again():
    for late in (b"", b"HTTP/1.1 408 Timeout\r\n\r\n"):
        _, exchange = read([PLAIN])
        exchange.receive(late)
        assert not exchange.reusable
        _, exchange = read([PLAIN])
        exchange.next_cycle()
        exchange.receive(late)
        assert not exchange.reusable
        with pytest.raises(RuntimeError):
            exchange.request_bytes("GET", "e", "/", ())


def test_an_answer_may_end_with_its_connection():
    seen, exchange = read([TO_CLOSE, b""])
    assert seen[1:] == [BodyData(b"hello"), RESPONSE_END]
    assert not exchange.reusable
    seen, exchange = read([PLAIN, b""])
    assert seen[-1] is RESPONSE_END
    assert not exchange.reusable


def test_head_and_end_of_file_before_the_first_look():
    exchange = begun()
    exchange.receive(TO_CLOSE)
    exchange.receive(b"")
    assert isinstance(exchange.next_event(), ResponseHead)
    assert exchange.next_event() == BodyData(b"hello")
    assert exchange.next_event() is RESPONSE_END


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_an_answer_cut_off_is_broken(answer: bytes):
    for at in range(len(answer)):
        seen, exchange = read([answer[:at], b""] if at else [b""])
        assert isinstance(seen[-1], UpstreamBroken)
        assert seen[-1].unanswered is (at == 0)
        assert not exchange.reusable


def test_what_came_before_the_break_is_delivered_first():
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nx\r\n"
    for at in range(len(stream)):
        (head, body, broken), _ = read([stream[:at], stream[at:]] if at else [stream])
        assert isinstance(head, ResponseHead)
        assert body == BodyData(b"hel")
        assert broken == UpstreamBroken("the upstream's answer is broken: bad chunk size", unanswered=False)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense, nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_wrong_answers_break_without_raising(answer: bytes):
    seen, exchange = read([answer])
    assert [type(event) for event in seen] == [UpstreamBroken]
    assert not seen[0].unanswered
    assert not exchange.reusable
    exchange.receive(PLAIN)
    assert exchange.next_event() == seen[0]


@settings(deadline=None)
@given(
    st.sampled_from([b"", PLAIN[:-5], CHUNKED[:50], INFORMED[:25]]), st.binary(max_size=200), st.booleans()
)
def test_nothing_raises_on_anything(prefix: bytes, data: bytes, head: bool):
    read([prefix + data or b"x", b""], begun("HEAD" if head else "POST"))


# --- which headers pass through


def test_headers_of_an_answer_that_the_client_gets():
    passing = (
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
    )
    others = (
        (b"connection", b"close, X-Hop"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"proxy-authenticate", b"Basic"),
        (b"content-length", b"5"),
        (b"server", b"llama.cpp"),
        (b"date", b"now"),
        (b"set-cookie", b"a=b"),
        (b"access-control-allow-origin", b"*"),
        (b"x-request-id", b"theirs"),
        (b"x-gw-model", b"theirs"),
    )
    assert forwardable_headers(others + passing) == passing


def request_head(*headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead("POST", "/", headers, "1.1", expects_continue=False, content_length=0)


def test_headers_of_a_request_that_the_upstream_gets():
    passing = (
        (b"content-type", b"application/json"),
        (b"accept", b"*/*"),
        (b"user-agent", b"x"),
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"b"),
        (b"openai-beta", b"b"),
        (b"traceparent", b"00-1"),
    )
    others = tuple(
        (name, b"secret")
        for name in (
            b"authorization",
            b"x-api-key",
            b"api-key",
            b"cookie",
            b"proxy-authorization",
            b"host",
            b"forwarded",
            b"x-forwarded-for",
            b"origin",
            b"connection",
            b"content-length",
            b"accept-encoding",
            b"x-gw-anything",
        )
    )
    identity = (b"accept-encoding", b"identity")
    head = request_head(*others, *passing)
    assert upstream_headers(head) == (*passing, identity)
    with_key = (*passing, identity, (b"authorization", b"Bearer key"))
    assert upstream_headers(head, credential="key\n", format=ApiFormat.CHAT) == with_key
    assert upstream_headers(head, credential="key", format=ApiFormat.MESSAGES) == (
        *with_key,
        (b"x-api-key", b"key"),
    )


def test_a_credential_cannot_split_a_request():
    with pytest.raises(ValueError, match="line break"):
        ClientExchange().request_bytes(
            "POST", "e", "/", upstream_headers(request_head(), credential="a\r\nb: c")
        )
