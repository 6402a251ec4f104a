"""Workers and a server spend one budget at once, and some are killed: what the upstream's books say of it."""

import http.client
import json
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any, Final

import pytest
from attrs import define, field, frozen
from sqlalchemy import create_engine, text

from tests.support.gateway import Gateway, stream_lines, wait_until
from tests.support.gunicorn import GunicornGateway
from tests.support.meter import PROMPT_TOKENS, WORD, Meter, Question
from tests.support.postgres import find_programs, running_postgres

WORKERS: Final = 3
THREADS: Final = 6
CLIENTS: Final = 24
NANO_PER_TOKEN: Final = 1_000_000
PRICES: Final = "input_per_million = 1000, output_per_million = 1000, retries = 0"
ANSWER_TOKENS: Final = 10
MOST_NANO: Final = (PROMPT_TOKENS + ANSWER_TOKENS) * NANO_PER_TOKEN
EXACT_CALLS: Final = 150
"""That the budget of the first model allows."""
WASTEFUL_CALLS: Final = 300
"""That the budget of the second allows, if they take all that they might."""
KILLS: Final = 3
PATIENCE_S: Final = 60.0
ZERO_S: Final = 20.0
"""Until nothing is reserved any more."""


def budgets_lua(store_url: str | None) -> str:
    week = '{ rolling = "week" }'
    limits = {"exact": EXACT_CALLS, "wasteful": WASTEFUL_CALLS, "held": 1}
    lines = [
        f'{{ name = "{model}", per = "model", of = "{model}", window = {week}, limit = {calls * MOST_NANO / 1e9} }}'
        for model, calls in limits.items()
    ]
    store = "" if store_url is None else f'store = {{ url = "{store_url}" }}'
    return f"budgets = {{ {', '.join(lines)} }}\n{store}"


