import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.selection.tokens import (
    CERTAIN_TOKENS_PER_BYTE,
    FEWEST_TOKENS_PER_BYTE,
    MEDIA_TOKENS,
    TEMPLATE_TOKENS_PER_MESSAGE,
    TokenEstimate,
    TokenEstimator,
    TokenRatio,
    exactly,
)
from tests.core.machines.build import chat


def taught(ratio: float, answers: int, size: int = 4000) -> TokenEstimator:
    estimator = TokenEstimator()
    for _ in range(answers):
        estimator.learn("qwen", chat(prompt_bytes=size), int(size * ratio))
    return estimator


def test_an_exact_count_is_an_interval_of_one():
    assert exactly(70) == TokenEstimate(70, 70, 70, 70)
    assert exactly(70).is_exact
    assert not TokenEstimate(69, 70, 71).is_exact


def test_an_unknown_text_has_a_wide_interval():
    estimate = TokenEstimator().estimate("qwen", chat(prompt_bytes=1200))
    assert estimate == TokenEstimate(
        low=100, likely=300, high=1200 + 2 * TEMPLATE_TOKENS_PER_MESSAGE, floor=9
    )


def test_token_ids_are_exact_but_for_the_template():
    estimate = TokenEstimator().estimate("qwen", chat(given=500))
    assert estimate == TokenEstimate(500, 500, 500 + 2 * TEMPLATE_TOKENS_PER_MESSAGE, 500)


@pytest.mark.parametrize("answers", [0, 1, 2])
def test_few_answers_narrow_nothing(answers):
    estimate = taught(0.25, answers).estimate("qwen", chat(prompt_bytes=12_000))
    assert (estimate.low, estimate.high) == (1000, 12_032)


def test_every_answer_narrows_it():
    widths = []
    for answers in (3, 5, 10, 100):
        estimate = taught(0.25, answers).estimate("qwen", chat(prompt_bytes=12_000))
        assert estimate.low < 3000 < estimate.high
        widths.append(estimate.high - estimate.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1200


def test_models_are_learned_one_by_one():
    estimator = taught(0.5, 10)
    assert estimator.estimate("llama", chat(prompt_bytes=1200)).likely == 300
    assert estimator.estimate("qwen", chat(prompt_bytes=1200)).likely == 600


def test_texts_that_vary_keep_the_interval_wide():
    steady, varied = taught(0.25, 50), TokenEstimator()
    for number in range(50):
        varied.learn("qwen", chat(prompt_bytes=4000), 700 if number % 2 else 1300)
    facts = chat(prompt_bytes=12_000)
    narrow, wide = steady.estimate("qwen", facts), varied.estimate("qwen", facts)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_a_change_of_the_texts_is_followed():
    estimator = taught(0.25, 100)
    for _ in range(30):
        estimator.learn("qwen", chat(prompt_bytes=4000), 2400)
    assert 6500 < estimator.estimate("qwen", chat(prompt_bytes=12_000)).likely < 7300


@pytest.mark.parametrize(
    ("facts", "tokens"),
    [
        (chat(prompt_bytes=100), 90),
        (chat(prompt_bytes=4000), 0),
        (chat(prompt_bytes=4000), -5),
        (chat(given=9), 9),
    ],
)
def test_what_teaches_nothing(facts, tokens):
    ratio = TokenRatio()
    ratio.learn(facts, tokens)
    assert ratio == TokenRatio()


def test_media_teach_nothing_and_widen():
    from attrs import evolve  # noqa: PLC0415  # only here

    facts = evolve(chat(prompt_bytes=400), media=2)
    ratio = TokenRatio()
    ratio.learn(facts, 5000)
    assert ratio.seen == 0
    assert ratio.estimate(facts).high == 400 + 2 * TEMPLATE_TOKENS_PER_MESSAGE + 2 * MEDIA_TOKENS


def test_given_tokens_are_no_tokens_of_the_text():
    estimator = TokenEstimator()
    for _ in range(5):
        estimator.learn("qwen", chat(prompt_bytes=4000, given=5000), 6000)
    assert estimator.estimate("qwen", chat(prompt_bytes=4000)).likely == 1000


@settings(deadline=None)  # the machine may be busy
@given(
    size=st.integers(0, 10_000_000),
    ids=st.integers(0, 100_000),
    lessons=st.lists(st.tuples(st.integers(1, 1_000_000), st.integers(0, 1_000_000)), max_size=12),
)
def test_bounds_are_in_order_whatever_was_learned(size, ids, lessons):
    estimator = TokenEstimator()
    for learned_size, tokens in lessons:
        estimator.learn("qwen", chat(prompt_bytes=learned_size), tokens)
    estimate = estimator.estimate("qwen", chat(prompt_bytes=size, given=ids))
    assert ids <= estimate.floor <= estimate.low <= estimate.high
    assert estimate.floor == ids + int(size * CERTAIN_TOKENS_PER_BYTE)
    assert estimate.low >= ids + int(size * FEWEST_TOKENS_PER_BYTE)
