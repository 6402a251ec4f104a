"""Who may come in: by the name that they call us, by the page that sent them, by their key; and who may manage."""

import hmac
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import frozen

from gatewright.accounting.keys import KeyBook
from gatewright.accounting.spending import KeyFacts
from gatewright.api.endpoints import METRICS_PATH, needs_admin
from gatewright.config import ServerConfig, TcpListener
from gatewright.configuration.listen import is_loopback
from gatewright.errors import HostNotAllowed, KeysUnknown, NotAllowed, Problem, Unauthorized
from gatewright.wire.fields import Headers

_OPEN_PATHS: Final = frozenset(("/health", "/v1/health"))
_READING: Final = frozenset(("GET", "HEAD"))
_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))
_ANY: Final = "*"
_SHOWN_CHARACTERS: Final = 100
_UNREAD: Final = KeysUnknown(
    "The API keys could not be read from the store yet; try again in a moment. Should it stay so, the gateway's log says "
    "what is wrong with the store (`store.url` in its configuration)",
    retry_after_s=1.0,
).problem


@frozen(kw_only=True)
class Access:
    """Whether a request may come in, and with whose rights.

    Attributes:
        problem: Why it is turned away; None if it is not.
        key: Its key; None where none is needed, which gives all rights.
    """

    problem: Problem | None = None
    key: KeyFacts | None = None


def check_access(
    method: str,
    target: str,
    headers: Headers,
    server: ServerConfig,
    *,
    keys: KeyBook | None = None,
    now_s: float = 0.0,
    local_hosts: frozenset[str] = frozenset(),
    over_unix_socket: bool = False,
    is_local: bool | None = None,
) -> Access:
    """Whether a request may come in.

    A key of the configuration has all rights, one of the store those that it was given. Where neither has any, everyone
    may come in; who may then change what the store holds, `_check_rights` says.

    Args:
        method: Of the request.
        target: Of the request, query included.
        headers: Of the request, names in lower case.
        server: Keys and allowed hosts.
        keys: Keys of the store; None where there is no store.
        now_s: Unix time, for keys that expire.
        local_hosts: Names and addresses of this machine that are as good as the listen addresses, in lower case.
        over_unix_socket: No browser reaches a Unix socket: any `Host` will do.
        is_local: Whether nobody but this machine's users reaches the server; None: that is for `server.listen` to tell.
    """
    is_open = not server.api_keys and (keys is None or (keys.is_read and not keys))
    if not over_unix_socket and _ANY not in server.allowed_hosts:
        problem = _check_names(headers, server, local_hosts, is_open=is_open)
        if problem is not None:
            return Access(problem=problem)
    if is_open:
        if is_local is None:
            is_local = over_unix_socket or all(
                not isinstance(each, TcpListener) or is_loopback(each.host) for each in server.listen
            )
        return Access(problem=_check_rights(method, target, None, is_local=is_local))
    if method in _READING and target.partition("?")[0] in _OPEN_PATHS:
        return Access()
    found = _find_key(headers, server.api_keys, KeyBook() if keys is None else keys, now_s)
    if isinstance(found, Problem):
        return Access(problem=found)
    problem = _check_rights(method, target, found, is_local=False)
    return Access(problem=problem, key=found)


def _check_names(
    headers: Headers, server: ServerConfig, local_hosts: frozenset[str], *, is_open: bool
) -> Problem | None:
    host = _first(headers, b"host")
    if host is not None and not _is_allowed_host(host_name(host), server, local_hosts):
        return HostNotAllowed(
            f"This server does not answer for the host {host[:_SHOWN_CHARACTERS]!r}; "
            "name it in server.allowed_hosts if it should"
        ).problem
    # Without keys, anyone's page could have its visitors use this server: a browser then tells whose page it is.
    origin = _first(headers, b"origin")
    if origin is not None and is_open:
        site = origin.rpartition("://")[2]
        if not _is_allowed_host(host_name(site), server, local_hosts):
            return HostNotAllowed(
                f"This server does not serve pages of {origin[:_SHOWN_CHARACTERS]!r}; "
                "name their host in server.allowed_hosts if it should"
            ).problem
    return None


def _check_rights(method: str, target: str, key: KeyFacts | None, *, is_local: bool) -> Problem | None:
    """Whether whoever may come in may do this.

    Without any keys everyone has all rights on the machine itself. Where others can reach the server (`open = true`),
    they may look, but not change models, experiments and keys: the first stranger would lock the rest out.
    """
    if not needs_admin(target):
        return None
    if key is None:
        if is_local or method in _READING:
            return None
        return NotAllowed(
            "This server can be reached from other machines and has no keys, so that nobody may change anything over "
            "HTTP: set server.api_keys, or use gw-cli on the machine itself"
        ).problem
    if key.is_admin:
        return None
    what = "figures" if target.startswith(METRICS_PATH) else "management"
    return NotAllowed(
        f"For the {what} of this server a key with is_admin is needed, and {key.name!r} is none"
    ).problem


def host_name(host: str) -> str:
    """The name in a `Host` header: in lower case, without port, without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    if host.count(":") > 1:
        return host.lower()
    name, colon, port = host.partition(":")
    if colon and port and not port.isdecimal():
        return host.lower()  # nobody's name
    return name.removesuffix(".").lower()


def _is_allowed_host(name: str, server: ServerConfig, local_hosts: frozenset[str]) -> bool:
    if name in _LOOPBACK or name.endswith(".localhost") or name in local_hosts:
        return True
    if any(host_name(allowed) == name for allowed in server.allowed_hosts):
        return True
    address = _address(name)
    if address is None:
        return False
    if address.is_loopback:
        return True
    if address.is_unspecified:
        return False
    found = [_address(each.host) for each in server.listen if isinstance(each, TcpListener)]
    listening = [each for each in found if each is not None]
    # Who listens on all addresses of a kind has each of them for a listen address; a page that has its name point
    # here (DNS rebinding) still sends the name, never an address.
    return address in listening or any(
        each.is_unspecified and each.version == address.version for each in listening
    )


@lru_cache(maxsize=256)
def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _find_key(
    headers: Headers, configured: tuple[str, ...], keys: KeyBook, now_s: float
) -> KeyFacts | Problem:
    """The rights of the first good key among those that are presented, or why there is none."""
    presented = _presented(headers)
    if not presented:
        if not keys.is_read and not configured:
            return _UNREAD  # nobody can tell whether a key is needed
        return Unauthorized(
            "An API key is needed: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
        ).problem
    known = None
    for number, key in enumerate(configured, 1):
        expected = key.encode("utf-8", "surrogateescape")
        for token in presented:
            if hmac.compare_digest(token, expected):
                known = number
    if known is not None:
        return KeyFacts(key_id=f"config:{known}", name="config", is_admin=True)
    problem = None
    for token in presented:
        found = keys.find(token.decode("utf-8", "surrogateescape"), now_s)
        if isinstance(found, KeyFacts):
            return found
        problem = problem or found
    assert problem is not None  # at least one was presented
    return problem if keys.is_read else _UNREAD


def _presented(headers: Headers) -> list[bytes]:
    presented = []
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                presented.append(token.strip())
        elif name in {b"x-api-key", b"api-key"}:
            presented.append(value)
    return presented


def _first(headers: Headers, name: bytes) -> str | None:
    for found, value in headers:
        if found == name:
            return value.decode("latin-1")
    return None
