import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.wire.framing import Body, ChunkedBody, FramingError, LengthBody, ToCloseBody

CHUNKED = b"5\r\nhello\r\n1;name=value\r\n \r\n00A \r\n0123456789\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n"


def feed(body: Body, *pieces: bytes) -> bytes:
    return b"".join(body.feed(piece) for piece in pieces)


def test_known_length():
    body = LengthBody(5)
    assert feed(body, b"he", b"") == b"he"
    assert not body.complete
    with pytest.raises(FramingError, match="2 of 5"):
        body.feed_eof()
    assert feed(body, b"lloGET", b" /") == b"llo"
    assert body.complete
    assert body.surplus == b"GET /"
    body.feed_eof()


def test_no_body_is_complete_at_once():
    body = LengthBody(0)
    assert body.complete
    assert body.feed(b"x") == b""
    assert body.surplus == b"x"


def test_to_the_end_of_the_connection():
    body = ToCloseBody()
    assert feed(body, b"a", b"b") == b"ab"
    assert not body.complete
    body.feed_eof()
    assert body.complete


def test_chunks_whole_split_anywhere_and_byte_by_byte():
    for surplus in (b"", b"HTTP/1.1 "):
        stream = CHUNKED + surplus
        splits = [[stream[:at], stream[at:]] for at in range(len(stream) + 1)]
        splits.append([stream[at : at + 1] for at in range(len(stream))])
        for pieces in splits:
            body = ChunkedBody()
            assert feed(body, *pieces) == b"hello 0123456789"
            assert body.complete
            assert body.surplus == surplus
            body.feed_eof()


def test_an_unfinished_chunked_body_is_no_end():
    for at in range(len(CHUNKED)):
        body = ChunkedBody()
        body.feed(CHUNKED[:at])
        with pytest.raises(FramingError):
            body.feed_eof()


@pytest.mark.parametrize(
    "stream",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1 2\r\n",
        b"1\n\r\n",
        b"1" * 16 + b"\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1" * 5000,
        b"0\r\nno field\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\n" + b"x" * 70_000,
    ],
)
def test_bad_framing_is_found(stream: bytes):
    with pytest.raises(FramingError):
        ChunkedBody().feed(stream)
    body = ChunkedBody()
    with pytest.raises(FramingError):
        feed(body, *[stream[at : at + 1] for at in range(len(stream))])


def read_with_h11(stream: bytes) -> tuple[bytes, bytes | None]:
    """Content, and what followed; None for a body that is unfinished. Raises what h11 raises."""
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=65536)
    conn.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    conn.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + stream)
    content = b""
    while True:
        event = conn.next_event()
        if isinstance(event, h11.Data):
            content += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return content, conn.trailing_data[0]
        elif event is h11.NEED_DATA:
            return content, None


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=10), st.integers(1, 9))
def test_what_is_framed_is_read_back_as_h11_reads_it(chunks: list[bytes], surplus: bytes, step: int):
    stream = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + surplus
    body = ChunkedBody()
    content = feed(body, *[stream[at : at + step] for at in range(0, len(stream), step)])
    assert (content, body.surplus) == read_with_h11(stream) == (b"".join(chunks), surplus)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"1", b"a", b"0", b"\r", b"\n", b"\r\n", b";x", b" ", b"5\r\nhello\r\n"]),
        max_size=12,
    )
)
def test_what_is_accepted_is_what_h11_accepts(parts: list[bytes]):
    stream = b"".join(parts)
    body = ChunkedBody()
    try:
        content = body.feed(stream)
    except FramingError:
        return
    if body.complete:
        assert read_with_h11(stream) == (content, body.surplus)
