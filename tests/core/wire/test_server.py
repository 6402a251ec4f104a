from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.wire.server import (
    CONNECTION_CLOSED,
    NEED_DATA,
    PAUSED,
    REQUEST_END,
    BadRequest,
    BodyChunk,
    RequestHead,
    ServerConnection,
    ServerEvent,
)

POST = b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /health HTTP/1.1\r\nHost: gw\r\n\r\n"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
)


def connection(max_head_bytes: int = 1000, max_body_bytes: int = 1000) -> ServerConnection:
    return ServerConnection(max_head_bytes=max_head_bytes, max_body_bytes=max_body_bytes)


def drain(conn: ServerConnection) -> list[ServerEvent]:
    events: list[ServerEvent] = []
    while True:
        event = conn.next_event()
        if event in (NEED_DATA, PAUSED):
            return events
        events.append(event)
        if event is CONNECTION_CLOSED:
            return events


def read(pieces: list[bytes], **limits: int) -> list[Any]:
    """All events of a connection that answers each request; body chunks joined."""
    conn = connection(**limits)
    seen: list[Any] = []
    for piece in pieces:
        conn.receive(piece)
        while True:
            event = conn.next_event()
            if event is NEED_DATA or (event is CONNECTION_CLOSED and seen and seen[-1] is event):
                break
            if isinstance(event, BodyChunk) and seen and isinstance(seen[-1], BodyChunk):
                seen[-1] = BodyChunk(seen[-1].data + event.data)
            else:
                seen.append(event)
            if event is REQUEST_END:
                conn.response(200, (), b"ok")
                if conn.must_close:
                    return seen
                conn.start_next_cycle()
            if event is CONNECTION_CLOSED:
                break
    return seen


def answered(request: bytes) -> ServerConnection:
    conn = connection()
    conn.receive(request)
    drain(conn)
    return conn


def refusal(request: bytes, **limits: int) -> BadRequest:
    conn = connection(**limits)
    conn.receive(request)
    bad = [event for event in drain(conn) if isinstance(event, BadRequest)]
    assert len(bad) == 1
    return bad[0]


def test_reads_a_request_with_a_body():
    conn = connection()
    conn.receive(POST)
    head = conn.next_event()
    assert head == RequestHead(
        "POST",
        "/v1/chat/completions?a=b",
        ((b"host", b"gw"), (b"content-type", b"application/json"), (b"content-length", b"5")),
        "1.1",
        expects_continue=False,
        content_length=5,
    )
    assert isinstance(head, RequestHead)
    assert head.get("Content-Type") == "application/json"
    assert head.get("accept") is None
    assert conn.next_event() == BodyChunk(b"hello")
    assert conn.next_event() is REQUEST_END
    assert conn.next_event() is NEED_DATA


def test_reads_a_chunked_body():
    head, *rest = read([CHUNKED])
    assert head.content_length is None
    assert rest == [BodyChunk(b"hello"), REQUEST_END]


@pytest.mark.parametrize("request_bytes", [POST, GET, CHUNKED, POST + GET + CHUNKED + POST])
def test_split_at_every_point_and_byte_by_byte_agree(request_bytes: bytes):
    whole = read([request_bytes])
    assert whole.count(REQUEST_END) in {1, 4}
    for at in range(1, len(request_bytes)):
        assert read([request_bytes[:at], request_bytes[at:]]) == whole
    assert read([request_bytes[at : at + 1] for at in range(len(request_bytes))]) == whole


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_nothing_raises_and_splits_agree_on_anything(data: bytes, cuts: list[int]):
    for prefix in (b"", b"GET / HTTP/1.1\r\n", POST[:-5], CHUNKED[:-30]):
        stream = prefix + data
        bounds = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
        pieces = [stream[a:b] for a, b in pairwise(bounds) if a < b]
        split, whole = read([*pieces, b""]), read([stream, b""] if stream else [b""])
        if not any(isinstance(event, BadRequest) for event in whole):
            assert split == whole
        else:
            # How much of a body was seen before its end turned out to be wrong depends on the reads.
            bad = [[e.problem.status for e in seen if isinstance(e, BadRequest)] for seen in (split, whole)]
            assert bad[0] == bad[1]


def test_pipelined_requests_wait_for_the_next_cycle():
    conn = connection()
    conn.receive(POST + GET)
    assert len(drain(conn)) == 3
    assert conn.next_event() is PAUSED
    conn.receive(GET)
    assert conn.next_event() is PAUSED
    for _ in range(2):
        conn.response(200, (), b"")
        assert not conn.must_close
        conn.start_next_cycle()
        assert not conn.is_idle
        head, end = drain(conn)
        assert isinstance(head, RequestHead)
        assert head.target == "/health"
        assert end is REQUEST_END
    assert conn.next_event() is NEED_DATA
    conn.response(200, (), b"")
    conn.start_next_cycle()
    assert conn.is_idle


def test_idle_is_without_a_byte_of_a_head():
    conn = connection()
    assert conn.is_idle
    conn.receive(b"G")
    assert not conn.is_idle


def test_end_of_file_between_requests_within_one_and_behind_one():
    conn = connection()
    conn.receive(b"")
    assert conn.next_event() is CONNECTION_CLOSED
    for part in (POST[:10], POST[:-2], CHUNKED[:-10]):
        conn = connection()
        conn.receive(part)
        conn.receive(b"")
        assert drain(conn)[-1] is CONNECTION_CLOSED
    conn = answered(POST)
    conn.receive(b"")
    assert conn.next_event() is CONNECTION_CLOSED
    conn = answered(POST + GET)
    conn.receive(b"")
    assert conn.next_event() is PAUSED


