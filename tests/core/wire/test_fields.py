import pytest

from gatewright.wire.fields import encode_fields, encode_headers, find_header, list_members


def test_fields_are_written_one_to_a_line():
    assert encode_fields(()) == b""
    assert encode_fields(((b"a", b"1"), (b"b", b""))) == b"a: 1\r\nb: \r\n"


@pytest.mark.parametrize(
    "header",
    [(b"a", b"1\r\nb: 2"), (b"a", b"1\n"), (b"a\r", b"1"), (b"a", b"\x00"), (b"connection", b"x")],
)
def test_a_field_stays_within_its_line(header: tuple[bytes, bytes]):
    with pytest.raises(ValueError, match=r"header|connection"):
        encode_fields((header,))


def test_text_becomes_bytes():
    assert encode_headers([("X-Gw-Model", "qwen é 漢")]) == ((b"x-gw-model", b"qwen \xe9 ?"),)


def test_the_first_of_several_is_found():
    headers = ((b"a", b"1"), (b"b", b"\xe9"), (b"a", b"2"))
    assert find_header(headers, b"a") == "1"
    assert find_header(headers, b"b") == "é"
    assert find_header(headers, b"c") is None


def test_members_of_a_list():
    assert list_members(b"Close, ,keep-alive ,\tX") == [b"close", b"keep-alive", b"x"]
