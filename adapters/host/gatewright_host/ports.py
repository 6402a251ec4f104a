"""Free ports for engines, and their place in what is configured."""

import contextlib
import errno
import secrets
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import evolve, frozen

from gatewright.engines.spec import EngineSpec, ProcessSpec

PLACEHOLDER: Final = "${PORT}"
_LOOPBACK: Final = "127.0.0.1"
_TRIES: Final = 20
_CHOSEN_FROM: Final = range(20_000, 30_000)
"""Below what systems give to outgoing connections by default, and below the node ports of Kubernetes."""
_OUTGOING_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@frozen
class FilledSpec:
    """An engine ready to be run.

    Attributes:
        process: Program, arguments and environment without placeholders.
        base_url: Where it will listen.
        port: Port that was chosen; None where the configuration fixes it.
    """

    process: ProcessSpec
    base_url: str
    port: int | None


class Ports:
    """Chooses ports that the system calls free and that no living engine was given."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def choose(self, host: str) -> int:
        """A port to listen on at this host, ours until `give_back`.

        Somebody else may still take it before the engine does; then the engine fails to start and says so.

        Raises:
            OSError: There is none.
        """
        for _ in range(_TRIES):
            port = _free_port(host)
            if port not in self._given:
                self._given.add(port)
                return port
        raise OSError(f"no free port on {host}")

    def give_back(self, port: int | None) -> None:
        """The engine that had it is gone."""
        self._given.discard(port or 0)

    def fill(self, spec: EngineSpec) -> FilledSpec:
        """The specification with a port for `${PORT}`, if it stands anywhere in it.

        Raises:
            OSError: There is no free port.
        """
        process = spec.process
        assert process is not None, spec
        texts = (spec.connect, *process.args, *(value for _, value in process.env))
        if not any(PLACEHOLDER in text for text in texts):
            return FilledSpec(process, spec.connect, None)
        # With the placeholder in it the URL's port is no number, but its host can be read all the same.
        port = self.choose(urlsplit(spec.connect).hostname or _LOOPBACK)

        def fill(text: str) -> str:
            return text.replace(PLACEHOLDER, str(port))

        filled = evolve(
            process,
            args=tuple(fill(arg) for arg in process.args),
            env=tuple((name, fill(value)) for name, value in process.env),
        )
        return FilledSpec(filled, fill(spec.connect), port)


def _free_port(host: str) -> int:
    """A port that can be listened on now, and that no outgoing connection will take before the engine listens."""
    outgoing = _outgoing_ports()
    for _ in range(_TRIES):
        port = secrets.choice(_CHOSEN_FROM)
        if port not in outgoing:
            with contextlib.suppress(OSError):
                return _bind(host, port)
    return _bind(host, 0)  # the system's choice, which may be any connection's in the next moment


def _bind(host: str, port: int) -> int:
    """The port, if it is free, or a free one for 0.

    Where the host is no address of this machine (a container's, say), a port that is free here is the best guess.

    Raises:
        OSError: It is not free, or no port is.
    """
    family, address = _address(host, port)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or host == _LOOPBACK:
                raise
            return _bind(_LOOPBACK, port)
        return int(probe.getsockname()[1])


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    if host != "localhost":
        with contextlib.suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            return found[0][0], found[0][4]
    return socket.AF_INET, (_LOOPBACK, port)


def _outgoing_ports() -> range:
    """Ports that the system gives to connections (ip(7)); nothing where it does not say: elsewhere they begin at 32768."""
    try:
        first, last = _OUTGOING_FILE.read_text("ascii").split()
        return range(int(first), int(last) + 1)
    except (OSError, ValueError):
        return range(0)
