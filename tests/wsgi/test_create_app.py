"""Making the application: its configuration, what is wrong with one, and servers other than gunicorn."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import flask
import pytest
import werkzeug.serving
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from gatewright.config import Config, ServerConfig
from gatewright.errors import ConfigError
from gatewright_host.host_client import BlockingHostClient
from gatewright_host.host_protocol import HostLost
from gatewright_host.state_dir import StateDir, StateDirError
from gatewright_wsgi import create_app
from gatewright_wsgi.app import Application
from gatewright_wsgi.process import make_service
from tests.support.configs import read, remote_model
from tests.support.gateway import wait_until
from tests.support.gunicorn import APP, GUNICORN
from tests.support.upstream import CHUNK, LAST, STREAM_HEAD, Upstream, chunked, reply

CONF = Path(__file__).parents[2] / "deploy/gunicorn.conf.py"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'


def serve(connection: socket.socket, head: bytes, body: bytes) -> None:
    if json.loads(body).get("stream"):
        connection.sendall(STREAM_HEAD + chunked(CHUNK) + chunked(LAST) + b"0\r\n\r\n")
    else:
        connection.sendall(reply(ANSWER))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a state directory, whose engine host ends with the test."""
    directory = Path(tempfile.mkdtemp(prefix="gwt-"))
    monkeypatch.chdir(directory)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("GATEWRIGHT_STATE_DIR", str(directory / "state"))
    monkeypatch.delenv("GATEWRIGHT_CONFIG", raising=False)
    yield directory
    state = StateDir.at(directory / "state")
    with suppress(HostLost), BlockingHostClient.connect(state, start=False, watch=True) as client:
        client.shutdown(force=True)
        wait_until(lambda: not is_reachable(state), "the engine host ends")
    shutil.rmtree(directory)


def is_reachable(state: StateDir) -> bool:
    try:
        BlockingHostClient.connect(state, start=False, watch=True).close()
    except HostLost:
        return False
    return True


@contextmanager
def application(config: Config | Path | str | None = None) -> Iterator[Application]:
    app = create_app(config)
    assert isinstance(app, Application)
    try:
        yield app
    finally:
        app.close()


def write_config(path: Path, upstream: Upstream, server: str = "") -> Path:
    path.write_text(f"server = {{ {server} }}\nmodels = {{ {upstream.lua('m')} }}\n")
    return path


def models(app: flask.Flask) -> list[str]:
    answer = app.test_client().get("/v1/models")
    assert answer.status_code == 200
    return [model["id"] for model in answer.get_json()["data"]]


@pytest.mark.parametrize("given", [Path, str])
def test_a_configuration_by_its_path(place: Path, given: Callable[[Path], Any]) -> None:
    with Upstream(serve) as upstream, application(given(write_config(place / "c.lua", upstream))) as app:
        assert isinstance(app, flask.Flask)
        answer = app.test_client().post("/v1/chat/completions", json=ASK)
        assert (answer.status_code, answer.data) == (200, ANSWER)
        streamed = app.test_client().post("/v1/chat/completions", json={**ASK, "stream": True})
        assert streamed.data == CHUNK + LAST


def test_a_configuration_that_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Upstream(serve) as upstream:
        write_config(place / "gatewright.lua", upstream)
        with application() as app:
            assert models(app) == ["m"]
        other = place / "other.lua"
        other.write_text(f"server = {{}}\nmodels = {{ {upstream.lua('other')} }}")
        monkeypatch.setenv("GATEWRIGHT_CONFIG", "other.lua")
        with application() as app:
            assert models(app) == ["other"]


def test_a_configuration_that_is_ready(place: Path) -> None:
    with application(Config(server=ServerConfig(), models=())) as app:
        assert models(app) == []
        assert app.test_client().get("/nowhere").get_json()["error"]["code"] == "not_found"


def test_no_configuration(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
    with pytest.raises(ConfigError, match="GATEWRIGHT_CONFIG"):
        create_app()


def test_a_state_directory_that_cannot_be_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").touch()
    monkeypatch.setenv("GATEWRIGHT_STATE_DIR", str(place / "file"))
    with pytest.raises(StateDirError):
        create_app(Config(server=ServerConfig(), models=()))


@pytest.mark.parametrize("args", [(), ("--preload",), ("--workers", "3", "--config", str(CONF))])
def test_gunicorn_ends_over_a_bad_configuration(place: Path, args: tuple[str, ...]) -> None:
    (place / "gatewright.lua").write_text(
        'server = { max_body_bytes = "many" }\nmodels = { { name = "m", engine = "what" } }'
    )
    command = [GUNICORN, "--bind", "127.0.0.1:0", "--no-control-socket", *args, APP]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "gatewright: gatewright.lua: server.max_body_bytes" in done.stderr
    assert "gatewright: gatewright.lua: models[1]" in done.stderr
    assert "Traceback" not in done.stderr


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def with_wsgiref(app: flask.Flask) -> Any:
    return make_server("127.0.0.1", 0, app, ThreadingServer, QuietHandler)


def with_werkzeug(app: flask.Flask) -> Any:
    return werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)


