"""Models, keys and experiments that are managed while the gateway runs."""

import logging

import pytest
from attrs import evolve
from sqlalchemy import select, update

from gatewright.accounting.keys import KeyBook, KeyRequest, hash_key
from gatewright.accounting.spending import Window, WindowKind
from gatewright.registry import RegisteredModel
from gatewright.route_config import ExperimentState
from gatewright.selection.profiles import ModelProfile, Pricing, ProfileSource
from gatewright_host.store import Conflict, Missing, Store, tables
from tests.host.store.stored import NOON_S, Clock

MODEL = RegisteredModel(
    profile=ModelProfile(
        name="far",
        provider="acme",
        context_tokens=32_768,
        capabilities=frozenset({"code"}),
        features=frozenset({"tools"}),
        pricing=Pricing(input_per_million=0.5, output_per_million=1.5),
        quality=0.8,
        source=ProfileSource.STORE,
    ),
    connect="https://llm.example.com",
    api_key_env="ACME_API_KEY",
    aliases=("far-away",),
)
REQUEST = KeyRequest(
    name="ci",
    models=frozenset({"a", "b"}),
    requests_per_minute=60,
    budget_usd=5.0,
    budget_window=Window(kind=WindowKind.ROLLING, period="day"),
    expires_s=NOON_S + 10,
)


def test_models_come_back_as_they_were_registered(store: Store) -> None:
    another = evolve(MODEL, profile=evolve(MODEL.profile, name="another"), aliases=())
    store.create_model(MODEL)
    store.create_model(another)
    assert store.models() == (another, MODEL)


def test_a_name_is_registered_once(store: Store) -> None:
    store.create_model(MODEL)
    with pytest.raises(Conflict, match="a model 'far' is registered already"):
        store.create_model(evolve(MODEL, connect="https://other.example.com"))
    assert store.models() == (MODEL,)


def test_a_model_is_changed_and_forgotten(store: Store) -> None:
    store.create_model(MODEL)
    changed = evolve(MODEL, parallel=3)
    store.update_model(changed)
    assert store.models() == (changed,)
    store.delete_model("far")
    assert store.models() == ()


def test_what_is_not_there_cannot_be_changed(store: Store) -> None:
    with pytest.raises(Missing, match="no model 'far' is registered"):
        store.update_model(MODEL)
    with pytest.raises(Missing, match="no model 'far' is registered"):
        store.delete_model("far")
    with pytest.raises(Missing, match="there is no API key 'key_9'"):
        store.update_key("key_9", REQUEST)
    with pytest.raises(Missing, match="there is no API key 'key_9'"):
        store.delete_key("key_9")


def test_a_model_that_nobody_can_read_is_left_out_and_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.create_model(MODEL)
    store.create_model(evolve(MODEL, profile=evolve(MODEL.profile, name="later"), aliases=()))
    with store._database.writing() as connection:
        connection.execute(
            update(tables.models)
            .where(tables.models.c.name == "later")
            .values(body_json='{"name": "later", "new": 1}')
        )
    with caplog.at_level(logging.WARNING, "gatewright.store"):
        assert [model.name for model in store.models()] == ["far"]
    assert "it is left out" in caplog.text


def test_a_key_s_secret_is_told_once_and_not_kept(store: Store) -> None:
    secret, key = store.create_key(REQUEST)
    assert store.keys() == (key,)
    assert key.hash == hash_key(secret)
    with store.reading() as connection:
        (row,) = connection.execute(select(tables.api_keys)).all()
    assert secret not in repr(row)
    assert secret.startswith("gw-")
    assert len(secret) > 40


def test_a_stored_key_is_found_by_its_secret(store: Store) -> None:
    secret, key = store.create_key(REQUEST)
    book = KeyBook(store.keys())
    assert book.find(secret, NOON_S) == key.facts
    assert book.find(secret + "x", NOON_S) != key.facts


def test_changing_a_key_leaves_its_secret(store: Store, clock: Clock) -> None:
    secret, key = store.create_key(REQUEST)
    clock.advance(5.0)
    _, second = store.create_key(KeyRequest(name="second"))
    changed = store.update_key(key.id, KeyRequest(name="cd", is_admin=True))
    assert (changed.id, changed.hash, changed.created_s) == (key.id, hash_key(secret), key.created_s)
    assert (changed.name, changed.is_admin, changed.expires_s, changed.models) == ("cd", True, None, None)
    assert store.keys() == (changed, second)
    store.delete_key(key.id)
    assert store.keys() == (second,)


def test_what_was_done_to_experiments_is_kept(store: Store) -> None:
    first = ExperimentState(experiment="prompts", stopped=("long",))
    second = ExperimentState(experiment="models", promoted="b", is_ended=True)
    store.set_experiment_state(first)
    store.set_experiment_state(second)
    assert store.experiment_states() == (second, first)
    changed = evolve(first, promoted="short")
    store.set_experiment_state(changed)
    assert store.experiment_states() == (second, changed)
