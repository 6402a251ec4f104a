"""Where a transport cannot do what the others do. Everything else has to be the same.

A test that is named here has to fail on that transport: what begins to work has to be struck off. Nothing belongs here
but what WSGI, or the WSGI server, leaves no room for.
"""

from collections.abc import Mapping

_HEADS = (
    "gunicorn refuses what it cannot parse itself, with a page of HTML; the application never hears of it"
)
_SERVER = "gunicorn puts its own Server header into every answer"
_ONE_EACH = "a sync worker serves one connection at a time: two workers never let a third request in to wait"
_CLOSES = "a sync worker closes each connection after its first answer"

DIFFERENCES: Mapping[tuple[str, str], str] = {
    ("gunicorn-gthread", "test_a_head_that_nobody_can_serve_is_refused_in_openais_words"): _HEADS,
    ("gunicorn-gthread", "test_a_server_does_not_say_what_it_runs_on"): _SERVER,
    ("gunicorn-sync", "test_a_head_that_nobody_can_serve_is_refused_in_openais_words"): _HEADS,
    ("gunicorn-sync", "test_a_server_does_not_say_what_it_runs_on"): _SERVER,
    ("gunicorn-sync", "test_requests_wait_for_a_slot_and_are_served_in_order"): _ONE_EACH,
    ("gunicorn-sync", "test_a_full_queue_refuses_at_once"): _ONE_EACH,
    ("gunicorn-sync", "test_one_connection_serves_several_requests"): _CLOSES,
    ("gunicorn-sync", "test_pipelined_requests_are_answered_in_order"): _CLOSES,
}
"""Transport and test (or check of `gw-cli verify`), and why it cannot be."""
