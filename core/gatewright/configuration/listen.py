"""Where the server listens: `listen_v4`, `listen_v6` and `listen_unix`, and who may then reach it."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import frozen

from gatewright.config import DEFAULT_PORT, Listener, ServerConfig, TcpListener, UnixListener
from gatewright.configuration.reader import TEXT, Place, Table, as_list, show, whole_number

LISTEN_FIELDS: Final = ("listen_v4", "listen_v6", "listen_unix")

_NONE: Final = "none"
_LARGEST_PORT: Final = 65_535
_MAPPED_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
_EVERYWHERE: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104  # what "*" means; the user wrote it
_EXAMPLES: Final = {4: '"127.0.0.1:8080"', 6: '"[::1]:8080"'}
# The end of "::1:8080" reads as a port and is part of the address.
_PORT_LIKE_GROUP: Final = re.compile(r":\d{4,5}$")


@frozen
class _Address:
    """A kind of field: `host:port` of one IP version."""

    version: int

    @property
    def expected(self) -> str:
        """What is allowed."""
        return f'an IPv{self.version} address and port such as {_EXAMPLES[self.version]}, or "{_NONE}"'

    def read(self, value: object, place: Place) -> TcpListener | None:
        """The listener; a bare port means loopback, a bare address the default port."""
        number = whole_number(value)
        text = str(number) if number is not None else value
        parts = _split(text, self.version) if isinstance(text, str) and text else None
        if parts is None:
            place.refuse(value, self.expected)
            return None
        host, port = parts
        if not host and text != port:
            here, anywhere = _MAPPED_LOOPBACK[self.version], _EVERYWHERE[self.version]
            place.report(
                f'":{port}" names no address; write {here} for this machine only, {anywhere} for all'
            )
            return None
        return self._listener(host, port, value, place)

    def _listener(self, host: str, port: str, value: object, place: Place) -> TcpListener | None:
        address = _numeric(host, self.version)
        if address is None:
            place.refuse(value, self.expected + " (host names are not looked up)")
        elif address.version != self.version:
            place.report(
                f"{show(value)} is an IPv{address.version} address and belongs into listen_v{address.version}"
            )
        elif not _is_port(port):
            place.refuse(value, f"a port from 0 to {_LARGEST_PORT} (0: the system chooses)")
        else:
            return TcpListener(host=str(address), port=int(port))
        return None


def _split(text: str, version: int) -> tuple[str, str] | None:
    """Host and port as written; the host is empty for a bare port."""
    default = str(DEFAULT_PORT)
    if text.isascii() and text.isdecimal():
        return "", text
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        return host, rest[1:] if rest else default
    if text.count(":") > 1:
        return None if version == 6 and _PORT_LIKE_GROUP.search(text) else (text, default)  # noqa: PLR2004  # IPv6
    host, colon, port = text.partition(":")
    return host, port if colon else default


def _is_port(text: str) -> bool:
    return (
        text.isascii()
        and text.isdecimal()
        and len(text) <= len(str(_LARGEST_PORT))
        and int(text) <= _LARGEST_PORT
    )


def _numeric(host: str, version: int) -> IPv4Address | IPv6Address | None:
    """The address that the host stands for; names other than localhost are not resolved."""
    if not host or host.lower() == "localhost":
        return ip_address(_MAPPED_LOOPBACK[version])
    try:
        return ip_address(_EVERYWHERE[version] if host == "*" else host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the numeric address or name; unknown names count as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def read_listeners(server: Table) -> tuple[Listener, ...]:
    """The addresses and sockets to listen on; the default only if none of the three fields is there.

    No listener at all, every field being "none", is allowed: `gw-cli` and the engine host need none. Whoever
    serves has to refuse it.
    """
    if not any(name in server for name in LISTEN_FIELDS):
        return ServerConfig().listen
    found: dict[Listener, Place] = {}
    for name in LISTEN_FIELDS:
        place = server.place.field(name)
        for listener, where in _read_field(server.values.get(name), name, place):
            if listener in found:
                where.report(f"the same as {found[listener].path}")
            found.setdefault(listener, where)
    _check_exposure(server, found)
    return tuple(found)


def _read_field(value: object, name: str, place: Place) -> list[tuple[Listener, Place]]:
    """The listeners of one field, each with its place."""
    if value is None or (isinstance(value, str) and value.lower() == _NONE):
        return []
    items = as_list(value)
    places = [place] if items is None else [place.item(number) for number in range(1, len(items) + 1)]
    read: list[tuple[Listener, Place]] = []
    for item, where in zip([value] if items is None else items, places, strict=True):
        listener: Listener | None
        if item is None:
            where.report_hole()
            continue
        if name == "listen_unix":
            path = TEXT.read(item, where)
            listener = None if path is None else UnixListener(path=path)
        else:
            listener = _Address(4 if name == "listen_v4" else 6).read(item, where)
        if listener is not None:
            read.append((listener, where))
    return read


def _check_exposure(server: Table, found: dict[Listener, Place]) -> None:
    """Beyond loopback, somebody has to decide who may come in."""
    if server.values.get("open") is True or _has_keys(server):
        return
    for listener, place in found.items():
        if isinstance(listener, TcpListener) and not is_loopback(listener.host):
            place.report(
                f"{listener.host} can be reached from other machines, and whoever reaches it may use the models; "
                'set server.api_keys = { "a-long-random-key" }, or server.open = true to let everyone in'
            )


def _has_keys(server: Table) -> bool:
    """Whether there are keys; unreadable ones have a problem of their own already."""
    keys = server.values.get("api_keys")
    return keys is not None and as_list(keys) != []
