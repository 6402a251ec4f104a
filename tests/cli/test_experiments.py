"""`gw-cli experiments`: what arms have shown, and what is done about them."""

import csv
import io
import json

import pytest

from gatewright.route_config import ExperimentState
from tests.cli.conftest import InProcess
from tests.cli.figures import configure, fill, open_store


def states(quick: InProcess) -> dict[str, ExperimentState]:
    with open_store(quick) as store:
        return {state.experiment: state for state in store.experiment_states()}


def test_report_counts_each_request_once_in_its_arm(quick: InProcess) -> None:
    configure(quick)
    fill(quick, 200)
    rows = json.loads(quick.run("experiments", "report", "words", "--json").out)
    assert [row["arm"] for row in rows] == ["control", "terse"]
    assert sum(row["requests"] for row in rows) == 200
    for row in rows:
        assert 0 <= row["success_low"] <= row["success"] <= row["success_high"] <= 1
    assert rows[0]["difference"] is None
    assert rows[1]["difference_low"] <= rows[1]["difference"] <= rows[1]["difference_high"]
    text = quick.run("experiments", "report", "words").out
    assert text.splitlines()[-1] == "no difference shown yet"
    table = list(csv.DictReader(io.StringIO(quick.run("experiments", "report", "words", "--csv").out)))
    assert [row["arm"] for row in table] == ["control", "terse"]


def test_list_shows_how_each_stands(quick: InProcess) -> None:
    configure(quick)
    fill(quick, 20)
    (row,) = json.loads(quick.run("experiments", "list", "--json").out)
    assert (row["experiment"], row["route"], row["arms"]) == ("words", "auto", ["control", "terse"])
    assert (row["requests"], row["state"]) == (20, "running")
    quick.run("experiments", "promote", "words", "terse")
    assert json.loads(quick.run("experiments", "list", "--json").out)[0]["state"] == "promoted terse"
    quick.run("experiments", "end", "words")
    assert json.loads(quick.run("experiments", "list", "--json").out)[0]["state"] == "ended"


def test_what_is_done_by_hand_is_kept_and_taken_back(quick: InProcess) -> None:
    configure(quick)
    assert quick.run("experiments", "stop", "words", "terse").out == "stopped terse of words\n"
    assert states(quick)["words"].stopped == ("terse",)
    assert quick.run("experiments", "resume", "words", "terse").out == "resumed terse of words\n"
    assert states(quick)["words"].stopped == ()
    assert quick.run("experiments", "promote", "words", "terse").out == "terse of words gets all requests\n"
    assert states(quick)["words"].promoted == "terse"
    assert quick.run("experiments", "end", "words").out == "ended words\n"
    assert states(quick)["words"].is_ended
    assert quick.run("experiments", "resume", "words").out == "resumed words\n"
    assert states(quick)["words"] == ExperimentState(experiment="words")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("stop", "words", "loud"), "loud"),
        (("stop", "other", "terse"), "there is no experiment 'other'; experiments: words"),
        (("end", "other"), "there is no experiment 'other'"),
    ],
)
def test_names_that_there_are_not_are_refused(quick: InProcess, args: tuple[str, ...], said: str) -> None:
    configure(quick)
    done = quick.run("experiments", *args)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_the_last_arm_cannot_be_stopped(quick: InProcess) -> None:
    configure(quick)
    quick.run("experiments", "stop", "words", "terse")
    done = quick.run("experiments", "stop", "words", "control")
    assert (done.code, "last arm" in done.err) == (2, True)


def test_without_any_there_is_a_friendly_line(quick: InProcess) -> None:
    assert quick.run("experiments", "list").err == "nothing is recorded yet\n"
    open_store(quick).close()
    done = quick.run("experiments", "list")
    assert (done.code, done.out, done.err) == (0, "", "no route has an experiment\n")
