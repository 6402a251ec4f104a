from typing import Any

import pytest

from gatewright.api.transforms import Transform
from gatewright.errors import ConfigError
from gatewright.route_config import (
    ArmConfig,
    EstimatorConfig,
    EstimatorKind,
    ExperimentConfig,
    Sticky,
)
from gatewright.selection.criteria import WEIGHTS, Prefer
from tests.support.routes import only_problem, read, route


def arms(*arms: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "trial", "arms": list(arms), **fields}


A, B, C = {"name": "a"}, {"name": "b"}, {"name": "c"}


def test_an_experiment():
    found = route(
        experiment=arms(
            {"name": "a", "share": 0.8},
            {
                "name": "b",
                "share": 0.2,
                "candidates": ["gpt"],
                "prefer": "speed",
                "estimator": "none",
                "transform": {"merge_system": True},
            },
            sticky="session",
            alpha=0.1,
            min_success=0.6,
            min_requests=20,
            auto_promote=True,
        )
    ).experiment
    assert found == ExperimentConfig(
        name="trial",
        arms=(
            ArmConfig(name="a", share=0.8),
            ArmConfig(
                name="b",
                share=0.2,
                candidates=("big",),
                weights=WEIGHTS[Prefer.SPEED],
                estimator=EstimatorConfig(kind=EstimatorKind.NONE),
                transform=Transform(merge_system=True),
            ),
        ),
        sticky=Sticky.SESSION,
        alpha=0.1,
        min_success=0.6,
        min_requests=20,
        auto_promote=True,
    )


def test_arms_without_shares_have_equal_ones():
    found = route(experiment=arms(A, B, C)).experiment
    assert found is not None
    assert [arm.share for arm in found.arms] == [1 / 3] * 3


def test_shares_that_are_rounded_make_a_whole():
    found = route(experiment=arms(*({**arm, "share": 0.3333} for arm in (A, B, C)))).experiment
    assert found is not None
    assert sum(arm.share for arm in found.arms) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("experiment", "problem"),
    [
        (arms(A), "arms: 1 arms; expected at least 2: a comparison has two sides"),
        (arms(A, A), 'arms[2].name: "a" is already the name of another arm'),
        (arms({**A, "share": 0.5}, {**B, "share": 0.4}), "arms: the shares add up to 0.9; expected 1"),
        (arms({**A, "share": 0.5}, B), "arms[2].share: missing; expected a share for every arm, or for none"),
        (
            arms({**A, "share": 1}, B),
            "arms[1].share: got 1, expected a share of the traffic above 0, below 1",
        ),
        (arms(A, B, alpha=0), "alpha: got 0, expected a chance above 0, at most 0.5"),
        (
            arms(A, {"share": 0.5}),
            "arms[2].name: missing; expected a name of 1 to 200 printable characters, without spaces around it",
        ),
        (
            {"arms": [A, B]},
            "name: missing; expected a name of 1 to 200 printable characters, without spaces around it",
        ),
    ],
)
def test_experiments_that_are_not_allowed(experiment, problem):
    assert only_problem(experiment=experiment) == f"routes.auto.experiment.{problem}"


def test_names_of_experiments_are_unique():
    with pytest.raises(ConfigError) as caught:
        read(one={"experiment": arms(A, B)}, two={"experiment": arms(A, B)})
    assert caught.value.problems == (
        'routes.two.experiment.name: "trial" is already taken by routes.one.experiment.name',
    )
