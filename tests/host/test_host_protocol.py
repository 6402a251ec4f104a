import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright_host import host_protocol
from gatewright_host.host_protocol import (
    ASK,
    Ask,
    Hello,
    LineBuffer,
    ProtocolError,
    Reply,
    read_content,
    read_tag,
    write_line,
)


@given(st.lists(st.binary(max_size=20)))
def test_lines_do_not_depend_on_how_bytes_arrive(parts: list[bytes]) -> None:
    *expected, _ = b"".join(parts).split(b"\n")
    lines = LineBuffer()
    assert [line for part in parts for line in lines.feed(part)] == expected


def test_a_line_has_a_longest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_protocol, "LONGEST_LINE_BYTES", 100)
    lines = LineBuffer()
    assert lines.feed(b"x" * 90) == []
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        lines.feed(b"x" * 90)
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        LineBuffer().feed(b"x\n" + b"x" * 101 + b"\nx")


def test_asks_are_short() -> None:
    line = write_line(ASK, Ask(3, "status"))
    assert line == b'{"ask":{"id":3,"op":"status"}}\n'
    tag, content = read_tag(line)
    assert (tag, read_content(content, Ask)) == (ASK, Ask(3, "status"))


def test_replies_carry_any_json() -> None:
    line = write_line("reply", Reply(3, result=msgspec.Raw(b'{"x":[1]}')))
    assert line == b'{"reply":{"id":3,"result":{"x":[1]}}}\n'
    assert read_content(read_tag(line)[1], Reply).error is None


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"a":1,"b":2}', b"\xff", b"3"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_tag(line)


@pytest.mark.parametrize("content", [b"1", b"{}", b'{"protocol":"1"}'])
def test_what_does_not_fit_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_content(msgspec.Raw(content), Hello)
