"""The least that anyio and h11 can do: relay requests to one upstream, with no gateway in it.

Usage: python benchmarks/bare_relay.py LISTEN_PORT UPSTREAM_PORT
"""

import contextlib
import sys

import anyio
import anyio.abc
import h11

READ_BYTES = 262_144


async def next_event(stream: anyio.abc.SocketStream, connection: h11.Connection) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive(READ_BYTES))
    return event


async def serve(client: anyio.abc.SocketStream, upstream_port: int) -> None:
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        await relay(client, upstream_port)


async def relay(client: anyio.abc.SocketStream, upstream_port: int) -> None:
    async with client, await anyio.connect_tcp("127.0.0.1", upstream_port) as upstream:
        server, caller = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
        while True:
            head = await next_event(client, server)
            if not isinstance(head, h11.Request):
                return
            body = b""
            while isinstance(data := await next_event(client, server), h11.Data):
                body += bytes(data.data)
            request = h11.Request(method=head.method, target=head.target, headers=head.headers)
            sent = [caller.send(request), caller.send(h11.Data(data=body)), caller.send(h11.EndOfMessage())]
            await upstream.send(b"".join(part or b"" for part in sent))
            response = await next_event(upstream, caller)
            assert isinstance(response, h11.Response)
            pending = (
                server.send(h11.Response(status_code=response.status_code, headers=response.headers)) or b""
            )
            while isinstance(data := await next_event(upstream, caller), h11.Data):
                await client.send(pending + (server.send(data) or b""))
                pending = b""
            await client.send(pending + (server.send(h11.EndOfMessage()) or b""))
            server.start_next_cycle()
            caller.start_next_cycle()


async def main() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=int(sys.argv[1]))
    await listener.serve(lambda client: serve(client, int(sys.argv[2])))


if __name__ == "__main__":
    anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
