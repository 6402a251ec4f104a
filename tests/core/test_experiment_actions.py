import pytest

from gatewright.accounting.experiment_actions import ExperimentAction, act
from gatewright.errors import InvalidRequest, NameTaken
from gatewright.route_config import ArmConfig, ExperimentConfig, ExperimentState

TRIAL = ExperimentConfig(name="trial", arms=tuple([ArmConfig(name=name, share=1 / 3) for name in "abc"]))


def state(promoted: str | None = None, stopped: str = "", *, is_ended: bool = False) -> ExperimentState:
    return ExperimentState(experiment="trial", promoted=promoted, stopped=tuple(stopped), is_ended=is_ended)


@pytest.mark.parametrize(
    ("before", "action", "arm", "after"),
    [
        (None, "stop", "b", state(stopped="b")),
        (state(stopped="c"), "stop", "a", state(stopped="ac")),
        (state(stopped="b"), "stop", "b", state(stopped="b")),
        (None, "promote", "b", state("b")),
        (state("a", "c"), "promote", "b", state("b", "c")),
        (state("a", "c"), "end", None, state("a", "c", is_ended=True)),
        (state("a", "bc"), "resume", "b", state("a", "c")),
        (state("a", "bc"), "resume", "a", state(None, "bc")),
        (state("a", "bc", is_ended=True), "resume", None, state()),
        (None, "resume", "a", state()),
    ],
)
def test_what_is_done_by_hand(before, action, arm, after):
    assert act(TRIAL, before, ExperimentAction(action), arm) == after


@pytest.mark.parametrize(
    ("before", "action", "arm"),
    [
        (state(stopped="ab"), "stop", "c"),
        (state("a"), "stop", "a"),
        (state(stopped="a"), "promote", "a"),
    ],
)
def test_what_makes_no_sense_is_refused(before, action, arm):
    with pytest.raises(NameTaken):
        act(TRIAL, before, ExperimentAction(action), arm)


@pytest.mark.parametrize(("action", "arm"), [("stop", None), ("promote", None), ("stop", "z"), ("end", "z")])
def test_an_arm_has_to_be_one(action, arm):
    with pytest.raises(InvalidRequest, match="arm: ") as caught:
        act(TRIAL, None, ExperimentAction(action), arm)
    assert caught.value.problem.param == "arm"
