"""Who may come in: by the name that they call us, by the page that sent them, by their key."""

import hmac
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from gatewright.config import ServerConfig, TcpListener
from gatewright.errors import HostNotAllowed, Problem, Unauthorized
from gatewright.wire.fields import Headers

_OPEN_PATHS: Final = frozenset(("/health", "/v1/health"))
_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))
_ANY: Final = "*"
_SHOWN_CHARACTERS: Final = 100


def check_access(
    method: str,
    target: str,
    headers: Headers,
    server: ServerConfig,
    *,
    local_hosts: frozenset[str] = frozenset(),
    over_unix_socket: bool = False,
) -> Problem | None:
    """Why a request is turned away, or None if it is not.

    Args:
        method: Of the request.
        target: Of the request, query included.
        headers: Of the request, names in lower case.
        server: Keys and allowed hosts.
        local_hosts: Names and addresses of this machine that are as good as the listen addresses, in lower case.
        over_unix_socket: No browser reaches a Unix socket: any `Host` will do.
    """
    if not over_unix_socket and _ANY not in server.allowed_hosts:
        host = _first(headers, b"host")
        if host is not None and not _is_allowed_host(host_name(host), server, local_hosts):
            return HostNotAllowed(
                f"This server does not answer for the host {host[:_SHOWN_CHARACTERS]!r}; "
                "name it in server.allowed_hosts if it should"
            ).problem
        # Without keys, anyone's page could have its visitors use this server: a browser then tells whose page it is.
        origin = _first(headers, b"origin")
        if origin is not None and not server.api_keys:
            site = origin.rpartition("://")[2]
            if not _is_allowed_host(host_name(site), server, local_hosts):
                return HostNotAllowed(
                    f"This server does not serve pages of {origin[:_SHOWN_CHARACTERS]!r}; "
                    "name their host in server.allowed_hosts if it should"
                ).problem
    if not server.api_keys or (method in {"GET", "HEAD"} and target.partition("?")[0] in _OPEN_PATHS):
        return None
    return _check_key(headers, server.api_keys)


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


def _check_key(headers: Headers, keys: tuple[str, ...]) -> Problem | None:
    presented = []
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                presented.append(token.strip())
        elif name in {b"x-api-key", b"api-key"}:
            presented.append(value)
    if not presented:
        return Unauthorized(
            "An API key is needed: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
        ).problem
    known = False
    for key in keys:
        expected = key.encode("utf-8", "surrogateescape")
        for token in presented:
            known |= hmac.compare_digest(token, expected)
    return None if known else Unauthorized("The API key is not valid").problem


def _first(headers: Headers, name: bytes) -> str | None:
    for found, value in headers:
        if found == name:
            return value.decode("latin-1")
    return None
