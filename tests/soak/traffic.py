"""Mixed traffic: engines that swap, providers that fail, clients that leave, requests that make no sense."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import define, field, frozen

from tests.faults.upstream import FaultUpstream, text_of
from tests.soak.http import Connect, SoakClient
from tests.soak.judging import Expected, Violation, judge
from tests.support.gateway import model_lua

TEXT: Final = text_of(20)
ENOUGH_VIOLATIONS: Final = 20

_GOOD: Final = Expected(text=TEXT)
_ANY: Final = Expected()
_FAILS: Final = Expected(text=TEXT, may_fail=True)
_ODD: Final = Expected(text=TEXT, may_fail=True, is_odd=True)
_TIMEOUTS: Final = "timeouts = { head = 0.7, first_token = 0.7, between_chunks = 0.4 }"

GOOD: Final = ("ok", "ok-slow-5", "slow-first-token-0.2", "slow-head-0.1", "close-idle")
"""Faults that nobody may notice."""
FAILING: Final = (
    *("reset-before-head", "close-before-head", "silent", "silent-after-head", "role-then-silent"),
    *(
        "comments-then-silent",
        "cut-after-5",
        "reset-after-5",
        "stall-after-5",
        "error-event-0",
        "error-event-4",
    ),
    *(
        "no-done",
        "no-finish",
        "hang-after-finish",
        "wrong-length-long",
        "status-500",
        "status-503",
        "flapping-1",
    ),
    *(
        "429-retry-after-1",
        "insufficient-quota",
        "bad-key",
        "fail-1-reset",
        "context-length",
        "content-policy",
    ),
)
"""Faults that a client may learn of, if it is told properly."""
ODD: Final = (
    *("malformed-event-3", "malformed-all", "done-without-content", "empty-answer", "wrong-length-short"),
    *("html-200", "empty-200", "bad-json-200", "error-200"),
)
"""Faults that look well as HTTP goes; what they say may pass."""

_PRICES: Final = f"retries = 0, {_TIMEOUTS}, input_per_million = 10, output_per_million = 20"

BROKEN_OFF: Final = ("cut-after-5", "reset-after-5", "stall-after-5")
"""Faults after which a stream can be continued elsewhere."""


@frozen
class Models:
    """Files of two tiny models."""

    one: Path
    other: Path


def models_lua(models: Models, upstream: FaultUpstream) -> list[str]:
    """The configuration's models: two that exclude each other, one for each fault, one that falls back."""
    extra = "margin = 16, max_oversize = 1"
    return [
        model_lua("one", models.one, (512, 2048), slots=2, extra=extra),
        model_lua("other", models.other, (512, 2048), slots=2, extra=extra),
        *(upstream.lua(f"p-{name}", name, f"retries = 0, {_TIMEOUTS}") for name in (*GOOD, *FAILING, *ODD)),
        upstream.lua("falls-back", "status-500", f'retries = 0, fallbacks = {{ "p-ok" }}, {_TIMEOUTS}'),
        upstream.lua("tries-again", "fail-1", "retries = 1"),
        upstream.lua("continues", "ok", "prefill = true"),
        *(upstream.lua(f"paid-{name}", name, _PRICES) for name in ("ok", "ok-slow-5")),
        upstream.lua("dry", "ok", _PRICES),
        *(
            upstream.lua(f"resumes-{name}", name, f'retries = 0, fallbacks = {{ "continues" }}, {_TIMEOUTS}')
            for name in BROKEN_OFF
        ),
    ]


def choices_lua() -> str:
    """The configuration's route and budgets: one that is never used up, and one that is after some requests."""
    return (
        'routes = { auto = { candidates = { "paid-ok", "paid-ok-slow-5" }, exploration = "thompson" } }\n'
        'budgets = { { name = "all", limit = 1000 }, { name = "dry", per = "model", of = "dry", limit = 0.004 } }'
    )


@define
class Tally:
    """What came of the traffic.

    Attributes:
        kinds: Answers by scenario and kind.
        violations: Answers that nobody may get.
    """

    kinds: Counter[tuple[str, str]] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    _lock: threading.Lock = field(factory=threading.Lock)

    def count(self, scenario: str, kind: str) -> None:
        """One more of a kind."""
        with self._lock:
            self.kinds[scenario, kind] += 1

    def object(self, violation: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.violations.append(violation)

    def add(self, later: "Tally") -> None:
        """Take over what came of later traffic."""
        self.kinds.update(later.kinds)
        self.violations += later.violations

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.kinds.values())


def run_traffic(connect: Connect, clients: int, seconds: float, seed: int) -> Tally:
    """Have some clients send what they like for some time."""
    tally = Tally()
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_Visitor(connect, tally, Random(f"{seed}-{number}")).run, args=(end,))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


