from typing import Any

import pytest

from gatewright.wire.json_text import is_json, is_object, read_object


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b' {"a":1}\n', {"a": 1}),
        (b'{"a":-Infinity}', {"a": float("-inf")}),
        (rb'{"a":"\ud83d"}', {"a": "\ud83d"}),
    ],
)
def test_objects(document: bytes, value: dict[str, Any]):
    assert is_json(document)
    assert is_object(document)
    assert read_object(document) == value


@pytest.mark.parametrize("document", [b"[]", b"1", b'"x"', b"null", b"true", b" [{}]"])
def test_other_values(document: bytes):
    assert is_json(document)
    assert not is_object(document)
    assert read_object(document) is None


@pytest.mark.parametrize(
    "document", [b"", b"{", b"x", b"{} {}", b'{"a":\xff}', b"[" * 100_000, b'{"a":' * 100_000]
)
def test_what_is_no_json(document: bytes):
    assert not is_json(document)
    assert not is_object(document)
    assert read_object(document) is None
