from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.wire.sse import SseSplitter, data_lines, event_data, split_events

STREAMS = [
    b"data: a\n\ndata: b\n\n",
    b"data: a\r\n\r\ndata: b\r\n\r\n",
    b"data: a\r\rdata: b\r\r",
    b"\xef\xbb\xbfdata: a\n\n:\n\nevent: x\ndata: b\ndata: c\n\n",
    b"\n\n\ndata: a\n\n\n\ndata: b\r\n\n\r\ndata: c\n\r\n\r",
    b"data: a\n\ndata: unfinished",
]


def split(pieces: list[bytes]) -> list[bytes]:
    splitter = SseSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    rest = splitter.finish()
    return [*events, rest] if rest else events


def test_events_are_cut_behind_their_blank_line():
    assert split([STREAMS[0]]) == [b"data: a\n\n", b"data: b\n\n"]
    assert split([STREAMS[1]]) == [b"data: a\r\n\r\n", b"data: b\r\n\r\n"]
    assert split([STREAMS[2]]) == [b"data: a\r\r", b"data: b\r\r"]
    assert split([STREAMS[5]]) == [b"data: a\n\n", b"data: unfinished"]


def test_further_blank_lines_go_with_the_next_event():
    assert split([b"data: a\n\n\ndata: b\n\n"]) == [b"data: a\n\n", b"\ndata: b\n\n"]


def test_every_whole_event_comes_out_at_once():
    splitter = SseSplitter()
    assert splitter.feed(b"data: a\n\ndata: b\n\ndat") == [b"data: a\n\n", b"data: b\n\n"]
    assert splitter.feed(b"a: c\n") == []
    assert splitter.feed(b"\n") == [b"data: c\n\n"]
    assert splitter.take(b":\n\n:\n\n") == b":\n\n:\n\n"


@pytest.mark.parametrize("stream", STREAMS)
def test_split_at_every_point_and_byte_by_byte_agree(stream: bytes):
    whole = split([stream])
    assert b"".join(whole) == stream
    for at in range(len(stream)):
        assert split([stream[:at], stream[at:]]) == whole
    assert split([stream[at : at + 1] for at in range(len(stream))]) == whole


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"a"]), max_size=20),
    st.lists(st.integers(0, 40)),
)
def test_any_mixture_of_line_ends_splits_the_same_everywhere(parts: list[bytes], cuts: list[int]):
    stream = b"".join(parts)
    bounds = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    assert split(pieces) == split([stream])
    assert b"".join(split([stream])) == stream


def test_an_event_too_large_passes_in_pieces_and_the_next_is_whole_again():
    splitter = SseSplitter(max_partial_bytes=10)
    passed = splitter.take(b"data: 0123456789")
    assert passed == b"data: 0123456"
    assert splitter.in_event
    assert splitter.take(b"ab") == b"78"
    assert splitter.take(b"c\n\ndata: x") == b"9abc\n\n"
    assert not splitter.in_event
    assert splitter.take(b"\n\n") == b"data: x\n\n"
    assert splitter.finish() == b""


def test_a_large_event_byte_by_byte_is_read_in_linear_time():
    splitter = SseSplitter()
    for _ in range(200_000):
        assert splitter.take(b"xxxxx") == b""
    assert len(splitter.take(b"\n\n")) == 1_000_002


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a\r\n\r\n", b" a"),
        (b"data: a\r\r", b"a"),
        (b"data: a\ndata: b\ndata\n\n", b"a\nb\n"),
        (b"event: x\nid: 1\ndata: a\n\n", b"a"),
        (b"event: x\ndata: a\n\n", b"a"),
        (b"event: x\ndata: a\nid: 1\n\n", b"a"),
        (b"event: x\ndata: a\ndata: b\n\n", b"a\nb"),
        (b"id: 1\ndata: a\n\n", b"a"),
        (b"\xef\xbb\xbfdata: a\n\n", b"a"),
        (b"\n\ndata: a\n\n", b"a"),
        (b"data: \n\n", b""),
        (b": comment\n\n", None),
        (b"event: x\n\n", None),
        (b"database: x\n\n", None),
        (b"", None),
    ],
)
def test_data_of_an_event(event: bytes, data: bytes | None):
    assert event_data(event) == data


def test_a_block_is_split_without_loss():
    assert split_events(b"") == []
    assert split_events(b"data: a\n\n:\n\nrest") == [b"data: a\n\n", b":\n\n", b"rest"]


@pytest.mark.parametrize(
    ("block", "count", "lines"),
    [
        (b"data: a\n\n", 1, b"a"),
        (b"data: a\n\ndata: b\n\n", 2, b"a\nb"),
        (b"event: x\ndata: a\n\nevent: y\ndata: b\n\n", 2, b"a\nb"),
        (b"data: a\ndata: b\n\n", 1, None),
        (b"data: a\n\n: comment\n\n", 2, None),
        (b"data: a\n\nid: 1\ndata: b\n\n", 2, None),
        (b"data:a\n\n", 1, None),
        (b"\ndata: a\n\n", 1, None),
        (b"event: x\n\n", 1, None),
    ],
)
def test_data_of_a_block_line_by_line(block: bytes, count: int, lines: bytes | None):
    assert data_lines(block, count) == lines
