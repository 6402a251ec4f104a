"""What a process that answers requests does besides: keeps records, asks estimators, learns, has answers judged."""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from attrs import frozen

from gatewright.accounting.outcomes import Feedback
from gatewright.api.answer_text import answer_text
from gatewright.api.bodies import read_body
from gatewright.api.counting import prompt_text
from gatewright.api.endpoints import Endpoint, match_endpoint
from gatewright.api.signals import prompt_excerpt
from gatewright.commands import EstimateComplexity, RecordRequest, ReserveSpend
from gatewright.config import Config
from gatewright.errors import InvalidRequest
from gatewright.events import (
    ComplexityEstimated,
    EstimationFailed,
    GatewayEvent,
    OutcomesLearnt,
    SpendRefused,
    SpendReserved,
    SpendUnknown,
)
from gatewright.judging import judging_body, read_verdict
from gatewright.route_config import EstimatorKind, JudgeConfig
from gatewright.wire.fields import Headers, find_header
from gatewright_host.budget_overview import budget_overview
from gatewright_host.estimators import Estimators
from gatewright_host.metrics import Metrics
from gatewright_host.own_questions import Ask, OwnQuestions, QuestionFailed
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Keeper, StoreError
from gatewright_host.store.vocabulary import BudgetUse
from gatewright_host.upstream_calls import ClientRequest

logger: Final = logging.getLogger("gatewright.records")

COMPLEXITY_TASK: Final = "gatewright:complexity"
JUDGE_TASK: Final = "gatewright:judge"
JUDGE_TIMEOUT_S: Final = 60.0
GOOD_SCORE: Final = 0.5
"""Of a judge: from here on an answer counts as a success for the estimator that learns."""
MOST_WAITING: Final = 256
"""Answers that wait to be learnt from or judged; further ones are not."""
MOST_WAITING_BYTES: Final = 67_108_864
"""Of what these were asked and have answered; one alone may be larger."""
_CLOSE_S: Final = 2.0
_FLUSH_S: Final = 10.0


@frozen
class KeptAnswer:
    """An answer as its client got it.

    Attributes:
        headers: Of the answer.
        body: What was kept of its body.
    """

    headers: Headers
    body: bytes


@frozen
class _Afterwork:
    record: RecordRequest
    request: ClientRequest
    answer: KeptAnswer | None

    @property
    def size_bytes(self) -> int:
        return len(self.request.body) + (len(self.answer.body) if self.answer is not None else 0)


