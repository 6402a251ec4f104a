"""Further models for the tests of the WSGI application."""

from pathlib import Path

import pytest

from tests.support.tiny_models import build_tiny_model


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 200 tokens a second, so that there is time to do something to an answer."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "slow.gguf", name="slow", slow=True)
