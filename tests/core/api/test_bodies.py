import pytest

from gatewright.api.bodies import read_body
from gatewright.errors import InvalidRequest


def test_fields_that_are_read():
    body = read_body(b'{"model":"a","stream":true,"unknown":[1],"tools":[{"a": 1}]}')
    assert body.model == "a"
    assert body.stream is True
    assert body.messages is None
    assert bytes(body.tools) == b'[{"a": 1}]'
    assert bytes(body.functions) == b""


def test_of_two_fields_of_one_name_the_last_counts_as_it_does_for_the_engine():
    assert read_body(b'{"model":"a","model":"b"}').model == "b"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The request body is not valid JSON: Input data was truncated"),
        (b"{", "The request body is not valid JSON: Input data was truncated"),
        (b'{"a":x}', "The request body is not valid JSON: JSON is malformed: invalid character (byte 5)"),
        (b"[]", "The request body must be a JSON object: Expected `object`, got `array`"),
        (b'"x"', "The request body must be a JSON object: Expected `object`, got `str`"),
        (b'{"prompt":"\xff"}', "The request body is not valid UTF-8 (byte 11)"),
        (b'{"prompt":' + b"[" * 100_000, "The request body is nested too deeply"),
    ],
)
def test_errors_say_what_and_where(body: bytes, message: str):
    with pytest.raises(InvalidRequest) as caught:
        read_body(body)
    assert str(caught.value) == message
    assert caught.value.problem.status == 400
