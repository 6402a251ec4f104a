"""Answers taken apart byte by byte, as strictly as the strictest client would: RFC 9112."""

import re
from typing import Final

from gatewright_cli.verification.client import Answer
from gatewright_cli.verification.outcome import Failed, expect, shown

_STATUS_LINE: Final = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?")
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")
_FIRST_FINAL: Final = 200
_BODILESS: Final = frozenset((204, 304))
_SINGLE: Final = ("content-length", "transfer-encoding", "content-type", "date", "location", "retry-after")


def read_answers(data: bytes, *methods: str) -> list[Answer]:
    """The answers to requests of these methods, in their order; fewer if the connection was closed before.

    Raises:
        Failed: What came is not HTTP/1.1 as it should be written.
    """
    answers: list[Answer] = []
    rest = data
    for method in methods:
        if not rest:
            break
        answer, rest = _read_answer(rest, method)
        answers.append(answer)
    expect(not rest, "nothing behind the last answer", rest)
    return answers


def read_answer(data: bytes, method: str) -> Answer:
    """The one answer to a request of this method.

    Raises:
        Failed: There is none, or more than one, or it is not well-formed.
    """
    if not data:
        raise Failed("an answer", "a closed connection")
    return read_answers(data, method)[0]


def _read_answer(data: bytes, method: str) -> tuple[Answer, bytes]:
    while True:
        status, headers, rest = _read_head(data)
        if status >= _FIRST_FINAL:
            break
        data = rest  # 100 Continue
    head = Answer(status, headers, b"")
    _check_framing(head)
    length = head.get("content-length")
    if method == "HEAD" or status in _BODILESS:
        body = b""
    elif head.get("transfer-encoding") is not None:
        body, rest = _unchunk(rest)
    elif length is not None:
        if len(rest) < int(length):
            raise Failed(f"{length} bytes of body, as content-length says", f"{len(rest)}")
        body, rest = rest[: int(length)], rest[int(length) :]
    else:
        body, rest = rest, b""
    return Answer(status, headers, body), rest


def _read_head(data: bytes) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    expect(end, "the head of an answer", data)
    status_line, *lines = head.decode("latin-1").split("\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise Failed("a status line", shown(status_line))
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Failed("a header field", shown(line))
        fields.append((field[1].lower(), field[2]))
    return int(match[1]), tuple(fields), rest


def _check_framing(head: Answer) -> None:
    """No field twice that can be there only once, and one way of telling where the body ends."""
    for name in _SINGLE:
        expect(len(head.values(name)) <= 1, f"one {name}", head.values(name))
    length, coding = head.get("content-length"), head.get("transfer-encoding")
    expect(length is None or coding is None, "content-length or transfer-encoding", "both")
    expect(length is None or length.isdecimal(), "a number as content-length", length)
    expect(coding is None or coding.lower() == "chunked", "transfer-encoding chunked", coding)


def _unchunk(data: bytes) -> tuple[bytes, bytes]:
    pieces = []
    while True:
        match = _CHUNK_SIZE.match(data)
        if match is None:
            raise Failed("the size of a chunk", shown(data) if data else "the end of the connection")
        size, data = int(match[1], 16), data[match.end() :]
        if not size:
            break
        expect(data[size : size + 2] == b"\r\n", f"a line end behind a chunk of {size} bytes", data[size:])
        pieces.append(data[:size])
        data = data[size + 2 :]
    trailer, end, rest = (b"\r\n" + data).partition(b"\r\n\r\n")
    expect(end, "the end of the chunked body", trailer)
    return b"".join(pieces), rest