class BackOffice:
    """Of one process; nothing in it holds a request up but what that request waits for.

    Args:
        config: Configuration.
        state: State directory.
        submit: Takes news for the Gateway, from any thread.
        ask: Asks a model that this process serves.
        on_config: Takes the configuration anew whenever the models that the store knows have changed.

    Attributes:
        questions: What `ask` asks; a process that is told to end gives them up without waiting for `close`.
    """

    def __init__(
        self,
        config: Config,
        state: StateDir,
        submit: Callable[[GatewayEvent], None],
        ask: Ask,
        *,
        on_config: Callable[[Config], None] | None = None,
    ) -> None:
        self._submit = submit
        self.keeper: Final = Keeper(config, state, self._hear, on_config=on_config)
        self.estimators: Final = Estimators(state.path)
        self.metrics: Metrics | None = None
        self.questions: Final = OwnQuestions()
        self._state = state
        self._config = config
        self._ask = ask
        self._waiting: SimpleQueue[_Afterwork | None] = SimpleQueue()
        self._waiting_bytes = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Open the store, in the background."""
        self.keeper.start()

    def keep_figures(self) -> None:
        """Count requests for `/metrics`, as servers do."""
        self.metrics = Metrics(
            self._state, dropped=lambda: self.keeper.dropped, budgets=self._budgets_at_present
        )

    def _budgets_at_present(self) -> tuple[BudgetUse, ...]:
        """What is known without waiting for a store that is away."""
        if not self.keeper.is_ready or self.keeper.unavailable is not None:
            return ()
        try:
            store = self.keeper.store
            known = budget_overview(store.budget_use(), self._config.budgets, store.keys())
            return tuple([use for use in known if use.configured])
        except StoreError:
            return ()

    def replace_config(self, config: Config) -> Config:
        """The configuration was reloaded; returns it with the models that the store knows."""
        self._config = config
        return self.keeper.replace_config(config)

    def close(self) -> None:
        """Write down what is still to be written; what is still to be judged is not."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self.questions.give_up()
        if thread is not None:
            self._waiting.put(None)
            thread.join(_CLOSE_S)
        self.estimators.close()
        self.keeper.close()
        if self.metrics is not None:
            self.metrics.close()

    # --- what requests wait for; called by any thread but an event loop's

    def reserve(self, command: ReserveSpend) -> SpendReserved | SpendRefused | SpendUnknown:
        """Carry out the command. Never raises: without an answer the request would never end."""
        try:
            return self.keeper.reserve(command)
        except Exception as error:
            logger.exception("%s: nothing could be reserved: a defect of this program", command.request_id)
            return SpendUnknown(command_id=command.command_id, reason=str(error) or type(error).__name__)

    def estimate(
        self, command: EstimateComplexity, request: ClientRequest
    ) -> ComplexityEstimated | EstimationFailed:
        """Carry out the command."""
        return self.estimators.estimate(command, request.facts, _excerpt(request), self._ask_estimator)

    def _ask_estimator(self, _model: str, body: bytes, timeout_s: float) -> str:
        return self._ask(body, COMPLEXITY_TASK, timeout_s)

    # --- what nobody waits for

    def record(self, record: RecordRequest, request: ClientRequest, answer: KeptAnswer | None) -> None:
        """A request has ended; returns at once.

        Args:
            record: How.
            request: What it was.
            answer: Its answer, where it was to be kept.
        """
        prompt = None
        if self._config.store.prompts and record.model is not None:
            prompt = _prompt(request)
        self.keeper.record(record, prompt)
        if self.metrics is not None:
            self.metrics.observe(record)
        if (record.judge is not None and answer is not None) or (record.outcomes and self._learns):
            self._put(_Afterwork(record, request, answer))

    @property
    def _learns(self) -> bool:
        return any(route.estimator.kind is EstimatorKind.LEARNED for route in self._config.routes)

    def _put(self, work: _Afterwork) -> None:
        with self._lock:
            waiting_bytes = self._waiting_bytes + work.size_bytes
            is_full = self._waiting_bytes > 0 and waiting_bytes > MOST_WAITING_BYTES
            if self._closed or is_full or self._waiting.qsize() >= MOST_WAITING:
                return
            self._waiting_bytes = waiting_bytes
            self._waiting.put(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="gatewright-afterwork", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None and not self._closed:
            with self._lock:
                self._waiting_bytes -= work.size_bytes
            try:
                self._do(work)
            except Exception:
                logger.exception("%s: a defect of this program", work.record.request_id)

    def _do(self, work: _Afterwork) -> None:
        record, score = work.record, None
        if record.judge is not None and work.answer is not None and not self.questions.given_up:
            score = self._judge(record, record.judge, work.request, work.answer)
        if self._learns:
            text = _excerpt(work.request)
            answered = [outcome for outcome in record.outcomes if outcome.success][-1:]
            for outcome in record.outcomes:
                if outcome.is_available:
                    is_good = score is None or score >= GOOD_SCORE
                    self.estimators.learn(
                        outcome.model,
                        text,
                        outcome.success and is_good,
                        task=record.task,
                        request_id=record.request_id if outcome in answered else "",
                    )

    def _hear(self, event: GatewayEvent) -> None:
        """What the keeper has to tell; called by its thread."""
        if isinstance(event, OutcomesLearnt) and self._learns:
            for said in event.feedback:
                self.estimators.take_feedback(said.request_id, said.score >= GOOD_SCORE)
        self._submit(event)

    def _judge(
        self, record: RecordRequest, judge: JudgeConfig, request: ClientRequest, answer: KeptAnswer
    ) -> float | None:
        text = answer_text(request.facts.format, find_header(answer.headers, b"content-type"), answer.body)
        if not text:
            return None
        try:
            said = self._ask(
                judging_body(judge.model, _prompt(request), text, judge.instructions),
                JUDGE_TASK,
                JUDGE_TIMEOUT_S,
            )
        except QuestionFailed as error:
            logger.warning("%s: not judged: %s", record.request_id, error)
            return None
        score = read_verdict(said)
        if score is None:
            logger.warning("%s: not judged: the judge gave no score", record.request_id)
            return None
        self._tell(Feedback(request_id=record.request_id, score=score, at=time.time(), by="judge"))
        if self.metrics is not None:
            self.metrics.observe_feedback(record.model, score)
        return score

    def _tell(self, feedback: Feedback) -> None:
        """The request's own record has to be there first."""
        self.keeper.flush(_FLUSH_S)
        try:
            self.keeper.store.add_feedback(feedback)
        except StoreError as error:
            logger.warning("%s: the verdict is lost: %s", feedback.request_id, error)


def _prompt(request: ClientRequest) -> str:
    """All text of a prompt."""
    try:
        return prompt_text(request.facts, request.body)
    except Exception:  # noqa: BLE001  # a prompt that cannot be read has failed the request long before
        return ""


def _excerpt(request: ClientRequest) -> str:
    """The text that estimators read."""
    endpoint = match_endpoint("POST", request.facts.path)
    if not isinstance(endpoint, Endpoint):
        return ""
    try:
        return prompt_excerpt(endpoint.shape, read_body(request.body))
    except InvalidRequest:
        return ""
