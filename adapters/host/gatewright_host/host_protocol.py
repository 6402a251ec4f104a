"""What passes over an engine host's socket: lines of JSON, each an object with one member.

A client begins with `{"hello": {"protocol": 2, "watch": false}}` and is answered by `{"welcome": {...}}`. Then it
sends lease messages and `SpecsReplaced` as `gatewright.codec` writes them, whose answers come in the same way,
and asks (`{"ask": {"id": 1, "op": "status"}}`), which are answered by `{"reply": {"id": 1, "result": ...}}` or
`{"reply": {"id": 1, "error": "..."}}`. A connection that said `watch` holds no leases and keeps no host from ending.
On what it does not understand the host answers `{"error": "..."}` and closes.
"""

from typing import Any, Final, Literal

import msgspec

PROTOCOL: Final = 2
"""To be raised with every change of the messages that an older side would misread."""

LONGEST_LINE_BYTES: Final = 8 * 1024 * 1024
"""A few thousand engine specifications: a reload's."""

HELLO: Final = "hello"
WELCOME: Final = "welcome"
ASK: Final = "ask"
REPLY: Final = "reply"
ERROR: Final = "error"


class ProtocolError(Exception):
    """What came over the socket makes no sense."""


class HostLost(Exception):  # what happened, as in `gatewright.errors`
    """The engine host is not there, or not any more; the message is one line for people."""


class HostRefused(Exception):  # as above
    """The engine host is there and wants nothing to do with us, or with what was asked."""


class Hello(msgspec.Struct, omit_defaults=True):
    """A client's first words.

    Attributes:
        protocol: Its `PROTOCOL`.
        watch: It will hold no leases.
    """

    protocol: int
    watch: bool = False


class Welcome(msgspec.Struct):
    """The host's first words.

    Attributes:
        protocol: Its `PROTOCOL`.
        pid: Its process.
    """

    protocol: int
    pid: int


class Ask(msgspec.Struct, omit_defaults=True):
    """A question or an order of an operator.

    Attributes:
        id: Echoed by the reply.
        op: What is asked.
        model: Of "stop": engines of this model; None for all.
        force: Of "stop" and "shutdown": at once.
    """

    id: int
    op: Literal["status", "stop", "paths", "shutdown"]
    model: str | None = None
    force: bool = False


class Reply(msgspec.Struct, omit_defaults=True):
    """The answer to an `Ask`: either of the two.

    Attributes:
        id: Of the question.
        result: JSON of what was asked for.
        error: Why not, one line.
    """

    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


class Paths(msgspec.Struct):
    """Files of a host, for people.

    Attributes:
        engines_log: What engines print.
        host_log: What a detached host logs.
    """

    engines_log: str
    host_log: str


def write_line(tag: str, content: object) -> bytes:
    """One line with its end."""
    return msgspec.json.encode({tag: content}) + b"\n"


def read_tag(line: bytes) -> tuple[str, msgspec.Raw]:
    """The one member of a line's object.

    Raises:
        ProtocolError: It has none, or more, or is no JSON.
    """
    try:
        members = _read_members(line)
    except msgspec.DecodeError as error:
        raise ProtocolError(str(error)) from error
    if len(members) != 1:
        raise ProtocolError("expected an object with one member")
    ((tag, content),) = members.items()
    return tag, content


_read_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_content(content: msgspec.Raw, kind: Any) -> Any:
    """What a member holds.

    Raises:
        ProtocolError: It is of another shape.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ProtocolError(str(error)) from error


class LineBuffer:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends.

        Raises:
            ProtocolError: A line is longer than `LONGEST_LINE_BYTES`.
        """
        if not self._rest and data.endswith(b"\n") and data.count(b"\n") == 1:
            return [data[:-1]]  # one whole line, as nearly always
        searched = len(self._rest)
        self._rest += data
        if self._rest.find(b"\n", searched) < 0:
            lines = []
        else:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        if max(len(self._rest), *map(len, lines), 0) > LONGEST_LINE_BYTES:
            raise ProtocolError(f"a line of more than {LONGEST_LINE_BYTES} bytes")
        return lines
