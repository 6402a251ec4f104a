"""What counts as a task, and what is read of it."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from gatewright_library.tasks import (
    as_inputs,
    count_tokens,
    prompt_tokens,
    render_inputs,
    task_description,
    task_name,
)


@dataclass
class Spec:
    name: str
    docstring: str


def summarize(text: str) -> str:
    """Summarize a text
    in one sentence.
    """
    return text


class Callable_:  # noqa: N801
    """Of the class."""

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("task", "name", "description"),
    [
        ("extract", "extract", ""),
        (Spec("extract", "Extract values"), "extract", "Extract values"),
        (SimpleNamespace(name="extract", description="Get them"), "extract", "Get them"),
        (SimpleNamespace(name="extract", docstring="", description="Get them"), "extract", "Get them"),
        (SimpleNamespace(name="extract"), "extract", ""),
        (summarize, "summarize", "Summarize a text\nin one sentence."),
        (Callable_, "Callable_", "Of the class."),
        (SimpleNamespace(name=3), "SimpleNamespace", ""),
        (lambda: None, "<lambda>", ""),
    ],
)
def test_tasks_have_a_name_and_words(task, name, description):
    assert task_name(task) == name
    assert task_description(task) == description


def test_what_a_class_says_of_itself_is_not_what_its_instances_ask_for():
    assert task_description(Spec("extract", "")) == ""


def test_inputs_have_names():
    assert as_inputs(None) == {}
    assert as_inputs({"a": 1}) == {"a": 1}
    assert as_inputs("text") == {"input": "text"}


def test_one_input_is_shown_as_it_is_and_several_by_name():
    assert render_inputs(None) == ""
    assert render_inputs({"text": "hello"}) == "hello"
    assert render_inputs({"rows": [1, {"a": None}]}) == '[1,{"a":null}]'
    assert render_inputs({"a": "x", "b": 2}) == "a:\nx\n\nb:\n2"


def test_inputs_of_any_kind_can_be_shown():
    loop: list[object] = []
    loop.append(loop)
    for value in (object(), {1: object()}, float("nan"), loop, b"bytes", {(1, 2): 3}):
        assert isinstance(render_inputs({"value": value}), str)


def test_tokens_are_counted_roughly_and_never_as_nothing():
    assert count_tokens("") == 0
    assert count_tokens("a") == 1
    assert count_tokens("word" * 100) == 100
    assert count_tokens("ü" * 100) == 50
    assert count_tokens("\ud800") == 1
    assert prompt_tokens(Spec("n", "d" * 40), {"text": "t" * 80}) == 30