class _Visitor:
    """One client, one request after the other."""

    def __init__(self, connect: Connect, tally: Tally, random: Random) -> None:
        self._client = SoakClient(connect)
        self._tally = tally
        self._random = random
        self._request_id = ""

    def run(self, end: float) -> None:
        scenarios: dict[str, tuple[int, Callable[[], str]]] = {
            "good provider": (14, self._good),
            "failing provider": (24, self._failing),
            "odd provider": (8, self._odd),
            "fallback": (4, self._fallback),
            "resumed stream": (4, self._resume),
            "route": (8, self._route),
            "budget": (4, self._budget),
            "engine": (10, self._engine),
            "overflow": (4, self._overflow),
            "too large": (3, self._too_large),
            "leaves a stream": (8, self._leave_stream),
            "leaves the queue": (5, self._leave_queue),
            "leaves a silent provider": (6, self._leave_silence),
            "half a request": (4, self._half_request),
            "nonsense": (8, self._nonsense),
            "listing": (4, self._listing),
        }
        names = list(scenarios)
        weights = [weight for weight, _ in scenarios.values()]
        try:
            while time.monotonic() < end and len(self._tally.violations) < ENOUGH_VIOLATIONS:
                name = self._random.choices(names, weights)[0]
                try:
                    self._tally.count(name, scenarios[name][1]())
                except Violation as violation:
                    self._tally.object(f"{name}: {violation}")
                except Exception as error:  # noqa: BLE001  # reported as what it is: nothing may go unseen
                    self._tally.object(f"{name}: {type(error).__name__}: {error}")
        finally:
            self._client.close()

    # --- answers

    def _ask(
        self,
        model: str,
        expected: Expected,
        text: str = "say it",
        *,
        streamed: bool | None = None,
        **extra: Any,
    ) -> str:
        if streamed is None:
            streamed = self._random.random() < 0.6
        body = {"model": model, "messages": [{"role": "user", "content": text}], **extra}
        if streamed:
            body["stream"] = True
            if self._random.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
        outcome = self._client.ask(body)
        self._request_id = outcome.headers.get("x-request-id", "")
        try:
            return judge(outcome, expected, streamed=streamed)
        except Violation as violation:
            how = "streamed" if streamed else "in one piece"
            raise Violation(f"{model}, {how}, after {outcome.took_s:.1f} s: {violation}") from None

    def _good(self) -> str:
        return self._ask(f"p-{self._random.choice(GOOD)}", _GOOD)

    def _failing(self) -> str:
        return self._ask(f"p-{self._random.choice(FAILING)}", _FAILS)

    def _odd(self) -> str:
        return self._ask(f"p-{self._random.choice(ODD)}", _ODD)

    def _fallback(self) -> str:
        # Calls that are sent at the same time may each be the first that "fail-1" fails.
        return self._ask(self._random.choice(("falls-back", "tries-again")), _GOOD)

    def _resume(self) -> str:
        return self._ask(f"resumes-{self._random.choice(BROKEN_OFF)}", _GOOD, streamed=True)

    def _route(self) -> str:
        kind = self._ask("auto", _GOOD, max_tokens=50, user=f"user {self._random.randrange(1000)}")
        if self._random.random() < 0.5:
            return kind
        word = {"request_id": self._request_id, "score": round(self._random.random(), 2)}
        told = self._client.ask(word, "/api/feedback")
        if told.status not in {200, 201, 204}:
            raise Violation(f"feedback on {self._request_id}: {told.status} {told.body[:200]!r}")
        return "feedback"

    def _budget(self) -> str:
        return self._ask("dry", Expected(text=TEXT, statuses=(200, 429)), max_tokens=50)

    def _engine(self) -> str:
        prompt = "word " * self._random.choice((1, 30, 600))
        return self._ask(
            self._random.choice(("one", "one", "other")),
            _ANY,
            prompt,
            max_tokens=self._random.choice((4, 32)),
            temperature=0,
        )

    def _overflow(self) -> str:
        # Letters that are a token each: four times as many as the length makes one think.
        return self._ask("one", _ANY, "".join(self._random.choices("zqxj", k=700)), max_tokens=4)

    def _too_large(self) -> str:
        return self._ask("other", Expected(statuses=(400,)), "zqxj" * 2000, max_tokens=4)

    # --- clients that leave

    def _leave(self, model: str, after_bytes: int, after_s: float, text: str = "say it", **extra: Any) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **extra}
        self._client.leave(body, after_bytes=after_bytes, after_s=after_s, rudely=self._random.random() < 0.5)
        return "left"

    def _leave_stream(self) -> str:
        model = self._random.choice(("p-ok-slow-5", "p-stall-after-5", "one"))
        extra: dict[str, Any] = {"max_tokens": 300} if model == "one" else {}
        return self._leave(model, self._random.choice((1, 600, 1500)), 1.0, stream=True, **extra)

    def _leave_queue(self) -> str:
        streamed = self._random.random() < 0.5
        return self._leave("other", 0, self._random.uniform(0, 0.3), stream=streamed, max_tokens=200)

    def _leave_silence(self) -> str:
        model = self._random.choice(("p-silent", "p-silent-after-head", "p-role-then-silent"))
        return self._leave(model, 0, self._random.uniform(0, 0.5), stream=self._random.random() < 0.5)

    def _half_request(self) -> str:
        body = {"model": "one", "messages": [{"role": "user", "content": "say it"}]}
        self._client.leave(
            body,
            after_bytes=0,
            after_s=self._random.uniform(0, 0.1),
            rudely=self._random.random() < 0.5,
            send_bytes=self._random.choice((0, 3, 60, 150)),
        )
        return "left"

    # --- requests that make no sense, and small talk

    def _nonsense(self) -> str:
        messages = [{"role": "user", "content": "hi"}]
        path = "/v1/chat/completions"
        body, path, method, status = self._random.choice(
            (
                (b"{bad", path, "POST", 400),
                (b"[]", path, "POST", 400),
                (b"\xff\xfe", path, "POST", 400),
                ({"model": 1, "messages": messages}, path, "POST", 400),
                ({"model": "nobody", "messages": messages}, path, "POST", 404),
                ({"messages": messages}, path, "POST", 400),
                ({}, "/nowhere", "POST", 404),
                (None, path, "GET", 405),
            )
        )
        outcome = self._client.ask(body, path, method)
        return judge(outcome, Expected(statuses=(status,)), streamed=False)

    def _listing(self) -> str:
        path = self._random.choice(("/health", "/v1/models", "/v1/models/one"))
        outcome = self._client.ask(None, path, "GET")
        if outcome.status != 200 or not outcome.is_whole:
            raise Violation(f"{path}: {outcome.status}")
        return "listed"
