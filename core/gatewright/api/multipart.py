"""Fields of `multipart/form-data` (RFC 7578), as audio endpoints take them: found in the bytes, nothing is decoded.

The standard library's parser would copy and decode the sound for the sake of one word, and needs a clock.
"""

import re
from typing import Final

from gatewright.errors import InvalidRequest

_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^;\s"]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(rb'(?i)content-disposition:\s*form-data\s*;(?:[^\r\n]*;)?\s*name="([^"\r\n]*)"')
_MAX_PART_HEAD_BYTES: Final = 4096
_MAX_VALUE_BYTES: Final = 1024


def find_field(body: bytes, content_type: str, name: str) -> str | None:
    """The value of a short text field; None where the form has none of that name.

    Raises:
        InvalidRequest: The body is not such a form.
    """
    span = find_span(body, content_type, name)
    if span is None:
        return None
    start, end = span
    if end - start > _MAX_VALUE_BYTES:
        raise InvalidRequest(f"The form field '{name}' is too long", param=name)
    try:
        return body[start:end].decode() or None
    except UnicodeDecodeError:
        raise InvalidRequest(f"The form field '{name}' is not valid UTF-8", param=name) from None


def find_span(body: bytes, content_type: str, name: str) -> tuple[int, int] | None:
    """Where the value of a field begins and ends; None where the form has none of that name.

    Raises:
        InvalidRequest: The body is not such a form.
    """
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise InvalidRequest("The Content-Type 'multipart/form-data' lacks its boundary")
    delimiter = b"--" + (match[1] or match[2]).encode("latin-1", "replace")
    if not body.startswith(delimiter):
        raise InvalidRequest("The request body is no form: it does not begin with its boundary")
    wanted = name.encode()
    delimiter = b"\r\n" + delimiter
    head = len(delimiter) - 2
    while True:
        if body.startswith(b"--", head):
            return None  # behind the last part
        start = body.find(b"\r\n\r\n", head, head + _MAX_PART_HEAD_BYTES)
        if start < 0:
            raise InvalidRequest("The request body is no form: a part has no head")
        start += 4
        # The blank line may itself be the line end before the next boundary: an empty value.
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise InvalidRequest("The request body is no form: a part has no end")
        found = _NAME.search(body, head, start)
        if found is not None and found[1] == wanted:
            return start, max(start, end)
        head = end + len(delimiter)
