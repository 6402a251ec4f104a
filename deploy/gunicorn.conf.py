"""Gatewright behind gunicorn: `gunicorn --config gunicorn.conf.py`.

What is given on gunicorn's command line or in $GUNICORN_CMD_ARGS goes over what stands here. Gatewright's own
configuration is the file named by $GATEWRIGHT_CONFIG; of its `server` part gunicorn takes over the addresses, the
connections and the end: `listen_*`, `max_connections`, `max_head_bytes`, `head_timeout`, `keep_alive_timeout` and
`shutdown_timeout` mean nothing here.
"""

wsgi_app = "gatewright_wsgi:create_app()"

# Beyond this machine only with `server.api_keys`, or with `server.open = true` where a proxy looks after that: Gatewright
# refuses to serve there otherwise. Several addresses: a list; a Unix socket: "unix:/run/gatewright/http.sock".
bind = "127.0.0.1:8080"

# A request occupies a thread from its first byte until the last of its answer, and while it waits for an engine: all
# workers' threads together are how many clients can be served and kept waiting at a time. Further ones wait in the
# kernel's queue, where they get no news of their wait. The work is done by the engines: two workers are enough to use
# a second core and to have one left if the other ends, and all of them share the engines and the memory.
worker_class = "gthread"
workers = 2
threads = 64

# A "sync" worker takes one client at a time and says nothing to gunicorn meanwhile: it is killed in the middle of any
# answer that takes longer than this. A "gthread" worker goes on reporting while its threads work, so that only one that
# really hangs is killed, whatever the answers take. Gunicorn's 30 s are for pages, not for language models; one that
# thinks for an hour needs more than this, or 0 for no limit.
timeout = 3600

# What running requests get when gunicorn stops or reloads, or a worker is recycled; then they are cut. The service
# manager has to be more patient than this (TimeoutStopSec).
graceful_timeout = 30

# Idle connections are kept for this long. With gunicorn's 2 s, clients that keep connections (the official ones do)
# often find theirs closed just when they use it again.
keepalive = 75

# A worker ends after so many requests and another takes its place: whatever leaks, leaks for a while only. The engines
# stay warm meanwhile, since they belong to no worker. The jitter keeps the workers from ending together.
max_requests = 10_000
max_requests_jitter = 1_000

# Loading the application before the workers are started (it is made for that) saves each of them some memory and time.
# Then SIGHUP changes neither the program nor its configuration, so it is off here.
preload_app = False

# Whose X-Forwarded-Proto is believed. Gatewright itself asks neither for the client's address nor for the scheme.
forwarded_allow_ips = "127.0.0.1"

# Gatewright writes one line for each request that goes to an engine; gunicorn's access log ("-" for stdout) has all.
accesslog = None
errorlog = "-"

# gunicorn 25.1 and later open a control socket in the home directory, which a service's user may not have.
control_socket_disable = True


def on_starting(server):  # noqa: ANN001, ANN201, ARG001  # gunicorn's
    """Look at the configuration once, before workers are started that would all fail over it."""
    from gatewright_wsgi import check_config  # noqa: PLC0415  # not needed to read this file

    check_config()


def post_worker_init(worker):  # noqa: ANN001, ANN201, ARG001  # gunicorn's
    """Have a worker that is told to end wait for its clients' requests, and for no estimator that is a model."""
    from gatewright_wsgi import give_up_questions_on_sigterm  # noqa: PLC0415  # the master needs it never

    give_up_questions_on_sigterm()
