"""The Flask application."""

import logging
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve
from flask import Flask, request
from flask.typing import ResponseReturnValue

from gatewright.accounting.spending import KeyFacts
from gatewright.api.access import Access
from gatewright.api.endpoints import MANAGED, Endpoint, match_endpoint
from gatewright.api.request import read_request
from gatewright.config import Config
from gatewright.errors import GatewrightError, InvalidRequest, ModelNotFound, Problem
from gatewright.ids import RequestId
from gatewright.wire.server import RequestHead
from gatewright_host.local_answers import JSON, local_document
from gatewright_host.log_setup import set_up_logging
from gatewright_host.management import Management, is_waiting_for_keys, wait_for_keys
from gatewright_host.state_dir import StateDir
from gatewright_wsgi.answering import Answer, AnswerBody, problem_answer, whole_answer
from gatewright_wsgi.choosing import Chosen, choose, told_to_gunicorn
from gatewright_wsgi.clients import Client, client_socket
from gatewright_wsgi.incoming import Doorkeeper, is_unix_socket, read_body, read_head
from gatewright_wsgi.process import Process, Processes
from gatewright_wsgi.sink import ResponseSink

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger: Final = logging.getLogger("gatewright.server")


def create_app(config: Config | str | os.PathLike[str] | None = None) -> Flask:
    """The gateway as a WSGI application.

    Nothing is connected, started or locked before the first request, so that it may be made before a server forks.

    Args:
        config: A configuration, its file, or None for the file that `gw-server` would find: `$GATEWRIGHT_CONFIG`, else
            `gatewright.lua` in the working directory or in the user's configuration directory.

    Raises:
        ConfigError: There is none, or it is not valid. Under gunicorn the worker ends instead, and its master with it.
        StateDirError: The state directory cannot be used; the same under gunicorn.
    """
    with told_to_gunicorn():
        chosen = choose(config, os.environ, Path.cwd())
        StateDir.at(
            chosen.config.server.state_dir
        )  # that it cannot be used is better said now than to a client
    server = chosen.config.server
    if not logging.getLogger(
        "gatewright"
    ).handlers:  # somebody else has decided, in gunicorn's logconfig for example
        set_up_logging(server.log_level, server.log_format)
    for warning in chosen.warnings:
        logger.warning("configuration: %s", warning)
    return Application(chosen)


class Application(Flask):
    """Answers every request as `gw-server` does, but for those that somebody adds routes for.

    Flask's own routing is not used: it knows neither the paths nor the errors of the API.

    Args:
        chosen: Configuration.
    """

    def __init__(self, chosen: Chosen) -> None:
        super().__init__("gatewright_wsgi", static_folder=None, template_folder=None)
        self._gateway_config = chosen.config
        self._dated = chosen.dated
        self._doorkeeper = Doorkeeper(chosen.config.server)
        self._processes = Processes(chosen.config)

    def close(self) -> None:
        """Give back what this process holds; the next request begins anew. The end of the process does it as well."""
        self._processes.close()

    def wsgi_app(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request; Flask takes part only where somebody has hung something on it."""
        if self._is_extended:
            return super().wsgi_app(environ, start_response)
        return self._respond(environ)(environ, start_response)

    @property
    def _is_extended(self) -> bool:
        return bool(
            next(self.url_map.iter_rules(), None)
            or self.blueprints
            or self.before_request_funcs
            or self.after_request_funcs
            or self.teardown_request_funcs
            or self.teardown_appcontext_funcs
            or self.error_handler_spec
        )

    def dispatch_request(self) -> ResponseReturnValue:
        """Answer the present request."""
        if request.url_rule is not None:
            return super().dispatch_request()
        return self._respond(request.environ)

    def _respond(self, environ: dict[str, Any]) -> Answer:
        process = self._processes.present
        request_id = process.service.new_request_id()
        try:
            return self._answer(process, request_id, environ)
        except Exception:
            logger.exception("%s failed: a defect of this program", request_id)
            return problem_answer(
                GatewrightError("the gateway failed; its log says more").problem, request_id
            )

    def _answer(self, process: Process, request_id: RequestId, environ: dict[str, Any]) -> Answer:
        server = self._gateway_config.server
        head = read_head(environ)
        if isinstance(head, Problem):
            return problem_answer(head, request_id)
        sock = client_socket(environ)
        name = environ.get("SERVER_NAME", "")
        access = self._check(process, head, name, over_unix_socket=is_unix_socket(sock))
        endpoint = access.problem or match_endpoint(head.method, head.target)
        if isinstance(endpoint, Problem):
            return problem_answer(endpoint, request_id)
        body = read_body(environ, head, server, sock)
        if isinstance(body, Problem):
            return problem_answer(body, request_id, endpoint.format)
        if endpoint.kind in MANAGED:
            management = Management(process.service.office, lambda: process.service.config)
            return whole_answer(*management.answer(endpoint, head, body, access.key), request_id)
        if endpoint.is_local:
            return self._answer_locally(process, request_id, endpoint)
        return self._answer_by_engine(process, request_id, head, endpoint, body, sock=sock, key=access.key)

    def _check(
        self, process: Process, head: RequestHead, server_name: str, *, over_unix_socket: bool
    ) -> Access:
        keeper = process.service.keeper

        def check() -> Access:
            keys = keeper.key_book if keeper is not None else None
            return self._doorkeeper.check(head, server_name, over_unix_socket=over_unix_socket, keys=keys)

        access = check()
        if is_waiting_for_keys(access, keeper):
            wait_for_keys(keeper)
            access = check()
        return access

    def _answer_locally(self, process: Process, request_id: RequestId, endpoint: Endpoint) -> Answer:
        try:
            document = local_document(endpoint, process.service.config, self._dated)
        except ModelNotFound as error:
            return problem_answer(error.problem, request_id, endpoint.format)
        return whole_answer(200, JSON, document, request_id)

    def _answer_by_engine(
        self,
        process: Process,
        request_id: RequestId,
        head: RequestHead,
        endpoint: Endpoint,
        body: bytes,
        *,
        sock: socket | None,
        key: KeyFacts | None,
    ) -> Answer:
        service = process.service
        try:
            facts = read_request(endpoint, head.headers, body, service.config)
        except InvalidRequest as error:
            return problem_answer(error.problem, request_id, endpoint.format)
        dump = process.dumps.begin(request_id, body) if process.dumps is not None else None
        metrics = service.office.metrics if service.office is not None else None
        sink = ResponseSink(dump)
        if metrics is not None:
            metrics.begin(request_id)
            sink = ResponseSink(dump, partial(metrics.gone, request_id))
        exchange = service.exchange(sink, head, evolve(facts, key=key), body, request_id)
        client = Client(sock, exchange.client_lost)
        return AnswerBody(exchange, sink, client, process.watch).begin()
