import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.judging import SHOWN_CHARACTERS, judging_body, judging_messages, read_verdict


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": 0.8, "reason": "right"}', 0.8),
        ('{"score": 1}', 1.0),
        ('Sure! Here it is:\n```json\n{"score": 0, "reason": "empty"}\n```', 0.0),
        ("Score: 7/10", 0.7),
        ("score = 85%", 0.85),
        ("0.5", 0.5),
        (" 1. ", 1.0),
        ('I first thought {"score": 0.2}, but finally {"score": 0.9}', 0.9),
    ],
)
def test_a_verdict_is_found_in_whatever_stands_around_it(answer, score):
    assert read_verdict(answer) == pytest.approx(score)


@pytest.mark.parametrize("answer", ["", "good", "2", "score: 7", "score: 12/10", "score: 3/0", "-1"])
def test_what_is_no_score_is_none(answer):
    assert read_verdict(answer) is None


@given(st.text())
def test_any_text_is_a_score_or_none(answer):
    score = read_verdict(answer)
    assert score is None or 0 <= score <= 1


def test_the_judge_sees_question_answer_and_what_counts():
    rules, shown = judging_messages("What is 2+2?", "4", "Be terse.")
    assert "Be terse." in rules["content"]
    assert "What is 2+2?" in shown["content"]
    assert "\n4\n" in shown["content"]


def test_long_texts_are_shown_by_their_beginnings_and_ends():
    text = "b" + "x" * 3 * SHOWN_CHARACTERS + "e"
    shown = judging_messages(text, text)[1]["content"]
    assert len(shown) < 2 * SHOWN_CHARACTERS + 200
    assert "<question>\nbx" in shown
    assert "xe\n</question>" in shown


def test_the_request_is_one_that_any_engine_understands():
    body = json.loads(judging_body("tiny", "q", "a"))
    assert (body["model"], body["temperature"], len(body["messages"])) == ("tiny", 0, 2)
