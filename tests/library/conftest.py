from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewright_library import ExperienceStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExperienceStore]:
    with ExperienceStore(tmp_path) as opened:
        yield opened
