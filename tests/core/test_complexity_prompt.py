import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.selection.complexity import TaskComplexity
from gatewright.selection.complexity_prompt import SHOWN_CHARACTERS, estimation_messages, read_estimation


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ('{"complexity": "moderate", "reason": "two steps"}', "moderate"),
        ('```json\n{"complexity": "Expert"}\n```', "expert"),
        ('Sure! {"level": " hard "} Hope that helps.', "complex"),
        ('{"other": 1} {"difficulty": "easy"}', "simple"),
        ("complex", "complex"),
        ("**Trivial.**", "trivial"),
        ("I would call this request EXPERT, since it needs a proof.", "expert"),
        ("This is not simple; it is complex.", "complex"),
        ("<think>simple? or expert? hmm</think>\nmoderate", "moderate"),
        ("0.95", "expert"),
        ('{"score": 0.1}', "trivial"),
        ('{"complexity": 0.5}', "moderate"),
    ],
)
def test_an_answer_is_understood(answer, level):
    estimate = read_estimation(answer)
    assert estimate is not None
    assert estimate.complexity is TaskComplexity(level)
    assert estimate.estimator == "model"
    assert 0 <= estimate.score <= 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot tell.",
        "simple or complex",
        "trivial, simple, moderate, complex, expert",
        "7",
        '{"complexity": 4}',
        '{"complexity": true}',
        '{"complexity": null}',
        "<think>it may be complex",
        "not simple",
        "{" * 10_000,
    ],
)
def test_an_answer_that_names_no_level_or_several_is_none(answer):
    assert read_estimation(answer) is None


def test_the_reason_is_kept_as_one_short_line():
    estimate = read_estimation('{"complexity": "simple", "reason": "one\\n  step ' + "x" * 1000 + '"}')
    assert estimate is not None
    assert estimate.reason.startswith("one step x")
    assert len(estimate.reason) <= 200


def test_prose_is_trusted_less_than_an_answer_in_form():
    formal, prose = read_estimation('{"complexity": "complex"}'), read_estimation("It looks complex to me")
    assert formal is not None
    assert prose is not None
    assert formal.confidence > prose.confidence


@given(st.text() | st.text(alphabet='{}":simplexert01. ', max_size=60))
def test_no_answer_raises(answer):
    estimate = read_estimation(answer)
    assert estimate is None or 0 <= estimate.score <= 1


def test_the_messages_hold_the_task_and_the_text():
    system, user = estimation_messages("extract", "Who wrote this?")
    assert system["role"] == "system"
    assert all(level.value in system["content"] for level in TaskComplexity)
    assert "Task: extract" in user["content"]
    assert "Who wrote this?" in user["content"]
    assert "Task:" not in estimation_messages("", "hi")[1]["content"]


def test_of_a_long_text_both_ends_are_shown():
    user = estimation_messages("", "BEGIN" + "x" * 100_000 + "END")[1]["content"]
    assert "BEGIN" in user
    assert "END" in user
    assert len(user) < SHOWN_CHARACTERS + 200
