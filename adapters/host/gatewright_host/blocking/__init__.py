"""The blocking driver: the Gateway on ordinary threads, for whoever has no event loop (WSGI workers, `gw-cli`).

Reads in parallel with `gatewright_asyncio`: the same files and classes, the same commands carried out in the same
order, one method for each. `Driver` holds the lock, `HostLink` the way to the engine host, `Exchange` one request.
"""
