"""Free ports for engines, and their place in what is configured."""

import socket
from typing import Final
from urllib.parse import urlsplit

from attrs import evolve, frozen

from gatewright.engines.spec import EngineSpec, ProcessSpec

PLACEHOLDER: Final = "${PORT}"
_LOOPBACK: Final = "127.0.0.1"
_TRIES: Final = 20


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
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            _LOOPBACK if host == "localhost" else host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, UnicodeError):
        # Not an address of this machine (a container's, say): a port that is free here is the best guess.
        with socket.socket() as probe:
            probe.bind((_LOOPBACK, 0))
            return int(probe.getsockname()[1])
