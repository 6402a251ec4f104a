"""Checks of the list of models."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from gatewright_cli.verification.check import Checks, Need, Probe
from gatewright_cli.verification.outcome import Skipped, document_of, expect, expect_status

checks = Checks()


def listed_models(probe: Probe) -> list[dict[str, Any]]:
    """The models that the gateway lists.

    Raises:
        Failed: It lists none, or not in OpenAI's format.
    """
    answer = probe.client.get("/v1/models")
    expect_status(answer, (HTTPStatus.OK,), "200 and a list of models")
    document = document_of(answer)
    models = document.get("data")
    expect(
        isinstance(models, list) and all(isinstance(model, dict) for model in models),
        'a list of objects as "data"',
        document,
    )
    assert isinstance(models, list)  # just seen
    return models


@checks.check("models", "GET /v1/models lists models, each with an id", Need.ACCESS)
def _list(probe: Probe) -> None:
    models = listed_models(probe)
    expect(models, "one model at least", models)
    ids = [model.get("id") for model in models]
    expect(all(isinstance(name, str) and name for name in ids), "a name as id of each", ids)
    expect(len(set(ids)) == len(ids), "each id once", ids)


@checks.check("model", "GET /v1/models/ID describes one model", Need.CHAT_MODEL)
def _one(probe: Probe) -> None:
    known = [model["id"] for model in listed_models(probe) if isinstance(model.get("id"), str)]
    if not known:
        raise Skipped("no models are listed")
    name = probe.model if probe.model in known else known[0]
    answer = probe.client.get(f"/v1/models/{quote(name, safe='')}")
    expect_status(answer, (HTTPStatus.OK,), "200 and the model")
    document = document_of(answer)
    expect(document.get("id") == name, f"the model {name}", document)
