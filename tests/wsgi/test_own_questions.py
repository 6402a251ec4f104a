"""What a worker asks models on its own behalf holds its end up no longer than its clients' requests do."""

from pathlib import Path

import pytest

from tests.support.gunicorn import GunicornGateway
from tests.support.silent_model import AT_ONCE_S, ROUTES, SilentModel

CONF = Path(__file__).parents[2] / "deploy" / "gunicorn.conf.py"


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_a_judge_that_is_being_asked_is_given_up(worker_class: str) -> None:
    silent = SilentModel()
    with (
        silent.running() as models,
        GunicornGateway(*models, more=ROUTES, workers=1, worker_class=worker_class) as gateway,
    ):
        assert silent.end_while_judged(gateway) < AT_ONCE_S


def test_an_estimator_that_is_being_asked_is_given_up_and_its_request_served() -> None:
    silent = SilentModel()
    with (
        silent.running() as models,
        GunicornGateway(*models, more=ROUTES, workers=1, args=("--config", str(CONF))) as gateway,
    ):
        status, seconds = silent.end_while_estimated(gateway)
        assert status == 200
        assert seconds < AT_ONCE_S
