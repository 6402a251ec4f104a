from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.multipart import find_field, find_span
from gatewright.errors import InvalidRequest

TYPE = "multipart/form-data; boundary=XyZ"
FORM = (
    b"--XyZ\r\n"
    b'Content-Disposition: form-data; name="file"; filename="model.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n"
    b'RIFF\r\n\r\nname="model"\r\n\xff\x00\r\n'
    b"--XyZ\r\n"
    b'content-disposition: form-data; name="model"\r\n\r\n'
    b"whisper-1\r\n"
    b"--XyZ\r\n"
    b'Content-Disposition: form-data; name="empty"\r\n\r\n'
    b"\r\n"
    b"--XyZ--\r\n"
)


def test_a_field_is_found_by_its_name():
    assert find_field(FORM, TYPE, "model") == "whisper-1"
    assert find_field(FORM, TYPE, "empty") is None
    assert find_field(FORM, TYPE, "other") is None
    span = find_span(FORM, TYPE, "file")
    assert span is not None
    assert FORM[slice(*span)] == b'RIFF\r\n\r\nname="model"\r\n\xff\x00'


@pytest.mark.parametrize(
    "content_type", ['Multipart/Form-Data; charset=x; boundary="XyZ"', "multipart/form-data;boundary=XyZ"]
)
def test_ways_to_write_the_boundary(content_type: str):
    assert find_field(FORM, content_type, "model") == "whisper-1"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (FORM, "multipart/form-data"),
        (FORM, "multipart/form-data; boundary=other"),
        (b"", TYPE),
        (FORM[:80], TYPE),
        (FORM[:150], TYPE),
        (FORM.replace(b"whisper-1", b"\xff"), TYPE),
        (FORM.replace(b"whisper-1", b"x" * 2000), TYPE),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, content_type: str):
    with pytest.raises(InvalidRequest):
        find_field(body, content_type, "model")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_nothing_else_is_raised_on_anything(data: bytes):
    for body in (data, b"--XyZ\r\n" + data, FORM[:60] + data, FORM + data):
        with suppress(InvalidRequest):
            find_field(body, TYPE, "model")
