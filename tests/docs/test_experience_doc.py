"""docs/experience.md says what is: its configurations load, its figures are those of the code."""

import re
from pathlib import Path

import pytest

from gatewright.accounting.experience import HALF_LIFE_S, STRENGTH, Experience
from gatewright.accounting.experiments import ExperimentBook, ExperimentReport, report
from gatewright.accounting.outcomes import ModelOutcome
from gatewright.accounting.pooling import transfer
from gatewright.accounting.recent import MOST_REQUESTS
from gatewright.accounting.tallies import BIN_RATIO
from gatewright.configuration.schema import read_config
from gatewright.route_config import ArmConfig, ExperimentConfig
from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.decision import Exploration
from gatewright.selection.values import exponent_of
from gatewright_host.lua_config import load_lua

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "experience.md").read_text(encoding="utf-8")
WORDS = " ".join(DOC.split())
EXAMPLES = re.findall(r"```lua\n(.*?)```", DOC, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_configurations_load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gatewright.lua"
    path.write_text(text)
    routes = read_config(load_lua(path)).routes
    assert any(route.exploration is Exploration.THOMPSON for route in routes)
    for route in routes:
        experiment = route.experiment
        assert (experiment is not None) == ("experiment" in text)
        if experiment is not None:
            assert [arm.share for arm in experiment.arms] in ([0.5, 0.5], [0.9, 0.1])


def test_constants_are_those_of_the_code() -> None:
    assert f"worth {STRENGTH:g} outcomes" in WORDS
    assert f"half of its weight in {HALF_LIFE_S / 86_400:g} days" in WORDS
    assert f"its last {MOST_REQUESTS:,} requests" in WORDS
    assert "Of each model 256 tasks" in WORDS
    assert "right within 5 %" in WORDS
    assert abs(BIN_RATIO - 1.05**2) < 0.01
    assert [exponent_of(each) for each in (TaskComplexity.MODERATE, TaskComplexity.EXPERT)] == [1, 4]
    assert exponent_of(TaskComplexity.TRIVIAL) == 0.25


def test_tasks_beyond_the_said_number_make_way() -> None:
    experience = Experience()
    for number in range(300):
        experience.learn(
            ModelOutcome(request_id=f"r{number}", model="m", success=True, at=0.0, task=f"t{number}")
        )
    assert len(experience.tasks("m")) == 256


def test_the_belief_is_the_formula() -> None:
    assert "belief = (6 * belief of the level before + successes here) / (6 + outcomes here)" in DOC
    experience = Experience()
    for number in range(10):
        experience.learn(
            ModelOutcome(
                request_id=f"r{number}",
                model="m",
                success=number < 4,
                at=0.0,
                task="a" if number < 6 else "b",
                complexity=TaskComplexity.SIMPLE,
            )
        )
    at_complexity = (6 * 0.7 + 0) / (6 + 4)
    at_task = (6 * at_complexity + 4) / (6 + 6)
    assert experience.success("m", "a", TaskComplexity.SIMPLE, 0.7, 0.0).mean == pytest.approx(at_task)


def test_easy_tasks_say_of_hard_ones_what_is_said() -> None:
    assert "does 97 of 100 trivial tasks is so believed to do about 60 of 100 expert ones" in WORDS
    assert transfer(0.7, STRENGTH, 4.0, [(0.25, 10_000.0, 9700.0)]) == pytest.approx(0.6, abs=0.03)


def shown() -> ExperimentReport:
    config = ExperimentConfig(
        name="terse-prompt", arms=(ArmConfig(name="control", share=0.5), ArmConfig(name="terse", share=0.5))
    )
    book = ExperimentBook()
    for arm, successes in (("control", 540), ("terse", 648)):
        for number in range(900):
            outcome = ModelOutcome(
                request_id=f"{arm}{number}",
                model="m",
                success=number < successes,
                at=0.0,
                experiment=config.name,
                arm=arm,
            )
            book.learn(outcome)
    return report(config, book, None)


def test_the_report_is_what_these_outcomes_give() -> None:
    found = shown()
    for arm in found.arms:
        (row,) = re.findall(rf"^{arm.name} +(.*)$", DOC, re.MULTILINE)
        assert arm.success is not None
        figures = [
            f"{share * 100:.1f} %" for share in (arm.share, arm.success, arm.success_low, arm.success_high)
        ]
        if arm.effect is not None:
            figures += [f"{arm.effect.difference * 100:.1f} %", f"{arm.effect.e_value:.1f}"]
        for figure in (*figures, str(arm.units), arm.verdict):
            assert figure in row, row
    assert f"`{found.verdict}`" in DOC
    assert found.effect is not None
    assert found.effect.needed == 20
