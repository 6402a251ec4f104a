import pytest

from gatewright.config import (
    TcpListener,
    UnixListener,
)
from tests.support.configs import (
    only_problem,
    problems,
    read,
)


@pytest.mark.parametrize(
    ("field", "value", "host", "port"),
    [
        ("listen_v4", "127.0.0.1:8080", "127.0.0.1", 8080),
        ("listen_v4", "127.0.0.1", "127.0.0.1", 8080),
        ("listen_v4", "9000", "127.0.0.1", 9000),
        ("listen_v4", 9000, "127.0.0.1", 9000),
        ("listen_v4", 9000.0, "127.0.0.1", 9000),
        ("listen_v4", "localhost:9000", "127.0.0.1", 9000),
        ("listen_v4", "127.8.9.10:0", "127.8.9.10", 0),
        ("listen_v6", "[::1]:8080", "::1", 8080),
        ("listen_v6", "[::1]", "::1", 8080),
        ("listen_v6", "::1", "::1", 8080),
        ("listen_v6", "9000", "::1", 9000),
        ("listen_v6", "localhost", "::1", 8080),
        ("listen_v6", "[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1),
    ],
)
def test_loopback_addresses(field, value, host, port):
    (listener,) = read(**{field: value}).server.listen
    assert isinstance(listener, TcpListener)
    assert listener.host in (host, "::ffff:7f00:1")  # Python 3.13 prints mapped addresses as IPv4
    assert listener.port == port


@pytest.mark.parametrize(
    ("field", "value", "host"),
    [
        ("listen_v4", "0.0.0.0:80", "0.0.0.0"),
        ("listen_v4", "*:80", "0.0.0.0"),
        ("listen_v4", "192.168.1.5:80", "192.168.1.5"),
        ("listen_v6", "[::]:80", "::"),
        ("listen_v6", "*:80", "::"),
        ("listen_v6", "[fe80::1%eth0]:80", "fe80::1%eth0"),
        ("listen_v6", "[::ffff:192.168.1.5]:80", "::ffff:192.168.1.5"),
    ],
)
def test_addresses_beyond_loopback_need_a_decision(field, value, host):
    (problem,) = problems(**{field: value})
    assert problem.startswith(f"server.{field}: ")
    assert "server.api_keys" in problem
    assert "server.open = true" in problem
    for decision in ({"api_keys": ["k"]}, {"open": True}):
        (listener,) = read(**{field: value}, **decision).server.listen
        assert isinstance(listener, TcpListener)
        assert listener.host in (host, "::ffff:c0a8:105")
        assert listener.port == 80
    assert problems(**{field: value}, api_keys=[], open=False) == [problem]


def test_unreadable_keys_do_not_bring_a_second_problem():
    assert len(problems(listen_v4="0.0.0.0", api_keys=[7])) == 1


@pytest.mark.parametrize(
    ("field", "value", "rest"),
    [
        (
            "listen_v4",
            ":80",
            '":80" names no address; write 127.0.0.1 for this machine only, 0.0.0.0 for all',
        ),
        ("listen_v6", ":80", '":80" names no address; write ::1 for this machine only, :: for all'),
        ("listen_v4", "[::1]:80", '"[::1]:80" is an IPv6 address and belongs into listen_v6'),
        ("listen_v6", "127.0.0.1:80", '"127.0.0.1:80" is an IPv4 address and belongs into listen_v4'),
        ("listen_v4", "127.0.0.1:65536", "expected a port from 0 to 65535"),
        ("listen_v4", "127.0.0.1:0000080", "expected a port from 0 to 65535"),
        ("listen_v4", "127.0.0.1:", "expected a port from 0 to 65535"),
        ("listen_v4", "127.0.0.1:٣", "expected a port from 0 to 65535"),
        ("listen_v4", "gateway.lan:80", "(host names are not looked up)"),
        ("listen_v4", "127.0.0.1.5", "(host names are not looked up)"),
        ("listen_v6", "::1:8080", 'expected an IPv6 address and port such as "[::1]:8080", or "none"'),
        ("listen_v6", "[::1]8080", 'expected an IPv6 address and port such as "[::1]:8080", or "none"'),
        ("listen_v6", "[::1", 'expected an IPv6 address and port such as "[::1]:8080", or "none"'),
        ("listen_v4", "", 'expected an IPv4 address and port such as "127.0.0.1:8080", or "none"'),
        ("listen_v4", True, 'expected an IPv4 address and port such as "127.0.0.1:8080", or "none"'),
        ("listen_v4", {"host": "x"}, 'expected an IPv4 address and port such as "127.0.0.1:8080", or "none"'),
        ("listen_unix", 5, "expected a non-empty string"),
    ],
)
def test_addresses_that_are_not_allowed(field, value, rest):
    assert rest in only_problem(**{field: value})


def test_listen_lists_name_their_item():
    assert problems(listen_v4=["127.0.0.1:1", None, "127.0.0.1:1"], listen_unix=["/a", 5]) == [
        "server.listen_v4[2]: nil in the middle of a list; is a variable's name misspelt?",
        "server.listen_v4[3]: the same as server.listen_v4[1]",
        "server.listen_unix[2]: got 5, expected a non-empty string",
    ]


def test_one_listen_field_turns_the_default_off():
    assert read(listen_unix="/run/gw.sock").server.listen == (UnixListener(path="/run/gw.sock"),)
    assert read(listen_v6="::1").server.listen == (TcpListener(host="::1", port=8080),)
    assert read(listen_v4=["127.0.0.1:1"], listen_v6="::1", listen_unix=["/a", "/b"]).server.listen == (
        TcpListener(host="127.0.0.1", port=1),
        TcpListener(host="::1", port=8080),
        UnixListener(path="/a"),
        UnixListener(path="/b"),
    )


def test_no_listener_at_all_is_for_the_server_to_refuse():
    assert read(listen_v4="none", listen_v6="none").server.listen == ()
    assert read(listen_v4={}, listen_unix="NONE").server.listen == ()
