"""What people manage while the gateway runs: models, API keys, experiments."""

import logging
import secrets
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from gatewright.accounting.keys import SECRET_PREFIX, KeyRequest, StoredKey
from gatewright.configuration.reader import Place
from gatewright.registry import RegisteredModel, read_registered_model, registered_model_to_plain
from gatewright.route_config import ExperimentState
from gatewright_host.store.news import EXPERIMENTS, KEYS, MODELS
from gatewright_host.store.records import to_json
from gatewright_host.store.tables import api_keys, experiments, revisions
from gatewright_host.store.tables import models as model_rows
from gatewright_host.store.upserts import insertion
from gatewright_host.store.vocabulary import Conflict, Missing

logger: Final = logging.getLogger("gatewright.store")

_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 6


def models(connection: Connection) -> tuple[RegisteredModel, ...]:
    """All registered models, by name; one that this version cannot read is left out, and the log says so."""
    found = []
    for row in connection.execute(select(model_rows).order_by(model_rows.c.name)):
        place = Place(f"registered model {row.name!r}")
        model = read_registered_model(msgspec.json.decode(row.body_json), place)
        if model is None or place.problems:
            logger.warning("%s; it is left out", "; ".join(place.problems))
        else:
            found.append(model)
    return tuple(found)


def create_model(connection: Connection, model: RegisteredModel, now_s: float) -> None:
    """See `Store.create_model`."""
    row = insertion(connection, model_rows).values(
        name=model.name,
        body_json=to_json(registered_model_to_plain(model)),
        created_s=now_s,
        updated_s=now_s,
    )
    made = row.on_conflict_do_nothing().returning(model_rows.c.name)
    if connection.execute(made).first() is None:
        raise Conflict(f"a model {model.name!r} is registered already")
    _revise(connection, MODELS)


def update_model(connection: Connection, model: RegisteredModel, now_s: float) -> None:
    """See `Store.update_model`."""
    changed = connection.execute(
        update(model_rows)
        .where(model_rows.c.name == model.name)
        .values(body_json=to_json(registered_model_to_plain(model)), updated_s=now_s)
    )
    if changed.rowcount == 0:
        raise Missing(f"no model {model.name!r} is registered")
    _revise(connection, MODELS)


def delete_model(connection: Connection, name: str) -> None:
    """See `Store.delete_model`."""
    if connection.execute(delete(model_rows).where(model_rows.c.name == name)).rowcount == 0:
        raise Missing(f"no model {name!r} is registered")
    _revise(connection, MODELS)


def keys(connection: Connection) -> tuple[StoredKey, ...]:
    """All API keys, the oldest first."""
    rows = connection.execute(select(api_keys).order_by(api_keys.c.created_s, api_keys.c.id))
    return tuple([_key(row.id, row.hash, row.prefix, row.created_s, row.facts_json) for row in rows])


def create_key(connection: Connection, request: KeyRequest, now_s: float) -> tuple[str, StoredKey]:
    """See `Store.create_key`."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    key = StoredKey.make(f"key_{secrets.token_hex(_ID_BYTES)}", secret, request, now_s)
    connection.execute(
        insert(api_keys).values(
            id=key.id,
            name=key.name,
            hash=key.hash,
            prefix=key.prefix,
            facts_json=to_json(key.request),
            created_s=key.created_s,
            expires_s=key.expires_s,
        )
    )
    _revise(connection, KEYS)
    return secret, key


def update_key(connection: Connection, key_id: str, request: KeyRequest) -> StoredKey:
    """See `Store.update_key`."""
    row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).first()
    if row is None:
        raise Missing(f"there is no API key {key_id!r}")
    key = _key(row.id, row.hash, row.prefix, row.created_s, row.facts_json).changed(request)
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id)
        .values(name=key.name, facts_json=to_json(key.request), expires_s=key.expires_s)
    )
    _revise(connection, KEYS)
    return key


def delete_key(connection: Connection, key_id: str) -> None:
    """See `Store.delete_key`."""
    if connection.execute(delete(api_keys).where(api_keys.c.id == key_id)).rowcount == 0:
        raise Missing(f"there is no API key {key_id!r}")
    _revise(connection, KEYS)


def experiment_states(connection: Connection) -> tuple[ExperimentState, ...]:
    """What was done to experiments by hand, by name."""
    rows = connection.execute(select(experiments.c.state_json).order_by(experiments.c.name)).scalars()
    return tuple([msgspec.json.decode(text, type=ExperimentState) for text in rows])


def set_experiment_state(connection: Connection, state: ExperimentState, now_s: float) -> None:
    """See `Store.set_experiment_state`."""
    values = {"state_json": to_json(state), "updated_s": now_s}
    connection.execute(
        insertion(connection, experiments)
        .values(name=state.experiment, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )
    _revise(connection, EXPERIMENTS)


def _key(key_id: str, hashed: str, prefix: str, created_s: float, text: str) -> StoredKey:
    request = msgspec.json.decode(text, type=KeyRequest)
    return StoredKey(id=key_id, hash=hashed, prefix=prefix, created_s=created_s, name="").changed(request)


def _revise(connection: Connection, topic: str) -> None:
    """Tell the others; last in a transaction, since on PostgreSQL it keeps others from changing the same."""
    connection.execute(
        insertion(connection, revisions)
        .values(topic=topic, revision=1)
        .on_conflict_do_update(index_elements=["topic"], set_={"revision": revisions.c.revision + 1})
    )