@pytest.mark.parametrize("make", [with_wsgiref, with_werkzeug])
def test_other_servers_serve_it(place: Path, make: Callable[[flask.Flask], Any]) -> None:
    with Upstream(serve) as upstream, application(write_config(place / "c.lua", upstream)) as app:
        server = make(app)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            for stream, expected in ((False, ANSWER), (True, CHUNK + LAST)):
                connection.request("POST", "/v1/chat/completions", json.dumps({**ASK, "stream": stream}))
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, expected)
            connection.request("GET", "/v1/models/a%2Fb?x=%20")
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("content-type")) == (404, "application/json")
            connection.close()
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def test_below_a_prefix_and_beside_other_routes(place: Path) -> None:
    with application(Config(server=ServerConfig(), models=())) as app:
        app.add_url_rule("/metrics/mine", view_func=lambda: "mine")
        assert app.test_client().get("/metrics/mine").data == b"mine"
        outer = flask.Flask("outer")
        outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/ai": app})  # type: ignore[method-assign]
        assert outer.test_client().get("/ai/v1/models").get_json()["object"] == "list"
        assert outer.test_client().get("/ai").get_json()["name"] == "gatewright"


def test_who_listens_beyond_this_machine_has_to_say_who_may_come_in(place: Path) -> None:
    def status(server: ServerConfig, address: str) -> int:
        with application(Config(server=server, models=())) as app:
            environ = {"SERVER_NAME": address}
            return app.test_client().get("/v1/models", environ_overrides=environ).status_code

    assert status(ServerConfig(), "127.0.0.1") == 200
    assert status(ServerConfig(), "::1") == 200
    assert status(ServerConfig(), "0.0.0.0") == 403
    assert status(ServerConfig(open=True), "0.0.0.0") == 200
    assert status(ServerConfig(api_keys=("k",)), "192.0.2.1") == 401


def test_names_that_lead_here_are_answered_as_gw_server_does(place: Path) -> None:
    server = ServerConfig(open=True, allowed_hosts=("ai.example",))
    with application(Config(server=server, models=())) as app:

        def status(host: str, address: str = "127.0.0.1") -> int:
            environ = {"SERVER_NAME": address}
            answer = app.test_client().get("/health", headers={"Host": host}, environ_overrides=environ)
            return answer.status_code

        assert status("localhost:8080") == 200
        assert status("ai.example") == 200
        assert status("evil.example") == 403
        assert status("192.0.2.7") == 403
        assert status("192.0.2.7", address="192.0.2.7") == 200
        assert status("192.0.2.7", address="0.0.0.0") == 200
        assert status("bad host") == 403


def test_a_defect_is_answered_in_json(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise ZeroDivisionError("a bug for a test")

    monkeypatch.setattr("gatewright_wsgi.app.local_document", fail)
    with application(Config(server=ServerConfig(), models=())) as app:
        answer = app.test_client().get("/health")
    assert answer.status_code == 500
    assert answer.get_json()["error"]["type"] == "server_error"
    assert "a bug for a test" not in answer.text


def test_a_forked_child_begins_anew(place: Path) -> None:
    """Not in this process, whose other threads would make Python warn of the fork."""
    program = """
import os, sys
from gatewright_wsgi import create_app
app = create_app("c.lua")
def ask():
    answer = app.test_client().post("/v1/completions", json={"model": "m", "prompt": "hi"})
    assert answer.status_code == 200, answer.text
ask()
if os.fork() == 0:
    ask()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
ask()
"""
    with Upstream(serve) as upstream:
        write_config(place / "c.lua", upstream)
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert upstream.connections == 2
        assert len(upstream.requests) == 3


def test_a_trace_that_cannot_be_written_is_reported_and_nothing_else(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GATEWRIGHT_TRACE", str(place / "nowhere" / "trace"))
    service = make_service(read(remote_model(), state_dir=str(place)))
    service.close()
    assert "served without the trace" in caplog.text
