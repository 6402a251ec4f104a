import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest

from gatewright.commands import Outcome, RecordRequest
from gatewright.config import Config, ModelConfig
from gatewright.ids import RequestId
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Keeper, Store, Written
from gatewright_host.store.spool import Spool
from tests.core.machines.build import remote_model
from tests.support.gateway import wait_until


def written(request_id: str, prompt: str | None = None) -> Written:
    record = RecordRequest(
        request_id=RequestId(request_id), outcome=Outcome.ANSWERED, path="/v1/chat/completions", model="gpt"
    )
    return Written(record=record, at_s=1000.0, gateway_epoch_s=900.0, prompt=prompt)


class Taker:
    def __init__(self) -> None:
        self.taken: list[Written] = []

    def write(self, batch: Sequence[Written]) -> None:
        self.taken += batch


def test_what_was_added_is_taken_once_and_in_order(tmp_path: Path) -> None:
    spool, taker = Spool(tmp_path), Taker()
    records = [written(f"r{number}", prompt="a\nline é" if number % 2 else None) for number in range(450)]
    for record in records:
        spool.add(record)
    assert spool.empty_into(taker.write) == 450
    assert taker.taken == records
    assert spool.empty_into(taker.write) == 0
    assert spool.is_empty


def test_nothing_is_made_where_nothing_waits(tmp_path: Path) -> None:
    assert Spool(tmp_path).empty_into(Taker().write) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_written_stays_and_comes_before_what_was_added_later(tmp_path: Path) -> None:
    spool, taker = Spool(tmp_path), Taker()
    spool.add(written("first"))

    def fail(batch: Sequence[Written]) -> None:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        spool.empty_into(fail)
    spool.add(written("second"))
    assert not spool.is_empty
    assert (spool.empty_into(taker.write), spool.empty_into(taker.write)) == (1, 1)
    assert [each.record.request_id for each in taker.taken] == ["first", "second"]


def test_a_line_that_nobody_can_read_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool, taker = Spool(tmp_path), Taker()
    spool.add(written("first"))
    with (tmp_path / "spool.jsonl").open("ab") as file:
        file.write(b'{"at_s": 1, "epo\n{"at_s":1,"epoch_s":1,"record":{"Nonsense":{}}}\n')
    spool.add(written("second"))
    assert spool.empty_into(taker.write) == 2
    assert "cannot be read" in caplog.text


def test_the_file_is_the_users_alone(tmp_path: Path) -> None:
    Spool(tmp_path).add(written("r"))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def _add_many(directory: Path, name: str) -> None:
    spool = Spool(directory)
    for number in range(100):
        spool.add(written(f"{name}-{number}"))


def test_processes_add_while_another_takes(tmp_path: Path) -> None:
    spool, taker = Spool(tmp_path), Taker()
    context = multiprocessing.get_context("fork")
    adding = [context.Process(target=_add_many, args=(tmp_path, f"p{number}")) for number in range(3)]
    for process in adding:
        process.start()
    while any(process.is_alive() for process in adding):
        spool.empty_into(taker.write)
    for process in adding:
        process.join()
    spool.empty_into(taker.write)
    ids = [each.record.request_id for each in taker.taken]
    assert len(ids) == len(set(ids)) == 300


def test_a_keeper_takes_over_what_waits_and_tells_its_gateway(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path / "state")
    model: ModelConfig = remote_model()
    told: list[object] = []
    keeper = Keeper(Config(models=(model,)), state, told.append)
    Spool(state.path).add(written("r1"))
    keeper.start()
    try:
        wait_until(lambda: Spool(state.path).is_empty, "the spool is empty")
        wait_until(lambda: keeper.store.find_request("r1") is not None, "it is written")
    finally:
        keeper.close()
    with Store.open(f"sqlite:///{state.store_file}") as store:
        found = store.find_request("r1")
        assert found is not None
        assert found.at_s == 1000.0


def test_a_record_that_no_database_takes_is_in_nobody_s_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateDir.at(tmp_path / "state")
    write = Store.write

    def refuse_bad(store: Store, batch: Sequence[Written], *, of_others: bool = False) -> None:
        if any(each.record.request_id == "bad" for each in batch):
            raise OverflowError("too large")
        write(store, batch, of_others=of_others)

    monkeypatch.setattr(Store, "write", refuse_bad)
    for name in ("first", "bad", "last"):
        Spool(state.path).add(written(name))
    keeper = Keeper(Config(models=()), state, lambda _: None)
    keeper.start()
    try:
        assert keeper.wait_ready(20)
        found = [keeper.store.find_request(RequestId(name)) is not None for name in ("first", "bad", "last")]
        assert (found, keeper.dropped) == ([True, False, True], 1)
        assert "the record of bad cannot be written" in caplog.text
    finally:
        keeper.close()


def test_what_somebody_left_half_written_spoils_nobody_else_s_record(tmp_path: Path) -> None:
    spool, taker = Spool(tmp_path), Taker()
    spool.add(written("first"))
    with (tmp_path / "spool.jsonl").open("ab") as file:
        file.write(b'{"at_s": 1000.0, "epo')
    spool.add(written("second"))
    spool.empty_into(taker.write)
    assert [each.record.request_id for each in taker.taken] == ["first", "second"]
