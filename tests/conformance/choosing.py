"""A gateway with routes over a transport, a provider with opinions behind it, and a second process beside it."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from gatewright_cli.verification.check import CHAT
from gatewright_cli.verification.client import Answer, Client
from gatewright_cli.verification.target import Target
from gatewright_host.state_dir import StateDir
from tests.conformance.choosing_config import MODELS, MORE
from tests.conformance.scripted import Document, Provider, completion, event
from tests.conformance.transports import KEYS, TIMEOUT_S, TRANSPORTS, World
from tests.support.gateway import Gateway, wait_until
from tests.support.upstream import LAST, STREAM_HEAD, chunked, reply

SERVER = f'api_keys = {{ "{KEYS[0]}" }}'
PROMPT_TOKENS = 1000
COMPLETION_TOKENS = 100
USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": COMPLETION_TOKENS,
    "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
}
NEWS_S = 2.0
"""Within which every process hears of what another has done."""
RIDDLE = "riddle"
"""Who is asked how hard a text is calls one with this word hard, and any other trivial."""


class Oracle(Provider):
    """A provider whose models have usage, fail, say how hard requests are and how good answers."""

    def received(self, model: str) -> list[Document]:
        """Bodies of all requests to a model of the configuration, oldest first."""
        documents = [json.loads(body) for _, body in self.requests if body]
        return [each for each in documents if each["model"].partition("-")[2] == model]

    def _do_speaks(self, connection: socket.socket, document: Document) -> None:
        """Says who it is, and counts its tokens, in a stream for those who ask for it."""
        text = f"I am {document['model']}."
        if not document.get("stream"):
            connection.sendall(reply(_with_usage(completion(text))))
            return
        data = event(role="assistant", content=text) + LAST.partition(b"data: [DONE]")[0]
        if (document.get("stream_options") or {}).get("include_usage"):
            data += b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
        connection.sendall(STREAM_HEAD + chunked(data) + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _do_hoards(self, connection: socket.socket, document: Document) -> None:
        """Keeps to itself how many tokens it took."""
        self._do_speaks(connection, {**document, "stream_options": None})

    def _do_fails(self, connection: socket.socket, _: Document) -> None:
        """Has a bad day."""
        connection.sendall(reply(b'{"error":{"message":"no","type":"server_error"}}', b"500 Oh"))

    def _do_sizes(self, connection: socket.socket, document: Document) -> None:
        """Says how hard a request is."""
        is_hard = RIDDLE in document["messages"][-1]["content"]
        connection.sendall(reply(completion(f'{{"complexity": "{"expert" if is_hard else "trivial"}"}}')))

    def _do_mumbles(self, connection: socket.socket, _: Document) -> None:
        """Was asked for one thing and says another."""
        connection.sendall(reply(completion("Good morning to you, too.")))

    def _do_judges(self, connection: socket.socket, document: Document) -> None:
        """Thinks nothing of answers that name a pretender."""
        is_bad = "pretender" in document["messages"][-1]["content"]
        connection.sendall(reply(completion(f'{{"score": {0 if is_bad else 1}, "reason": "so it is"}}')))


def _with_usage(body: bytes) -> bytes:
    return json.dumps({**json.loads(body), "usage": USAGE}).encode()


@frozen
class Choosing(World):
    """A world with routes.

    Attributes:
        neighbour: Talks to a `gw-server` with the same configuration and state directory.
    """

    neighbour: Client
    provider: Oracle

    @property
    def both(self) -> tuple[Client, Client]:
        """Clients of all processes there are."""
        return self.client, self.neighbour

    @property
    def state(self) -> StateDir:
        """Where all processes keep what they know."""
        return StateDir.at(self.gateway.directory / "state")

    def ask(self, model: str, text: str = "hi", *, via: Client | None = None, **members: Any) -> Answer:
        """Ask a question that has to be answered."""
        answer = (via or self.client).post(CHAT, self.body(model, text, **members))
        assert answer.status == 200, answer
        return answer

    def refuse(self, model: str, text: str = "hi", *, via: Client | None = None, **members: Any) -> Document:
        """Ask a question that has to be refused; the error, with its `status`."""
        return problem((via or self.client).post(CHAT, self.body(model, text, **members)))

    def who(self, model: str, *, via: Client | None = None, **members: Any) -> str | None:
        """Who answers."""
        return self.ask(model, via=via, **members).get("x-gw-model")

    def send(self, method: str, path: str, body: Any = None, *, via: Client | None = None) -> Answer:
        """Ask the management API."""
        return (via or self.client).send(method, path, body, {"content-type": "application/json"})

    def manage(self, method: str, path: str, body: Any = None, *, via: Client | None = None) -> Any:
        """Ask the management API, which has to do it; its document, or None where there is none."""
        answer = self.send(method, path, body, via=via)
        assert answer.status in {200, 201, 204}, answer
        return json.loads(answer.body) if answer.body else None

    def record(self, answer: Answer | Mapping[str, str]) -> Document:
        """What was written down of a request, whoever did it."""
        path = f"/api/requests/{answer.get('x-request-id')}"

        def look() -> Answer | None:
            found = self.client.get(path)
            return found if found.status != 404 else None

        return dict(json.loads(eventually(look, "it is written down").body))

    def everywhere(self, see: Callable[[Client], bool], clients: tuple[Client, ...] | None = None) -> None:
        """All processes see something within seconds.

        Args:
            see: What, by the last of its requests to that client.
            clients: To the gateway and to its neighbour, with another key than usual.
        """
        for client in clients or self.both:
            many = self.transport.startswith("gunicorn") and client.target == self.client.target
            processes, since_s, end_s = set(), None, time.monotonic() + 15.0
            # One worker may answer again and again: then there is nothing for it but to wait until all have heard.
            while len(processes) < 1 + many and (since_s is None or time.monotonic() - since_s < NEWS_S):
                if see(client):
                    processes.add(_process_of(client))
                    since_s = since_s or time.monotonic()
                else:
                    processes, since_s = set(), None
                assert time.monotonic() < end_s, f"not seen by all behind {client.target}"
                time.sleep(0.02)

    def budget(self, account: str) -> Document:
        """How a budget stands; nothing where nobody has used it."""
        for found in self.manage("GET", "/api/budgets")["data"]:
            if found["account"] == account:
                return dict(found)
        return {}


def _process_of(client: Client) -> str:
    """Which process answered last: the ids of its requests begin alike."""
    return next(note for note in client.notes if note.lower().startswith("x-request-id: "))[
        : -len("00000000")
    ]


def problem(answer: Answer) -> Document:
    """The error of an answer, with its `status`."""
    assert answer.status >= 400, answer
    return {**json.loads(answer.body)["error"], "status": answer.status}


def eventually(see: Callable[[], Any], what: str) -> Any:
    """What is to be seen within seconds."""
    return wait_until(see, what, 15.0)


@contextmanager
def choosing(transport: str) -> Iterator[Choosing]:
    """The world as seen over a transport."""
    with Oracle() as provider:
        models = [each.format(url=provider.url) for each in MODELS]
        with TRANSPORTS[transport](*models, server=SERVER, more=MORE) as (gateway, url):
            directory = gateway.directory
            beside = Gateway(
                *models,
                server=SERVER,
                more=f'{MORE}\nserver.state_dir = "{directory}/state"',
                env={"XDG_RUNTIME_DIR": str(directory)},
            )
            with beside as neighbour:
                yield Choosing(
                    transport=transport,
                    gateway=gateway,
                    provider=provider,
                    client=Client(Target.parse(url), KEYS[0], TIMEOUT_S),
                    neighbour=Client(Target.parse(neighbour.url), KEYS[0], TIMEOUT_S),
                )
