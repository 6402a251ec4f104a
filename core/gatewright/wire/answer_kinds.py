"""Of which kind an answer is: by its status and headers, or by its first bytes where the headers do not tell."""

from enum import Enum
from http import HTTPStatus
from typing import Final

from gatewright.api.facts import FIRST_ERROR_STATUS, ApiFormat
from gatewright.wire.client import ResponseHead

_FIRST_REDIRECTION: Final = 300
_STREAM_STARTS: Final = (b":", b"data:", b"event:", b"id:", b"retry:")
_BLANK: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"


class AnswerKind(Enum):
    """How an answer is held back and read."""

    ERROR = "error"
    """A status of 400 or above."""
    STREAM = "stream"
    """Server-sent events."""
    DOCUMENT = "document"
    """One JSON document."""
    OPAQUE = "opaque"
    """Nothing that can be read here: sound, compressed content, no content."""
    WRONG = "wrong"
    """Text where an answer of a known format has to be, such as the page of a captive portal."""
    UNKNOWN = "unknown"
    """The first bytes tell."""


def kind_of(head: ResponseHead, format: ApiFormat) -> AnswerKind:  # noqa: A002 - the word that facts use
    """The kind of an answer with this head, to a request of this format."""
    if head.status >= FIRST_ERROR_STATUS:
        return AnswerKind.ERROR
    if head.status >= _FIRST_REDIRECTION or head.status == HTTPStatus.NO_CONTENT:
        return AnswerKind.OPAQUE
    encoding = head.get("content-encoding")
    if encoding is not None and encoding.strip().lower() not in {"", "identity"}:
        return AnswerKind.OPAQUE
    media_type = (head.get("content-type") or "").partition(";")[0].strip().lower()
    if not media_type:
        return AnswerKind.UNKNOWN
    if media_type == "text/event-stream":
        return AnswerKind.STREAM
    if media_type == "application/json" or media_type.endswith("+json"):
        return AnswerKind.DOCUMENT
    if media_type.startswith("text/") and format is not ApiFormat.OTHER:
        return AnswerKind.WRONG
    return AnswerKind.OPAQUE


def kind_of_bytes(first: bytes, *, is_all: bool) -> AnswerKind:
    """The kind of an answer whose headers tell no type.

    Args:
        first: The beginning of its body.
        is_all: Nothing follows.

    Returns:
        UNKNOWN as long as more bytes may tell more.
    """
    text = first.removeprefix(_BOM).lstrip(_BLANK)
    if text.startswith((b"{", b"[")):
        return AnswerKind.DOCUMENT
    if text.startswith(_STREAM_STARTS):
        return AnswerKind.STREAM
    if not is_all and (_BOM.startswith(first) or any(start.startswith(text) for start in _STREAM_STARTS)):
        return AnswerKind.UNKNOWN
    return AnswerKind.OPAQUE
