"""One running gateway for each transport; all tests of it run before the next one is started."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.choosing import Choosing, choosing
from tests.conformance.differences import DIFFERENCES
from tests.conformance.transports import TRANSPORTS, Models, World, running
from tests.support.tiny_models import build_tiny_model


@pytest.fixture(scope="session")
def models(tiny_model: Path, tiny_model_b: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    directory = tmp_path_factory.mktemp("conformance")
    return Models(
        tiny=tiny_model,
        other=tiny_model_b,
        slow=build_tiny_model(directory / "slow.gguf", name="slow", slow=True),
        embedder=build_tiny_model(directory / "embedder.gguf", name="embedder", embedding=True),
        reranker=build_tiny_model(directory / "reranker.gguf", name="reranker", rerank=True),
    )


@pytest.fixture(scope="session", params=TRANSPORTS)
def world(request: pytest.FixtureRequest, models: Models) -> Iterator[World]:
    with running(request.param, models) as started:
        yield started


@pytest.fixture(scope="session", params=TRANSPORTS, name="choosing")
def choosing_world(request: pytest.FixtureRequest) -> Iterator[Choosing]:
    with choosing(request.param) as started:
        yield started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or not call.params.keys() & {"world", "choosing"}:
            continue
        transport = call.params.get("world") or call.params["choosing"]
        check = call.params.get("check")
        name = check.name if check is not None else getattr(item, "originalname", item.name)
        reason = DIFFERENCES.get((transport, name))
        if reason is not None:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
