"""Answers every request with the same chat completion, as fast as Python can: an upstream where nginx is not installed.

Usage: python benchmarks/quick_upstream.py PORT
"""

import asyncio
import sys
from typing import cast

import uvloop
from overhead import REPLY

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(REPLY),
    REPLY.encode(),
)


class Upstream(asyncio.Protocol):
    """One connection; a request is taken as whole when its last byte, a brace, is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not derived from it
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer once the whole request is there."""
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if at >= 0 and len(body) >= int(head[at + 15 :].split(b"\r\n")[0]):
            self._received = b""
            self._transport.write(ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
