"""Checks of embeddings."""

import base64
import math
import struct
from http import HTTPStatus
from typing import Any, Final

from gatewright_cli.verification.check import Checks, Need, Probe
from gatewright_cli.verification.outcome import (
    Failed,
    Skipped,
    document_of,
    expect,
    expect_status,
    shown,
)

checks = Checks()

_PATH: Final = "/v1/embeddings"
_TEXTS: Final = ["A cat sat on the mat.", "Quarterly revenue rose.", "Ein Satz mit Umläuten: äöü"]
_CLOSE: Final = 1e-2
"""Engines compute in batches, and not to the last bit."""


def _embed(probe: Probe, texts: object, **members: Any) -> list[Any]:
    body = {"model": probe.embedding_model, "input": texts, **members}
    answer = probe.client.post(_PATH, body)
    if members and answer.status == HTTPStatus.BAD_REQUEST:
        raise Skipped(f"refused: {shown(answer.body)}")
    expect_status(answer, (HTTPStatus.OK,), "200 and embeddings")
    document = document_of(answer)
    data = document.get("data")
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        raise Failed('a list of objects as "data"', shown(document))
    wanted = list(range(len(texts) if isinstance(texts, list) else 1))
    indices = [one.get("index") for one in data]
    expect(indices == wanted, f"the indices {wanted}", indices)
    return [one.get("embedding") for one in data]


def _are_close(one: list[float], other: list[float]) -> bool:
    size = math.sqrt(sum(x * x for x in one)) or 1.0
    return len(one) == len(other) and math.dist(one, other) <= _CLOSE * size


@checks.check("embeddings", "each text gets a vector, all of one length", Need.EMBEDDING_MODEL)
def _vectors(probe: Probe) -> None:
    vectors = _embed(probe, _TEXTS)
    for vector in vectors:
        expect(
            isinstance(vector, list) and vector and all(isinstance(x, int | float) for x in vector),
            "a list of numbers",
            vector,
        )
    lengths = [len(vector) for vector in vectors]
    expect(len(set(lengths)) == 1, "vectors of one length", lengths)
    expect(vectors[0] != vectors[1], "other vectors for other texts", "the same")


@checks.check("embeddings-order", "a text has the same vector alone and among others", Need.EMBEDDING_MODEL)
def _order(probe: Probe) -> None:
    together = _embed(probe, _TEXTS)
    alone = _embed(probe, _TEXTS[1])[0]
    expect(_are_close(together[1], alone), "the same vector", "another")


@checks.check("embeddings-base64", "encoding_format base64 means the same numbers", Need.EMBEDDING_MODEL)
def _base64(probe: Probe) -> None:
    plain = _embed(probe, _TEXTS[0])[0]
    coded = _embed(probe, _TEXTS[0], encoding_format="base64")[0]
    if not isinstance(coded, str):
        raise Failed("a text in base64", shown(coded))
    data = base64.b64decode(coded)
    numbers = list(struct.unpack(f"<{len(data) // 4}f", data[: len(data) // 4 * 4]))
    expect(_are_close(plain, numbers), "the same vector", "another")
