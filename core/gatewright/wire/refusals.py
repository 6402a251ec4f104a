"""What HTTP requests are refused for, on top of what h11 refuses, and how that is told."""

from http import HTTPStatus

import h11
from attrs import evolve

from gatewright.errors import BodyTooLarge, InvalidRequest, Problem
from gatewright.wire.fields import Headers


def framing_problem(version: bytes, fields: dict[bytes, bytes]) -> Problem | None:
    """What h11 tolerates, but leaves two readers of the same bytes with different ideas of where a request ends."""
    if version not in {b"1.1", b"1.0"}:
        return bad_request("Only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    if b"transfer-encoding" in fields:
        if b"content-length" in fields:
            return bad_request("Both Transfer-Encoding and Content-Length")
        if version == b"1.0":
            return bad_request("Transfer-Encoding in HTTP/1.0")
    return None


def from_absolute_form(target: str, headers: Headers) -> tuple[str, Headers]:
    """`http://host/path` means `/path` at `host`, whatever Host says (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        return target, headers  # the authority of a CONNECT, or nonsense: no endpoint has that name
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    others = tuple([header for header in headers if header[0] != b"host"])
    return path if path.startswith("/") else f"/{path}", ((b"host", authority.encode("ascii")), *others)


def bad_request(message: str, status: int = 400) -> Problem:
    """A request that HTTP itself does not permit."""
    return evolve(InvalidRequest(message).problem, status=status)


def too_large(max_body_bytes: int) -> Problem:
    """A body beyond the limit."""
    return BodyTooLarge(f"The request body is larger than {max_body_bytes} bytes").problem


def protocol_problem(error: h11.RemoteProtocolError) -> Problem:
    """What h11 objects to."""
    # Up to the colon: h11 quotes the offending line after it, which may hold a key.
    reason = str(error).partition(":")[0]
    if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        reason = "Request line and headers are too large"
    return bad_request(f"Malformed HTTP request: {reason}", error.error_status_hint)
