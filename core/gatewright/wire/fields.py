"""Header fields: the shape in which they are held, and how they are written.

h11 checks what is read. What is written passes through `encode_fields`, which lets no field break out of its line.
"""

from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[bytes, bytes], ...]
"""Name in lower case and value, in the order in which they came."""

FRAMING_FIELDS: Final = frozenset((b"connection", b"content-length", b"transfer-encoding", b"keep-alive"))
"""Written by the connections themselves and by nobody else."""


def encode_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Header fields given as text, as bytes; what ISO 8859-1 cannot say becomes a question mark."""
    return tuple(
        [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
    )


def encode_fields(headers: Headers) -> bytes:
    r"""The lines of a head, each with its `\r\n`.

    Raises:
        ValueError: A field would not stay within its line, or belongs to the connection (`FRAMING_FIELDS`).
    """
    for name, _ in headers:
        if name in FRAMING_FIELDS:
            raise ValueError(f"the connection writes {name.decode()} itself")
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        raise ValueError("header field with a line break or a NUL in it")
    return lines


def find_header(headers: Headers, name: bytes) -> str | None:
    """First value of a header given by its name in lower case, as text; None where it is absent."""
    for found, value in headers:
        if found == name:
            return value.decode("latin-1")
    return None


def list_members(value: bytes) -> list[bytes]:
    """The members of a comma-separated value such as `Connection`, in lower case."""
    return [member for part in value.lower().split(b",") if (member := part.strip())]
