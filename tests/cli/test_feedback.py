"""`gw-cli feedback`: saying how good an answer was."""

import pytest

from gatewright_host.metrics import Metrics
from gatewright_host.state_dir import StateDir
from tests.cli.conftest import InProcess
from tests.cli.figures import fill, open_store

REQUEST = "req_000007"


@pytest.mark.parametrize(
    ("said", "score"), [(("--success",), 1.0), (("--failure",), 0.0), (("--score", "0.25"), 0.25)]
)
def test_it_is_kept_and_the_latest_counts(quick: InProcess, said: tuple[str, ...], score: float) -> None:
    fill(quick, 20)
    assert quick.run("feedback", REQUEST, "--score", "0.5").code == 0
    done = quick.run("feedback", REQUEST, *said, "--comment", "as I see it", "--by", "me")
    assert (done.code, done.out, done.err) == (0, f"{REQUEST}: {score:g}\n", "")
    with open_store(quick) as store:
        found = store.find_request(REQUEST)
    assert found is not None
    last = found.feedback[-1]
    assert (last.score, last.comment, last.by) == (score, "as I see it", "me")


def test_it_counts_once_in_the_figures_of_the_servers(quick: InProcess) -> None:
    fill(quick, 20)
    server = Metrics(StateDir.at(quick.directory / "state"))
    try:
        assert quick.run("feedback", REQUEST, "--score", "0.5").code == 0
        assert quick.run("feedback", "req_x", "--success").code == 1
        with open_store(quick) as store:
            found = store.find_request(REQUEST)
        assert found is not None
        for _ in range(2):  # looking adds nothing
            shown = server.render()[1].decode()
            assert f'gatewright_feedback_score_count{{model="{found.record.model}"}} 1.0\n' in shown
            assert f'gatewright_feedback_score_sum{{model="{found.record.model}"}} 0.5\n' in shown
        assert quick.run("feedback", REQUEST, "--score", "1").code == 0
        assert f'_count{{model="{found.record.model}"}} 2.0\n' in server.render()[1].decode()
    finally:
        server.close()


def test_a_request_that_is_not_recorded_fails(quick: InProcess) -> None:
    done = quick.run("feedback", "req_x", "--success")
    assert (done.code, done.err) == (1, "gw-cli: nothing is recorded yet\n")
    open_store(quick).close()
    done = quick.run("feedback", "req_x", "--success")
    assert (done.code, done.err) == (1, "gw-cli: no request 'req_x' is recorded\n")


@pytest.mark.parametrize(
    "said",
    [
        (),
        ("--success", "--score", "1"),
        ("--score", "2"),
        ("--failure", "--score", "0"),
        ("--success", "--failure"),
    ],
)
def test_one_thing_is_to_be_said(quick: InProcess, said: tuple[str, ...]) -> None:
    done = quick.run("feedback", "req_x", *said)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
