"""Requests as WSGI servers tell them, read as `gw-server` reads them off the wire."""

from contextlib import suppress
from ipaddress import ip_address
from socket import AF_UNIX, socket
from time import monotonic, time
from typing import Any, Final
from urllib.parse import quote

from attrs import evolve, frozen

from gatewright.accounting.keys import KeyBook
from gatewright.api.access import Access, check_access
from gatewright.config import ServerConfig, TcpListener
from gatewright.configuration.listen import is_loopback
from gatewright.errors import HostNotAllowed, Problem
from gatewright.wire.fields import Headers
from gatewright.wire.refusals import bad_request, from_absolute_form, too_large
from gatewright.wire.server import RequestHead
from gatewright_host.local_answers import LINGER_S, late_request

READ_BYTES: Final = 65_536

_LOCALHOST: Final = "localhost"
_PREFIX: Final = "HTTP_"
_UNPREFIXED: Final = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}
# What a path may hold without being percent-encoded (RFC 3986, 3.3), and the slash.
_PATH_CHARACTERS: Final = "/:@!$&'()*+,;=-._~"


def read_head(environ: dict[str, Any]) -> RequestHead | Problem:
    """Request line and headers. WSGI has put those of one name together, and tells the order of none."""
    headers = _headers(environ)
    target, headers = from_absolute_form(_target(environ), headers)
    version = environ.get("SERVER_PROTOCOL", "HTTP/1.0").partition("/")[2]
    if version == "1.1" and not any(name == b"host" for name, _ in headers):
        return bad_request("Malformed HTTP request: Missing mandatory Host")
    length = environ.get("CONTENT_LENGTH") or None
    if length is not None and not (length.isascii() and length.isdecimal()):
        return bad_request("Malformed HTTP request: bad Content-Length")
    return RequestHead(
        method=environ["REQUEST_METHOD"],
        target=target,
        headers=headers,
        http_version=version,
        expects_continue=False,  # the server has told the client to go on, or does with the first read
        content_length=None if length is None else int(length),
    )


def _headers(environ: dict[str, Any]) -> Headers:
    headers = []
    for key, value in environ.items():
        if key.startswith(_PREFIX):
            name = key.removeprefix(_PREFIX).replace("_", "-").lower().encode("latin-1")
        elif value and key in _UNPREFIXED:
            name = _UNPREFIXED[key]
        else:
            continue
        headers.append((name, value.encode("latin-1")))
    return tuple(headers)


def _target(environ: dict[str, Any]) -> str:
    """Path and query below the application's own prefix, percent-encoded as the client sent them where that is told."""
    prefix = quote(environ.get("SCRIPT_NAME", ""), safe=_PATH_CHARACTERS, encoding="latin-1")
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is not None and raw.isascii() and raw.startswith(prefix):
        return raw.removeprefix(prefix) or "/"
    path = quote(environ.get("PATH_INFO", ""), safe=_PATH_CHARACTERS, encoding="latin-1") or "/"
    query: str = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


class Doorkeeper:
    """Turns requests away by the rules for the address that was really listened on.

    Args:
        server: Keys, allowed hosts, and whether everyone may come in.
    """

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._rules: dict[str, _Rules] = {}

    def check(
        self, head: RequestHead, server_name: str, *, over_unix_socket: bool, keys: KeyBook | None = None
    ) -> Access:
        """Whether a request may come in.

        Args:
            head: The request.
            server_name: What the WSGI server calls the address that it listens on.
            over_unix_socket: It came in over a Unix socket, so that `Host` says nothing.
            keys: Keys of the store; None where there is no store.
        """
        rules = _Rules(self._server, is_local=True)
        if not over_unix_socket:
            if server_name not in self._rules:
                self._rules[server_name] = self._rules_for(server_name)
            rules = self._rules[server_name]
        if rules.problem is not None:
            return Access(problem=rules.problem)
        return check_access(
            head.method,
            head.target,
            head.headers,
            rules.server,
            keys=keys,
            now_s=time(),
            local_hosts=rules.hosts,
            over_unix_socket=over_unix_socket,
            is_local=rules.is_local,
        )

    def _rules_for(self, server_name: str) -> "_Rules":
        server, listener = self._server, _listener(server_name)
        if listener is None:
            return _Rules(server, is_local=server_name == _LOCALHOST)
        is_local = is_loopback(listener.host)
        problem = None
        if not (server.open or server.api_keys or is_local):
            problem = HostNotAllowed(
                f"The server listens on {listener.host}, which other machines can reach, and lets nobody in before it is "
                "told whom: set server.api_keys, or server.open = true to let everyone in"
            ).problem
        return _Rules(evolve(server, listen=(listener,)), is_local, frozenset((listener.host,)), problem)


