import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.api.access import check_access, host_name
from gatewright.config import ServerConfig, TcpListener, UnixListener
from gatewright.errors import Problem

PLAIN = ServerConfig()
KEYED = ServerConfig(api_keys=("key-one", "clé-deux"))


def check(
    *headers: tuple[bytes, bytes],
    server: ServerConfig = PLAIN,
    method: str = "POST",
    target: str = "/v1/chat/completions",
    local_hosts: frozenset[str] = frozenset(),
    over_unix_socket: bool = False,
) -> Problem | None:
    return check_access(
        method, target, headers, server, local_hosts=local_hosts, over_unix_socket=over_unix_socket
    )


def host(name: str) -> tuple[bytes, bytes]:
    return (b"host", name.encode("latin-1"))


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "LocalHost:8080",
        "localhost.",
        "app.localhost:1",
        "127.0.0.1",
        "127.9.8.7:80",
        "[::1]:8080",
        "[::1]",
    ],
)
def test_loopback_is_always_welcome(name: str):
    assert check(host(name)) is None


@pytest.mark.parametrize(
    "name",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "192.168.1.5", "[::2]:80", "0.0.0.0", "", "a@127.0.0.1",
     "localhost:80@evil.example", "127.0.0.1.evil.example", "2130706433", "[", "localhost:x"],
)  # fmt: skip
def test_other_names_are_not(name: str):
    problem = check(host(name))
    assert problem is not None
    assert (problem.kind, problem.status) == ("HostNotAllowed", 403)


def test_names_and_addresses_of_ours():
    listening = ServerConfig(
        listen=(
            TcpListener(host="192.168.1.5", port=80),
            TcpListener(host="::", port=80),
            UnixListener(path="/x"),
        ),
        allowed_hosts=("Gateway.Example", "box:9000"),
        api_keys=("k",),
    )
    key = (b"x-api-key", b"k")
    for name in ("192.168.1.5:80", "gateway.example", "GATEWAY.example:1", "box"):
        assert check(host(name), key, server=listening) is None
    assert check(host("[fd00::7]:80"), key, server=listening) is None  # it listens on every IPv6 address
    for name in ("192.168.1.6", "[::]"):
        assert check(host(name), key, server=listening) is not None
    assert check(host("here:80"), key, server=listening, local_hosts=frozenset(("here",))) is None


def test_every_name_where_that_is_wished_and_over_a_unix_socket():
    anyone = ServerConfig(allowed_hosts=("*",))
    assert check(host("evil.example"), (b"origin", b"http://evil.example"), server=anyone) is None
    assert check(host("evil.example"), (b"origin", b"http://evil.example"), over_unix_socket=True) is None
    assert check(host("x"), server=KEYED, over_unix_socket=True) is not None  # a key is needed all the same


def test_no_host_at_all_is_no_browser():
    assert check() is None


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        (b"http://localhost:3000", True),
        (b"http://127.0.0.1:8080", True),
        (b"https://evil.example", False),
        (b"null", False),
        (b"", False),
    ],
)
def test_pages_of_other_sites_are_not_served_without_keys(origin: bytes, welcome: bool):
    assert (check(host("localhost"), (b"origin", origin)) is None) is welcome
    assert check(host("localhost"), (b"origin", origin), (b"x-api-key", b"key-one"), server=KEYED) is None


# --- keys


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer key-one"),
        (b"authorization", b"bearer  key-one"),
        (b"x-api-key", b"key-one"),
        (b"api-key", b"key-one"),
        (b"authorization", b"Bearer " + "clé-deux".encode()),
    ],
)
def test_ways_to_present_a_key(header: tuple[bytes, bytes]):
    assert check(host("localhost"), header, server=KEYED) is None


def test_one_good_key_of_several_will_do():
    assert check((b"authorization", b"Bearer wrong"), (b"x-api-key", b"key-one"), server=KEYED) is None


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer secret-wrong"),
        (b"authorization", b"Basic a2V5LW9uZQ=="),
        (b"authorization", b"key-one"),
        (b"x-api-key", b""),
        (b"x-api-key", b"KEY-ONE"),
        (b"x-api-key", b"\xff\xfe secret"),
        (b"cookie", b"key-one"),
    ],
)
def test_wrong_keys_are_not_repeated(header: tuple[bytes, bytes]):
    problem = check(host("localhost"), header, server=KEYED)
    assert problem is not None
    assert (problem.kind, problem.status) == ("Unauthorized", 401)
    assert "secret" not in problem.message


def test_health_needs_no_key():
    for method, target in (("GET", "/health"), ("HEAD", "/v1/health"), ("GET", "/health?x")):
        assert check(server=KEYED, method=method, target=target) is None
    for method, target in (("POST", "/health"), ("GET", "/v1/models"), ("GET", "/health/x")):
        assert check(server=KEYED, method=method, target=target) is not None
    assert check(host("evil.example"), server=KEYED, method="GET", target="/health") is not None


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("Host:80", "host"),
        ("host.", "host"),
        ("[::1]:80", "::1"),
        ("::1", "::1"),
        ("host:", "host"),
        ("", ""),
    ],
)
def test_the_name_in_a_host(value: str, name: str):
    assert host_name(value) == name


@settings(deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=30))
def test_nothing_raises_on_any_header(name: bytes, origin: bytes, key: bytes):
    check((b"host", name), (b"origin", origin), (b"authorization", key), (b"api-key", key), server=KEYED)
    check((b"host", name), (b"origin", origin))
