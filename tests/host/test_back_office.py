"""What a process does besides answering."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from gatewright.api.facts import ApiFormat, RequestFacts
from gatewright.commands import Outcome, RecordRequest, ReserveSpend
from gatewright.config import Config
from gatewright.events import SpendUnknown
from gatewright.ids import CommandId, RequestId
from gatewright.route_config import JudgeConfig, StoreConfig
from gatewright.wire.server import RequestHead
from gatewright_host.back_office import MOST_WAITING_BYTES, BackOffice, KeptAnswer
from gatewright_host.own_questions import QuestionFailed
from gatewright_host.state_dir import StateDir
from gatewright_host.upstream_calls import ClientRequest

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
