"""Where the gateway is: what the URL on the command line means."""

from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

_PORTS: Final = {"http": 80, "https": 443}
_SOCKET_PREFIX: Final = "unix:"
_API_PREFIX: Final = "/v1"


@frozen(kw_only=True)
class Target:
    """A gateway's address.

    Attributes:
        url: As it was given.
        host: Name or address to connect to; what the `Host` header says of a socket is `localhost`.
        port: TCP port; 0 for a Unix socket.
        tls: Whether it speaks TLS.
        socket_path: Its Unix socket, if it is reached by one.
        root: Path in front of `/v1`, without a slash at its end.
    """

    url: str
    host: str = "localhost"
    port: int = 0
    tls: bool = False
    socket_path: str | None = None
    root: str = ""

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Read `http://host:port`, `https://…`, either with a path or `/v1` behind it, or `unix:/path/to.sock`.

        Raises:
            ValueError: It is none of these; the message says what is wrong.
        """
        if url.startswith(_SOCKET_PREFIX):
            path = url.removeprefix(_SOCKET_PREFIX)
            if path.startswith("//"):
                path = "/" + path.lstrip("/")
            if not path.startswith("/"):
                raise ValueError(f"{url}: name the socket by its whole path, as in unix:/path/to.sock")
            return cls(url=url, socket_path=path)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url}: {error}") from None
        if parts.scheme not in _PORTS:
            raise ValueError(f"{url}: a URL begins with http://, https:// or unix:/")
        if not parts.hostname:
            raise ValueError(f"{url}: there is no host in it")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials do not belong into a URL; use --api-key")
        if parts.query or parts.fragment:
            raise ValueError(f"{url}: a URL without query and fragment is needed")
        return cls(
            url=url,
            host=parts.hostname,
            port=_PORTS[parts.scheme] if port is None else port,
            tls=parts.scheme == "https",
            root=parts.path.rstrip("/").removesuffix(_API_PREFIX),
        )

    @property
    def host_header(self) -> str:
        """Value of the `Host` header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        is_usual = self.socket_path is not None or self.port == _PORTS["https" if self.tls else "http"]
        return name if is_usual else f"{name}:{self.port}"
