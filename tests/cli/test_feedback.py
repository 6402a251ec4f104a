"""`gw-cli feedback`: saying how good an answer was."""

import pytest

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
