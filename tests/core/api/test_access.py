from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.accounting.keys import KeyBook, KeyRequest, StoredKey
from gatewright.accounting.spending import KeyFacts
from gatewright.api.access import Access, check_access, host_name
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
    keys: KeyBook | None = None,
) -> Problem | None:
    return check_access(
        method,
        target,
        headers,
        server,
        keys=keys,
        local_hosts=local_hosts,
        over_unix_socket=over_unix_socket,
    ).problem


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


# --- keys of the store


def stored(secret: str, **wishes: Any) -> StoredKey:
    return StoredKey.make(f"key_{secret}", secret, KeyRequest(name=f"name of {secret}", **wishes), 0.0)


BOOK = KeyBook([stored("user", models=frozenset(("qwen",))), stored("boss", is_admin=True)])
UNREAD = KeyBook(is_read=False)
EVERYWHERE = ServerConfig(listen=(TcpListener(host="0.0.0.0", port=80),), open=True)
MANAGING = [
    ("GET", "/api/keys"),
    ("GET", "/api/models"),
    ("GET", "/api/models/qwen"),
    ("GET", "/api/requests/req_1"),
    ("GET", "/api/usage?by=model"),
    ("GET", "/api/budgets/"),
    ("GET", "/metrics"),
    ("GET", "/metrics?x=1"),
    ("POST", "/api/keys"),
    ("DELETE", "/api/models/qwen"),
    ("POST", "/api/experiments/e"),
]
OTHERS = [
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("POST", "/api/complexity"),
    ("POST", "/api/feedback"),
    ("GET", "/api/key"),
    ("GET", "/metrics?model=qwen"),
    ("GET", "/props?model=qwen"),
]


def enter(
    token: str | None,
    method: str = "POST",
    target: str = "/v1/chat/completions",
    *,
    server: ServerConfig = PLAIN,
    keys: KeyBook | None = BOOK,
    now_s: float = 0.0,
    **others: Any,
) -> Access:
    headers = () if token is None else ((b"authorization", f"Bearer {token}".encode()),)
    return check_access(method, target, headers, server, keys=keys, now_s=now_s, **others)


def test_a_stored_key_brings_its_rights():
    access = enter("user")
    assert access.problem is None
    assert access.key is not None
    assert (access.key.key_id, access.key.models, access.key.is_admin) == (
        "key_user",
        frozenset(("qwen",)),
        False,
    )


def test_a_configured_key_has_all_rights_whether_there_is_a_store_or_not():
    for keys in (None, BOOK, UNREAD, KeyBook()):
        access = enter("clé-deux", "POST", "/api/keys", server=KEYED, keys=keys)
        assert access == Access(key=KeyFacts(key_id="config:2", name="config", is_admin=True))


def test_one_stored_key_closes_the_door_for_those_without():
    for token, message in ((None, "needed"), ("wrong", "not valid")):
        problem = enter(token).problem
        assert problem is not None
        assert (problem.status, problem.code) == (401, "invalid_api_key")
        assert message in problem.message
    assert enter(None, "GET", "/health").problem is None


def test_without_any_keys_everyone_has_all_rights_on_the_machine():
    for keys in (None, KeyBook()):
        for method, target in (*MANAGING, *OTHERS):
            assert enter(None, method, target, keys=keys) == Access()
            assert enter("whatever", method, target, keys=keys) == Access()


def test_an_expired_key_no_longer_helps():
    book = KeyBook([stored("old", expires_s=10.0)])
    assert enter("old", keys=book, now_s=9.0).problem is None
    problem = enter("old", keys=book, now_s=10.0).problem
    assert problem is not None
    assert "expired" in problem.message


@pytest.mark.parametrize(("method", "target"), MANAGING)
def test_management_and_figures_are_for_admins(method: str, target: str):
    assert enter("boss", method, target).problem is None
    problem = enter("user", method, target).problem
    assert problem is not None
    assert (problem.status, problem.code) == (403, "not_allowed")
    assert "'name of user'" in problem.message


@pytest.mark.parametrize(("method", "target"), OTHERS)
def test_everything_else_is_for_every_key(method: str, target: str):
    assert enter("user", method, target).problem is None


@pytest.mark.parametrize(("method", "target"), MANAGING)
def test_who_can_be_reached_from_elsewhere_and_has_no_keys_changes_nothing_over_http(
    method: str, target: str
):
    access = enter(None, method, target, server=EVERYWHERE, keys=KeyBook())
    assert (access.problem is None) == (method == "GET")
    if access.problem is not None:
        assert (access.problem.status, access.problem.code) == (403, "not_allowed")
        assert enter(None, method, target, server=EVERYWHERE, keys=None, over_unix_socket=True) == Access()
        assert enter(None, method, target, server=EVERYWHERE, keys=None, is_local=True) == Access()
        assert enter(None, method, target, keys=None, is_local=False).problem is not None
        assert enter("boss", method, target, server=EVERYWHERE).problem is None


def test_everybody_may_ask_models_where_the_operator_has_opened_the_server():
    for method, target in OTHERS:
        assert enter(None, method, target, server=EVERYWHERE, keys=KeyBook()) == Access()


def test_while_nobody_knows_who_has_a_key_nobody_unknown_comes_in():
    for token in (None, "user"):
        problem = enter(token, keys=UNREAD).problem
        assert problem is not None
        assert (problem.status, problem.code, problem.retry_after_s) == (503, "keys_unknown", 1.0)
    assert enter(None, "GET", "/health", keys=UNREAD).problem is None
    missing = enter(None, keys=UNREAD, server=KEYED).problem
    assert missing is not None
    assert missing.status == 401  # that a key is needed is known
    other = enter("user", keys=UNREAD, server=KEYED).problem
    assert other is not None
    assert other.status == 503


def test_stored_keys_let_pages_of_other_sites_in_as_configured_ones_do():
    origin = (b"origin", b"https://elsewhere.example")
    assert check(host("localhost"), origin, (b"x-api-key", b"user"), keys=BOOK) is None
    assert check(host("localhost"), origin, keys=KeyBook()) is not None


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
    check((b"authorization", b"Bearer " + key), (b"x-api-key", name), keys=BOOK)
