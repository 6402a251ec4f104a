"""The anyio and h11 server."""
