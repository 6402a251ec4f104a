"""HTTP/1.1 on h11 and server-sent events: bytes in, facts out."""