@frozen(kw_only=True)
class Answer:
    """What a client got.

    Attributes:
        question: What it asked.
        status: None if the connection ended without one.
        is_whole: All of it came; never where the client left.
        request_id: As the answer's head names it.
        by_worker: Whether it asked a worker of gunicorn.
        has_text: All tokens came.
        error: Of the answer, if it is one.
        should_retry: The header, if it is there.
    """

    question: Question
    status: int | None
    is_whole: bool
    request_id: str | None
    by_worker: bool
    has_text: bool
    error: dict[str, Any] = field(factory=dict)
    should_retry: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the client got what it wanted to wait for."""
        return self.is_whole or (self.status == 200 and self.question.waits and self.has_text)

    @property
    def process(self) -> str | None:
        """Who answered: each process numbers its requests by a name of its own."""
        return self.request_id[:12] if self.request_id else None


@define
class Site:
    """Everything that runs, and what was asked of it."""

    meter: Meter
    workers: GunicornGateway
    server: Gateway
    url: str
    answers: list[Answer] = field(factory=list)
    kills: int = 0
    numbers: "count[int]" = field(factory=lambda: count(1))

    def ask(self, model: str, question: Question, *, by_worker: bool) -> Answer:
        """One request on a connection of its own; streams that wait are left when all of them is there."""
        port = (self.workers if by_worker else self.server).port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        status, request_id, data, is_whole, headers = None, None, b"", False, {}
        try:
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps(question.body(model)),
                {"Content-Type": "application/json"},
            )
            assert connection.sock is not None
            if question.number % 2:
                # Leaving resets the connection, where others close it.
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with connection.getresponse() as response:
                status, headers = (
                    response.status,
                    {name.lower(): value for name, value in response.getheaders()},
                )
                request_id = headers.get("x-request-id")
                while data.count(WORD.encode()) < question.tokens or not question.waits or status != 200:
                    piece = response.read1(65536)
                    if not piece:
                        is_whole = not response.length
                        break
                    data += piece
        except (http.client.HTTPException, OSError):
            pass
        finally:
            connection.close()
        error = {}
        if status not in {None, 200} and is_whole:
            error = json.loads(data)["error"]
        answer = Answer(
            question=question,
            status=status,
            is_whole=is_whole,
            request_id=request_id,
            by_worker=by_worker,
            has_text=data.count(WORD.encode()) == question.tokens,
            error=error,
            should_retry=headers.get("x-should-retry"),
        )
        self.answers.append(answer)
        return answer

    def next(self, **fields: Any) -> Question:
        return Question(number=next(self.numbers), most=ANSWER_TOKENS, **fields)

    def kill_worker(self) -> None:
        self.kills += 1
        worker = self.workers.workers()[0]
        worker.send_signal(signal.SIGKILL)
        wait_until(lambda: worker not in self.workers.workers(), "the worker is gone")

    def budget(self, model: str) -> dict[str, Any]:
        _, _, body = self.server.request("GET", "/api/budgets")
        (found,) = [each for each in json.loads(body)["data"] if each["account"] == f"{model}/model={model}"]
        return dict(found)

    def written(self, model: str) -> dict[str, int]:
        """Nano-dollars of each request to a model that the store knows."""
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                found = connection.execute(
                    text("SELECT request_id, cost_nano FROM requests WHERE model = :model"), {"model": model}
                )
                return {row.request_id: row.cost_nano for row in found}
        finally:
            engine.dispose()

    def survivors(self) -> set[str | None]:
        """Processes that serve now, by the names that they give their requests."""
        seen = {self.ask("exact", self.next(tokens=1), by_worker=False).process}
        for _ in range(500):
            if len(seen) == 1 + WORKERS:
                return seen
            seen.add(self.ask("exact", self.next(tokens=1), by_worker=True).process)
        raise AssertionError(f"some workers do not answer: {seen}")

    def rows(self, table: str) -> int:
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
        finally:
            engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    if request.param == "sqlite":
        with running_site(None) as found:
            yield found
        return
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    with running_postgres(programs) as postgres, running_site(postgres.url()) as found:
        yield found


@contextmanager
def running_site(store_url: str | None) -> Iterator[Site]:
    meter = Meter()
    with meter.upstream() as upstream:
        models = [upstream.lua(name, PRICES) for name in ("exact", "wasteful", "held")]
        workers = GunicornGateway(*models, workers=WORKERS, threads=THREADS, more=budgets_lua(store_url))
        server = Gateway(env={"XDG_RUNTIME_DIR": str(workers.directory)})
        server.config = workers.config
        with workers:
            with server:
                yield Site(meter, workers, server, store_url or f"sqlite:///{workers.state.store_file}")
            assert "were not checked" not in workers.log + server.log_at_end


def run_clients(site: Site, model: str, each: int, make: Any) -> None:
    """Have all clients ask so many questions each, every other one of a worker."""

    def visit(client: int) -> None:
        random = Random(client)
        for _ in range(each):
            site.ask(model, make(random), by_worker=client % 4 > 0)

    threads = [threading.Thread(target=visit, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check_refusals(answers: list[Answer], model: str) -> None:
    for answer in answers:
        assert answer.status in {200, 429, None}, answer
        if answer.status == 429:
            assert answer.error["code"] == "insufficient_quota"
            assert answer.error["budget"] == f"{model}/model={model}"
            assert answer.should_retry == "false"


def test_the_upstream_never_serves_more_than_the_budget(site: Site) -> None:
    spend_exactly(site)
    spend_wastefully(site)
    leave_reservations(site)


def spend_exactly(site: Site) -> None:
    """Every answer takes what was reserved for it: the budget is spent to the last cent, and not more."""

    def make(random: Random) -> Question:
        return site.next(
            tokens=ANSWER_TOKENS,
            delay_ms=random.randrange(20),
            stream=random.random() < 0.3,
            tells_usage=True,
        )

    run_clients(site, "exact", 2 * EXACT_CALLS // CLIENTS, make)
    check_refusals(site.answers, "exact")
    assert all(answer.is_whole for answer in site.answers)
    served = [answer for answer in site.answers if answer.status == 200]
    assert len(served) == EXACT_CALLS
    assert site.meter.served.total() * NANO_PER_TOKEN == EXACT_CALLS * MOST_NANO
    wait_until(lambda: site.budget("exact")["reserved_usd"] == 0, "all is settled")
    assert site.written("exact") | {
        answer.request_id: MOST_NANO for answer in served if answer.request_id
    } == site.written("exact")
    assert site.budget("exact")["spent_usd"] == pytest.approx(EXACT_CALLS * MOST_NANO / 1e9, abs=1e-12)


def spend_wastefully(site: Site) -> None:
    """Answers take less than was reserved, streams are left, workers are killed with calls under way."""
    site.answers.clear()
    site.meter.served.clear()

    def make(random: Random) -> Question:
        stream = random.random() < 0.5
        return site.next(
            tokens=random.randint(1, ANSWER_TOKENS),
            delay_ms=random.randrange(40),
            stream=stream,
            tells_usage=random.random() < 0.5,
            waits=stream and random.random() < 0.4,
        )

    def kill() -> None:
        for number in range(1, KILLS + 1):
            enough = number * WASTEFUL_CALLS // (KILLS + 2)
            wait_until(lambda: len(site.answers) > enough, "some were answered", PATIENCE_S)  # noqa: B023  # at once
            site.kill_worker()

    killer = threading.Thread(target=kill)
    killer.start()
    run_clients(site, "wasteful", 3 * WASTEFUL_CALLS // CLIENTS, make)
    killer.join()
    while site.ask("wasteful", site.next(tokens=1), by_worker=False).status == 200:
        pass
    check_refusals(site.answers, "wasteful")
    assert site.kills == KILLS
    assert all(answer.is_complete or answer.by_worker for answer in site.answers)
    wait_until(lambda: site.budget("wasteful")["reserved_usd"] == 0, "all is settled", ZERO_S)
    check_books(site)


def check_books(site: Site) -> None:
    """The upstream's books against those of the store."""
    limit, written, survivors = WASTEFUL_CALLS * MOST_NANO, site.written("wasteful"), site.survivors()
    settled, broken, unwritten = 0, [], []
    for answer in site.answers:
        served = site.meter.served[answer.question.number] * NANO_PER_TOKEN
        if answer.request_id in written:
            assert written[answer.request_id] == served, answer
            settled += served
        elif served:
            # Nobody but those who were killed have anything to hide.
            assert answer.by_worker
            assert answer.process not in survivors
            (unwritten if answer.is_complete else broken).append(served)
    assert len(broken) <= KILLS * THREADS
    assert site.meter.served.total() * NANO_PER_TOKEN == settled + sum(broken) + sum(unwritten)
    spent = sum(written.values())
    assert spent == round(site.budget("wasteful")["spent_usd"] * 1e9)
    # What was written of requests whose clients have never learnt their id.
    assert 0 <= spent - settled <= sum(broken)
    # Nothing is left of the budget, and nobody has had more of it.
    assert limit - MOST_NANO < spent <= limit


def leave_reservations(site: Site) -> None:
    """Killed workers' streams have the whole of a budget; whoever asks next has it at once."""
    question = site.next(tokens=ANSWER_TOKENS, stream=True, waits=True)
    with stream_lines(site.workers, question.body("held")) as response:
        response.read1()
        refused = site.ask("held", site.next(tokens=1), by_worker=False)
        assert refused.status == 429
        for worker in site.workers.workers():
            worker.kill()
        wait_until(lambda: not site.meter.under_way, "the upstream has noticed")
        assert site.ask("held", site.next(tokens=ANSWER_TOKENS), by_worker=False).status == 200
    wait_until(lambda: site.budget("held")["reserved_usd"] == 0, "all is settled", ZERO_S)
    assert site.budget("held")["spent_usd"] == MOST_NANO / 1e9
    assert site.rows("reservations") == 0
    # Of those that live: the server, and workers that were started in the place of others.
    assert site.rows("owners") <= 1 + WORKERS
    site.server.request("GET", "/metrics")
    assert len(list((site.workers.state.path / "metrics").glob("*.figures"))) <= 1 + WORKERS
