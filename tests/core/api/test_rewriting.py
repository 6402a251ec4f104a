import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.rewriting import replace_model


def test_only_the_model_changes():
    body = b'{"model": "mine", "messages": [ {"content" : "h\\u00e9"} ], "temperature": 0.10, "big": 12345678901234567890}'
    assert replace_model(body, "org/theirs") == (
        b'{"model":"org/theirs","messages":[ {"content" : "h\\u00e9"} ],"temperature":0.10,"big":12345678901234567890}'
    )


def test_a_missing_model_is_added_and_a_double_one_becomes_one():
    assert replace_model(b"{}", "a") == b'{"model":"a"}'
    assert replace_model(b'{"model":"x","model":"y"}', 'a"') == b'{"model":"a\\""}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a":"\xff'])
def test_what_is_no_object_stays_as_it_is(body: bytes):
    assert replace_model(body, "a") == body


def test_a_model_in_a_form():
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nmine\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    assert replace_model(form, "theirs", kind) == form.replace(b"mine", b"theirs")
    other = form.replace(b"model", b"other")
    assert replace_model(other, "theirs", kind) == other


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.recursive(st.integers(-5, 5) | st.text(), st.lists, max_leaves=5))
)
def test_the_rest_keeps_its_meaning(body: dict[str, object]):
    changed = msgspec.json.decode(replace_model(msgspec.json.encode(body), "new"))
    assert changed == body | {"model": "new"}
