from pathlib import Path

import pytest

from gatewright.accounting.keys import KeyBook, KeyRequest, StoredKey
from gatewright.config import Config
from gatewright.route_config import StoreConfig
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Keeper, Store
from gatewright_host.store.key_memory import nobody_had_a_key, remember_keys
from gatewright_host.store.sharing import Pace
from tests.support.gateway import wait_until

FAR = "postgresql://nobody@127.0.0.1:1/none"
SOMEBODY = KeyBook([StoredKey.make("key_1", "secret", KeyRequest(name="ci"), 0.0)])


def own(state: StateDir) -> str:
    return f"sqlite:///{state.store_file}"


def test_before_a_store_of_our_own_is_made_nobody_has_a_key(state: StateDir):
    assert nobody_had_a_key(state, own(state))
    assert not nobody_had_a_key(state, FAR)  # others may have made keys there
    state.store_file.write_bytes(b"")
    assert not nobody_had_a_key(state, own(state))


def test_what_was_read_last_counts(state: StateDir):
    for url in (FAR, own(state)):
        remember_keys(state, url, KeyBook())
        assert nobody_had_a_key(state, url)
        remember_keys(state, url, SOMEBODY)
        assert not nobody_had_a_key(state, url)


def test_another_store_has_other_keys(state: StateDir):
    remember_keys(state, FAR, KeyBook())
    assert not nobody_had_a_key(state, f"{FAR}2")
    assert not nobody_had_a_key(state, own(state))
    assert "nobody@" not in (state.path / "keys.known").read_text()


def test_a_note_that_cannot_be_written_says_nothing(state: StateDir, monkeypatch: pytest.MonkeyPatch):
    remember_keys(state, FAR, KeyBook())

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    remember_keys(state, FAR, SOMEBODY)
    assert not nobody_had_a_key(state, FAR)


def test_the_note_is_for_its_user_only(state: StateDir):
    note = state.path / "keys.known"
    remember_keys(state, FAR, KeyBook())
    assert note.stat().st_mode & 0o777 == 0o600
    note.chmod(0o644)  # of a process that was less careful
    remember_keys(state, FAR, SOMEBODY)
    assert note.stat().st_mode & 0o777 == 0o600


def keeper_of(state: StateDir, url: str | None) -> Keeper:
    config = Config(models=(), store=StoreConfig(url=url))
    return Keeper(config, state, lambda _: None, pace=Pace(retry_s=0.05))


def test_without_its_store_a_start_goes_by_what_was_known_and_says_so(
    state: StateDir, caplog: pytest.LogCaptureFixture
):
    for book, is_open in ((KeyBook(), True), (SOMEBODY, False)):
        caplog.clear()
        remember_keys(state, FAR, book)
        keeper = keeper_of(state, FAR)
        keeper.start()
        try:
            wait_until(lambda keeper=keeper: keeper.unavailable, "it has found the store away")
            assert keeper.key_book.is_read is is_open
            wait_until(lambda: caplog.records, "it has said so")
            assert ("Requests go on" in caplog.text) is is_open
            assert ("refused with 503 keys_unknown" in caplog.text) is not is_open
        finally:
            keeper.close()


def test_a_keeper_notes_what_it_reads(state: StateDir):
    with Store.open(own(state)) as store:
        _, key = store.create_key(KeyRequest(name="ci", is_admin=True))
        keeper = keeper_of(state, None)
        keeper.start()
        try:
            assert keeper.wait_ready(30)
            assert not nobody_had_a_key(state, own(state))
            store.delete_key(key.id)
            wait_until(lambda: nobody_had_a_key(state, own(state)), "it has seen that nobody has one now")
        finally:
            keeper.close()
