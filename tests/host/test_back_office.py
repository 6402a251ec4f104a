"""What a process does besides answering."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import evolve

from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.accounting.spending import BudgetConfig, Charge
from gatewright.api.facts import ApiFormat, RequestFacts
from gatewright.commands import EstimateComplexity, Outcome, RecordRequest, ReserveSpend
from gatewright.config import Config
from gatewright.events import ComplexityEstimated, SpendUnknown
from gatewright.ids import CommandId, RequestId
from gatewright.route_config import EstimatorConfig, EstimatorKind, JudgeConfig, RouteConfig, StoreConfig
from gatewright.wire.server import RequestHead
from gatewright_host.back_office import MOST_WAITING_BYTES, BackOffice, KeptAnswer
from gatewright_host.own_questions import OwnQuestions, QuestionFailed
from gatewright_host.state_dir import StateDir
from gatewright_host.upstream_calls import ClientRequest
from tests.support.host import until_blocking

ANSWER = KeptAnswer(
    ((b"content-type", b"application/json"),),
    b'{"choices": [{"message": {"role": "assistant", "content": "yes"}}]}',
)


class Judge:
    """Says nothing before it is allowed to, and then nothing that could be used."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.count = 0

    def ask(self, body: bytes, task: str, timeout_s: float) -> str:  # noqa: ARG002  # as they are asked
        self.count += 1
        self.asked.release()
        self.may_go_on.wait(30)
        raise QuestionFailed("nobody knows")


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def office(tmp_path: Path, judge: Judge) -> Iterator[BackOffice]:
    config = Config(models=(), store=StoreConfig(enabled=False))
    office = BackOffice(config, StateDir.at(tmp_path), lambda _: None, judge.ask)
    office.start()
    yield office
    judge.may_go_on.set()
    office.close()


def request(body: bytes) -> ClientRequest:
    path = "/v1/chat/completions"
    head = RequestHead(
        method="POST",
        target=path,
        headers=(),
        http_version="1.1",
        expects_continue=False,
        content_length=len(body),
    )
    return ClientRequest(RequestId("r"), head, RequestFacts(path=path, format=ApiFormat.CHAT), body)


def record() -> RecordRequest:
    return RecordRequest(
        request_id=RequestId("r"),
        outcome=Outcome.ANSWERED,
        path="/v1/chat/completions",
        judge=JudgeConfig(model="judge"),
    )


def test_a_reservation_is_answered_whatever_goes_wrong(
    office: BackOffice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(command: ReserveSpend) -> NoReturn:
        raise OverflowError("too large")

    monkeypatch.setattr(office.keeper, "reserve", fail)
    answer = office.reserve(ReserveSpend(command_id=CommandId(7), request_id=RequestId("r")))
    assert answer == SpendUnknown(command_id=CommandId(7), reason="too large")
    assert "a defect of this program" in caplog.text


def test_answers_that_wait_for_their_judge_take_only_so_much_memory(office: BackOffice, judge: Judge) -> None:
    large = request(b" " * (MOST_WAITING_BYTES - len(ANSWER.body)))
    office.record(record(), request(b"{}"), ANSWER)
    assert judge.asked.acquire(timeout=20)  # it is busy now, and all others wait
    for _ in range(5):
        office.record(record(), large, ANSWER)
    judge.may_go_on.set()
    assert judge.asked.acquire(timeout=20)
    office.record(record(), large, ANSWER)  # there is room again
    assert judge.asked.acquire(timeout=20)
    assert judge.count == 3


class PatientJudge:
    """Would wait for a minute, unless it is given up."""

    def __init__(self) -> None:
        self.office: BackOffice | None = None
        self.asked = threading.Semaphore(0)
        self.count = 0

    def ask(self, body: bytes, task: str, timeout_s: float) -> str:  # noqa: ARG002  # as they are asked
        assert self.office is not None
        ended = threading.Event()
        self.count += 1
        with self.office.questions.under_way(ended.set):
            self.asked.release()
            ended.wait(60)
        raise QuestionFailed("broken off")


def test_an_office_that_closes_gives_up_its_judge_and_asks_no_other(tmp_path: Path) -> None:
    judge = PatientJudge()
    config = Config(models=(), store=StoreConfig(enabled=False))
    office = judge.office = BackOffice(config, StateDir.at(tmp_path), lambda _: None, judge.ask)
    office.start()
    for _ in range(3):
        office.record(record(), request(b"{}"), ANSWER)
    assert judge.asked.acquire(timeout=20)
    start = time.monotonic()
    office.close()
    assert time.monotonic() - start < 20
    assert judge.count == 1


def test_what_is_asked_after_all_was_given_up_comes_to_its_end_at_once() -> None:
    questions, ended = OwnQuestions(), threading.Event()
    questions.give_up()
    with questions.under_way(ended.set):
        assert ended.is_set()


def test_the_figures_have_no_budget_that_was_removed(tmp_path: Path, judge: Judge) -> None:
    kept = BudgetConfig(name="kept", limit_usd=1.0)
    config = Config(models=(), budgets=(kept, BudgetConfig(name="gone", limit_usd=1.0)))
    office = BackOffice(config, StateDir.at(tmp_path), lambda _: None, judge.ask)
    office.start()
    office.keep_figures()
    assert office.metrics is not None
    try:
        assert office.keeper.wait_ready(30)
        charges = tuple(Charge(account=name, limit_usd=1.0) for name in ("kept", "gone"))
        request_id = RequestId("req_1")
        office.reserve(
            ReserveSpend(command_id=CommandId(1), request_id=request_id, charges=charges, amount_usd=0.5)
        )
        assert b'gatewright_budget_reserved_usd{account="gone"} 0.5' in office.metrics.render()[1]
        office.replace_config(Config(models=(), budgets=(kept,)))
        shown = office.metrics.render()[1]
        assert b'gatewright_budget_reserved_usd{account="kept"} 0.5' in shown
        assert b"gone" not in shown
    finally:
        office.close()


def test_feedback_reaches_the_learned_estimator_whoever_took_it(tmp_path: Path, judge: Judge) -> None:
    pytest.importorskip("sklearn")
    route = RouteConfig(name="auto", estimator=EstimatorConfig(kind=EstimatorKind.LEARNED))
    office = BackOffice(Config(models=(), routes=(route,)), StateDir.at(tmp_path), lambda _: None, judge.ask)
    office.start()
    try:
        asked = request(b'{"messages": [{"role": "user", "content": "Prove the theorem about rings"}]}')
        ids = [RequestId(f"r{number}") for number in range(32)]
        for request_id in ids:
            outcome = ModelOutcome(request_id=request_id, model="weak", success=True, at=time.monotonic())
            answered = evolve(record(), request_id=request_id, model="weak", judge=None, outcomes=(outcome,))
            office.record(answered, asked, None)
        assert office.keeper.flush(30)
        for request_id in ids:
            office.keeper.store.add_feedback(
                Feedback(request_id=request_id, score=0.0, at=time.time(), by="somebody")
            )
        question = EstimateComplexity(
            command_id=CommandId(1),
            request_id=RequestId("new"),
            estimator=EstimatorConfig(kind=EstimatorKind.LEARNED, min_outcomes=1),
            candidates=("weak",),
        )

        def is_known_to_fail() -> bool:
            told = office.estimate(question, asked)
            return isinstance(told, ComplexityEstimated) and told.chances["weak"] < 0.3

        until_blocking(is_known_to_fail)
    finally:
        office.close()
