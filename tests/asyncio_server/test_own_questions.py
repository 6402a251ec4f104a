"""What gw-server asks models on its own behalf holds its end up no longer than its clients' requests do."""

from tests.support.gateway import Gateway
from tests.support.silent_model import AT_ONCE_S, ROUTES, SilentModel


def test_a_judge_that_is_being_asked_is_given_up() -> None:
    silent = SilentModel()
    with silent.running() as models, Gateway(*models, more=ROUTES) as gateway:
        assert silent.end_while_judged(gateway) < AT_ONCE_S
        assert gateway.log.count("not judged: ") == 1


def test_an_estimator_that_is_being_asked_is_given_up_and_its_request_served() -> None:
    silent = SilentModel()
    with silent.running() as models, Gateway(*models, more=ROUTES) as gateway:
        status, seconds = silent.end_while_estimated(gateway)
        assert status == 200
        assert seconds < AT_ONCE_S
