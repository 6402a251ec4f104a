"""Further models for the server's tests."""

from pathlib import Path

import pytest

from tests.support.tiny_models import build_tiny_model


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 200 tokens a second, so that there is time to do something to an answer."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "slow.gguf", name="slow", slow=True)


@pytest.fixture(scope="session")
def embedding_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(
        tmp_path_factory.mktemp("models") / "embedder.gguf", name="embedder", embedding=True
    )
