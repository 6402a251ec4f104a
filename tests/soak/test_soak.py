"""A minute of mixed traffic with faults, over all transports; `benchmarks/soak.py` does it for as long as one likes."""

import tempfile
from pathlib import Path

import pytest

from tests.soak.soak import TRANSPORTS, soak
from tests.soak.traffic import Models

SECONDS = 60.0


@pytest.mark.engine
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_answer_is_right_and_nothing_is_left(
    transport: str, tiny_model: Path, tiny_model_b: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="gws") as directory:
        report = soak(transport, SECONDS / len(TRANSPORTS), Models(tiny_model, tiny_model_b), Path(directory))
    print(report)
    assert report.problems == []
    seen = {scenario for scenario, _ in report.tally.kinds}
    assert {
        "good provider",
        "failing provider",
        "engine",
        "route",
        "budget",
        "leaves a stream",
        "nonsense",
    } <= seen
