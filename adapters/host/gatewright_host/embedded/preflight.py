"""What would fail is found before anything is loaded, and said in one line.

xllamacpp reports every failure as "Failed to init server"; the reason is only in its log.
"""

import errno
import os
import socket
import stat
from collections.abc import Sequence

_MAGIC = b"GGUF"  # first bytes of every GGUF file: github.com/ggml-org/ggml/blob/master/docs/gguf.md


class Unusable(Exception):
    """Something the engine needs cannot be used; the text is for the user."""


def check_gguf(path: str, role: str) -> None:
    """Make sure a file exists, can be read and looks like GGUF.

    Args:
        path: The file.
        role: What it is to the user, such as "model".

    Raises:
        Unusable: It is not.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- importing pathlib costs a fifth of the start-up
            begin = file.read(len(_MAGIC))
    except OSError as error:
        raise Unusable(f"cannot read the {role} {path}: {error.strerror}") from None
    if begin != _MAGIC:
        raise Unusable(f"the {role} {path} is no GGUF file")


def check_listen(hosts: Sequence[str], port: int) -> None:
    """Make sure that every address can be bound, and clear away the socket file of an engine that has died.

    Between this look and llama.cpp's own bind somebody else may take the port; the start then fails without a reason.

    Args:
        hosts: Host names, addresses, or paths of sockets that end in ``.sock``.
        port: The TCP port; 0 for any.

    Raises:
        Unusable: An address is taken, or none of this machine's.
    """
    for host in hosts:
        if host.endswith(".sock"):
            _check_socket_path(host)
        else:
            _check_port(host, port)


def _check_port(host: str, port: int) -> None:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Unusable(f"cannot listen on {where}: {error.strerror}") from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        # As llama.cpp's listener: connections of a predecessor that linger in TIME_WAIT do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise Unusable(f"cannot listen on {where}: {_reason(error)}") from None


def _check_socket_path(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 -- see check_gguf
            raise Unusable(f"cannot listen on {path}: it exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108 -- see check_gguf
            return
    raise Unusable(f"cannot listen on {path}: {_reason(OSError(errno.EADDRINUSE, ''))}")


def _reason(error: OSError) -> str:
    return "the address is in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