# --- Expect


def test_continue_is_told_once_due():
    conn = connection()
    assert conn.continue_100() == b""
    conn.receive(POST[:-5].replace(b"Host", b"Expect: 100-Continue\r\nHost"))
    head = conn.next_event()
    assert isinstance(head, RequestHead)
    assert head.expects_continue
    assert conn.continue_100() == b"HTTP/1.1 100 Continue\r\n\r\n"
    conn.receive(b"he")
    assert conn.next_event() == BodyChunk(b"he")
    assert conn.continue_100() == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host", b"Expect: 100-continue\r\nHost"),
        GET.replace(b"Host", b"Expect: 100-continue\r\nHost"),
        POST,
    ],
)
def test_continue_is_not_told_to_old_clients_nor_without_a_body(request_bytes: bytes):
    conn = connection()
    conn.receive(request_bytes[: request_bytes.index(b"\r\n\r\n") + 4])
    head = conn.next_event()
    assert isinstance(head, RequestHead)
    assert not head.expects_continue
    assert conn.continue_100() == b""


def test_a_final_answer_before_the_body_closes():
    conn = connection()
    conn.receive(POST[:-5].replace(b"Host", b"Expect: 100-continue\r\nHost"))
    conn.next_event()
    assert b"connection: close\r\n" in conn.response(401, (), b"no")
    assert conn.must_close
    assert conn.continue_100() == b""


# --- limits


def test_a_head_beyond_the_limit_is_431_however_it_comes():
    head = b"GET / HTTP/1.1\r\nHost: gw\r\nX: %b\r\n\r\n"
    fits = head % (b"x" * (200 - len(head) + 2))
    assert len(fits) == 200
    assert REQUEST_END in read([fits], max_head_bytes=200)
    assert REQUEST_END in read([fits[at : at + 1] for at in range(200)], max_head_bytes=200)
    large = head % (b"x" * (201 - len(head) + 2))
    for pieces in (
        [large],
        [large[:100], large[100:]],
        [large[at : at + 1] for at in range(201)],
        [large + POST],
    ):
        assert [event.problem.status for event in read(pieces, max_head_bytes=200)[:1]] == [431]
    assert REQUEST_END in read([fits + b"x" * 500], max_head_bytes=200)


def test_an_announced_body_beyond_the_limit_is_413_before_it_is_sent():
    bad = refusal(POST[:-5].replace(b"Host", b"Expect: 100-continue\r\nHost"), max_body_bytes=4)
    assert bad.problem.kind == "BodyTooLarge"
    assert bad.problem.status == 413
    assert bad.head is not None
    assert bad.head.target == "/v1/chat/completions?a=b"
    assert REQUEST_END in read([POST], max_body_bytes=5)


def test_a_chunked_body_beyond_the_limit_is_413_while_it_comes():
    assert refusal(CHUNKED, max_body_bytes=4).problem.status == 413
    assert REQUEST_END in read([CHUNKED], max_body_bytes=5)
    endless = CHUNKED[: CHUNKED.index(b"3\r\n")] + b"fff\r\n" + b"x" * 900
    assert refusal(endless, max_body_bytes=500).problem.status == 413


def test_after_a_refusal_only_the_answer_and_the_end_are_left():
    conn = connection()
    conn.receive(b"nonsense\r\n\r\n")
    assert isinstance(conn.next_event(), BadRequest)
    assert conn.next_event() is CONNECTION_CLOSED
    conn.receive(POST)
    assert conn.next_event() is CONNECTION_CLOSED
    assert conn.response(400, ((b"x", b"y"),), b"no") == (
        b"HTTP/1.1 400 Bad Request\r\nx: y\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    )
    assert conn.must_close


# --- what two readers could read differently


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\na", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            501,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
    ],
)
def test_ambiguous_and_malformed_requests_are_refused(request_bytes: bytes, status: int):
    bad = refusal(request_bytes)
    assert bad.problem.status == status
    assert bad.problem.kind == "InvalidRequest"
    assert "bytearray" not in bad.problem.message


def test_a_refusal_does_not_repeat_what_was_sent():
    bad = refusal(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization Bearer sk-secret\r\n\r\n")
    assert "secret" not in bad.problem.message


def test_equal_lengths_count_as_one_and_folded_lines_as_one_line():
    seen = read([POST.replace(b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 5\r\nX: a\r\n b")])
    assert seen[0].get("x") == "a b"
    assert seen[1:] == [BodyChunk(b"hello"), REQUEST_END]


def test_a_target_in_absolute_form_brings_its_own_host():
    for line, target in (
        (b"http://other:81/p?q", "/p?q"),
        (b"HTTP://other:81", "/"),
        (b"http://other:81?q", "/?q"),
    ):
        head = read([b"GET %b HTTP/1.1\r\nHost: gw\r\n\r\n" % line])[0]
        assert head.target == target
        assert head.get("host") == "other:81"
        assert len(head.headers) == 1
    assert read([b"OPTIONS * HTTP/1.1\r\nHost: gw\r\n\r\n"])[0].target == "*"
    assert read([b"CONNECT a:80 HTTP/1.1\r\nHost: gw\r\n\r\n"])[0].target == "a:80"


def test_an_upgrade_is_passed_over():
    seen = read([GET.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost") + GET])
    assert [type(event) for event in seen] == [RequestHead, type(REQUEST_END)] * 2
