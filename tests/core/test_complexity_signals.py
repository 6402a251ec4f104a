import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.selection.complexity_heuristic import estimate_complexity
from gatewright.selection.complexity_scan import SCANNED_CHARACTERS, excerpt, name_words, scan
from gatewright.selection.complexity_words import KINDS_BY_WORD, WordKind, task_words
from gatewright.selection.signals import PromptSignals, signals_of_text


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def signals(text: str) -> PromptSignals:
    return signals_of_text("", "", {"prompt": text})


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("Why is that? Prove it.", "reasoning_cues"),
        ("First wash it, then dry it, finally fold it.", "steps"),
        ("1. wash\n2. dry\n3. fold", "steps"),
        ("def f(x):\n    return {x: x}", "code"),
        ("Compute 3 + 4 * 12 as a percentage.", "mathematics"),
        ("Is the plaintiff's enzyme a ligand?", "terms"),
        ("Answer in exactly three sentences, as a table.", "constraints"),
    ],
)
def test_signs_are_found(text, sign):
    plain = signals("The cat sat on a mat in the sun")
    assert getattr(plain, sign) == 0
    assert getattr(signals(text), sign) >= 2


def test_a_word_counts_once():
    assert signals("prove " * 500).reasoning_cues == 1


def test_words_count_in_capitals_too():
    assert signals("PROVE the Theorem").reasoning_cues == signals("prove the theorem").reasoning_cues == 1


@given(st.text(), st.text(), st.dictionaries(st.text(), values))
def test_no_input_raises(name, description, inputs):
    assert 0 <= estimate_complexity(signals_of_text(name, description, inputs)).score <= 1


def test_values_that_are_nested_in_themselves_or_cannot_be_printed_are_taken_as_far_as_they_go():
    endless: list[object] = ["abc"]
    endless.append(endless)
    found = signals_of_text("", "", {"a": endless, "b": Unprintable()})
    assert found.inputs == 2
    assert found.text_characters >= 3


def test_inputs_are_counted_and_measured_to_their_leaves():
    found = signals_of_text("t", "", {"a": "abc", "b": ["de", {"x": "f"}], "c": 12, "d": None})
    assert found.inputs == 4
    assert found.text_characters == 8
    assert found.task == "t"


def test_a_task_without_inputs_has_one():
    assert signals_of_text("t", "Do it.", {}).inputs == 1


def test_the_words_of_a_name_are_found_however_it_is_written():
    assert name_words("plan_multiStep") == ["plan", "multi", "step"]
    assert name_words("analyzeHTTPLog-v2") == ["analyze", "http", "log", "v"]


def test_easy_words_count_against_hard_ones():
    assert task_words(["analyze", "plan", "plan"]) == 2
    assert task_words(["format"]) == -1
    assert task_words(["format", "analyze"]) == 0


def test_of_long_texts_the_beginning_and_the_end_are_looked_at():
    filler = "x " * SCANNED_CHARACTERS
    assert scan(excerpt((f"prove it {filler}",))).reasoning_cues == 1
    assert scan(excerpt((f"{filler} prove it",))).reasoning_cues == 1
    assert scan(excerpt((f"{filler} prove it {filler}",))).reasoning_cues == 0


@given(st.lists(st.text(alphabet="ab", max_size=30)), st.integers(2, 40))
def test_an_excerpt_has_no_more_characters_than_allowed_and_keeps_both_ends(pieces, longest):
    whole = "".join(pieces)
    kept = excerpt(pieces, longest).replace("\n", "")
    if len(whole) <= longest:
        assert kept == whole
    else:
        assert len(kept) == longest
        assert kept == whole[: longest // 2] + whole[-(longest - longest // 2) :]


@pytest.mark.parametrize("text", ["\t" * 10**6, "(" * 10**6, "1," * 10**6, "\n- " * 10**6, "a" * 10**6])
def test_no_text_makes_a_pattern_go_back_and_forth(text):
    assert signals(text).text_characters == len(
        text
    )  # takes 1 ms; a pattern that backtracks would take hours


def test_every_kind_has_words_and_all_are_plain():
    assert set(KINDS_BY_WORD.values()) == set(WordKind)
    assert all(
        word.isascii() and word.isalpha() and word.islower() and len(word) > 1 for word in KINDS_BY_WORD
    )
