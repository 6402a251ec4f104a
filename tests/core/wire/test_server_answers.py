"""The writing half of `server.py`; the reading half is in `test_server.py`."""

import pytest

from gatewright.wire.server import NEED_DATA, PAUSED, ServerConnection

POST = b"POST /x HTTP/1.1\r\nHost: gw\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /health HTTP/1.1\r\nHost: gw\r\n\r\n"


def answered(request: bytes) -> ServerConnection:
    conn = ServerConnection(max_head_bytes=1000, max_body_bytes=1000)
    conn.receive(request)
    while conn.next_event() not in (NEED_DATA, PAUSED):
        pass
    return conn


def test_an_answer_of_known_length():
    conn = answered(GET)
    assert conn.response_head(200, ((b"content-type", b"text/plain"),), content_length=5) == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n"
    )
    assert conn.body(b"hel") == b"hel"
    with pytest.raises(ValueError, match="longer"):
        conn.body(b"lots")
    assert conn.body(b"lo") == b"lo"
    assert conn.must_close
    assert conn.end() == b""
    assert not conn.must_close


def test_an_answer_of_unknown_length_is_chunked():
    conn = answered(GET)
    assert conn.response_head(200, ()) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert conn.body(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert conn.body(b"") == b""
    assert conn.end() == b"0\r\n\r\n"
    assert not conn.must_close


def test_a_short_answer_can_only_be_cut_off():
    conn = answered(GET)
    conn.response_head(200, (), content_length=5)
    conn.body(b"hel")
    conn.end()
    assert conn.must_close
    with pytest.raises(RuntimeError):
        conn.start_next_cycle()


@pytest.mark.parametrize("length", [None, 5])
def test_an_answer_to_head_has_the_head_only(length: int | None):
    conn = answered(GET.replace(b"GET", b"HEAD"))
    head = conn.response_head(200, (), content_length=length)
    assert (b"content-length: 5" if length else b"transfer-encoding: chunked") in head
    assert conn.body(b"hello") + conn.end() == b""
    assert not conn.must_close


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int):
    conn = answered(GET)
    assert conn.response_head(status, (), content_length=0).count(b"\r\n") == 2
    assert conn.body(b"hello") + conn.end() == b""
    assert not conn.must_close


def test_old_clients_get_no_chunks():
    conn = answered(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert conn.response_head(200, ()) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    assert conn.body(b"hello") + conn.end() == b"hello"
    assert conn.must_close


@pytest.mark.parametrize(
    ("request_bytes", "keeps", "header"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True, b""),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: Close\r\n\r\n",
            False,
            b"connection: close\r\n",
        ),
        (b"GET / HTTP/1.0\r\n\r\n", False, b"connection: close\r\n"),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True, b"connection: keep-alive\r\n"),
    ],
)
def test_keeping_the_connection(request_bytes: bytes, keeps: bool, header: bytes):
    conn = answered(request_bytes)
    assert conn.response(200, (), b"") == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + header + b"\r\n"
    assert conn.must_close is not keeps


def test_an_answer_before_the_end_of_the_request_closes():
    conn = answered(POST[:-1])
    assert b"connection: close" in conn.response(200, (), b"")
    assert conn.must_close


@pytest.mark.parametrize(
    "header",
    [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x\r", b"a"), (b"x", b"\0"), (b"content-length", b"1")],
)
def test_a_header_cannot_split_an_answer(header: tuple[bytes, bytes]):
    with pytest.raises(ValueError, match=r"header|connection"):
        answered(GET).response_head(200, (header,))


def test_answers_out_of_order_are_errors_of_the_caller():
    conn = answered(GET)
    for call in (lambda: conn.body(b"x"), conn.end, conn.start_next_cycle):
        with pytest.raises(RuntimeError):
            call()
    conn.response(200, (), b"")
    for call in (lambda: conn.body(b"x"), conn.end, lambda: conn.response_head(200, ())):
        with pytest.raises(RuntimeError):
            call()


def test_a_status_without_a_name_is_sent_all_the_same():
    assert answered(GET).response_head(599, (), content_length=0).startswith(b"HTTP/1.1 599 \r\n")