@frozen
class _Rules:
    """What holds for one address that is listened on."""

    server: ServerConfig
    is_local: bool
    hosts: frozenset[str] = frozenset()
    problem: Problem | None = None


def is_unix_socket(sock: socket | None) -> bool:
    """Whether the client came in over a Unix socket, so that `Host` says nothing."""
    return sock is not None and sock.family == AF_UNIX


def _listener(server_name: str) -> TcpListener | None:
    """The address that the server listens on, as far as it tells more than a name."""
    try:
        host = str(ip_address(server_name.strip("[]")))
    except ValueError:
        return None
    return TcpListener(host=host, port=0)


def read_body(
    environ: dict[str, Any], head: RequestHead, server: ServerConfig, sock: socket | None
) -> bytes | Problem:
    """The whole body, or why there is none.

    Args:
        environ: Of the request.
        head: From `read_head`.
        server: Limits.
        sock: The client's socket, if there is access to it; without it the server alone decides how long it waits.
    """
    if head.content_length is not None and head.content_length > server.max_body_bytes:
        _discard(environ["wsgi.input"], head.content_length, sock)
        return too_large(server.max_body_bytes)
    terminated = environ.get("wsgi.input_terminated", False)
    if head.content_length is None and not terminated:
        if head.get("transfer-encoding") is not None:
            return bad_request("This server takes no body without Content-Length", 411)
        return b""
    timeout_s = None if sock is None else sock.gettimeout()
    try:
        if sock is not None:
            sock.settimeout(server.body_timeout_s)
        body = _read(environ["wsgi.input"], head.content_length, server.max_body_bytes)
    except TimeoutError:
        return late_request("body", server.body_timeout_s)
    except Exception as error:  # noqa: BLE001  # each server has its own for a client that sends nonsense
        return bad_request(f"Malformed HTTP request: {type(error).__name__}")
    finally:
        if sock is not None:
            sock.settimeout(timeout_s)
    if isinstance(body, Problem):
        _discard(environ["wsgi.input"], server.max_body_bytes, sock)
    return body


def _discard(source: Any, length: int, sock: socket | None) -> None:
    """Take what the client sends, for a while: closing with unread input could cost it the answer."""
    timeout_s = None if sock is None else sock.gettimeout()
    end = monotonic() + LINGER_S
    with suppress(Exception):  # a client that sends no more, or nonsense, gets its answer all the same
        if sock is not None:
            sock.settimeout(LINGER_S)
        while length > 0 and monotonic() < end and (data := source.read(min(READ_BYTES, length))):
            length -= len(data)
    if sock is not None:
        sock.settimeout(timeout_s)


def _read(source: Any, length: int | None, max_bytes: int) -> bytes | Problem:
    chunks = []
    size = 0
    while length is None or size < length:
        data = source.read(READ_BYTES if length is None else min(READ_BYTES, length - size))
        if not data:
            break
        size += len(data)
        if size > max_bytes:
            return too_large(max_bytes)
        chunks.append(data)
    if length is not None and size < length:
        return bad_request("Malformed HTTP request: the body ends too early")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
