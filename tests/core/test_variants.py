import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.config import Margin
from gatewright.errors import ContextTooLarge
from gatewright.selection.tokens import TokenEstimate, TokenEstimator, exactly
from gatewright.selection.variants import (
    Fits,
    TooLarge,
    Unsure,
    VariantVerdict,
    choose_variant,
    explain_variants,
    larger_variants,
)
from tests.core.machines.build import chat, model, remote_model, spec

QWEN = model("qwen", 4096, 16384, 65536, answer_tokens=100)
V4, V16, V64 = QWEN.variants


def contexts(verdict):
    return [each.context_tokens for each in verdict.variants]


# --- an exact count


@pytest.mark.parametrize(
    ("tokens", "answer", "chosen", "need"),
    [
        (1, None, 4096, 101),
        (3996, None, 4096, 4096),
        (3997, None, 16384, 4097),
        (16_000, 384, 16384, 16384),
        (16_000, 385, 65536, 16385),
        (65_435, None, 65536, 65535),
        (65_500, None, 65536, 65501),  # the reserve does not fit, one token does
        (65_535, None, 65536, 65536),
        (4095, 0, 4096, 4096),  # room for one token
        (4096, 0, 16384, 4097),
    ],
)
def test_smallest_context_that_holds_prompt_and_answer(tokens, answer, chosen, need):
    verdict = choose_variant(QWEN, chat(answer=answer), exactly(tokens))
    assert isinstance(verdict, Fits)
    assert (verdict.variants[0].context_tokens, verdict.need_tokens) == (chosen, need)


@pytest.mark.parametrize(("tokens", "answer", "need"), [(65_536, None, 65_537), (65_000, 600, 65_600)])
def test_what_no_variant_holds_is_told_with_exact_figures(tokens, answer, need):
    verdict = choose_variant(QWEN, chat(answer=answer), exactly(tokens))
    assert verdict == TooLarge(ContextTooLarge(need, 65_536, tokens).problem)


def test_larger_variants_may_serve_it_if_they_are_loaded():
    assert contexts(choose_variant(QWEN, chat(), exactly(100))) == [4096, 16384, 65536]
    close = evolve(QWEN, max_oversize=4.0)
    assert contexts(choose_variant(close, chat(), exactly(100))) == [4096, 16384]
    tight = evolve(QWEN, max_oversize=1.0)
    assert contexts(choose_variant(tight, chat(), exactly(100))) == [4096]


def test_what_has_no_size_fits_everywhere():
    assert choose_variant(QWEN, chat(sized=False), TokenEstimate(0, 0, 10**9)) == Fits(QWEN.variants, 0)


# --- an estimate


def test_no_count_is_needed_where_the_whole_interval_says_the_same():
    assert contexts(choose_variant(QWEN, chat(), TokenEstimate(100, 200, 3000)))[0] == 4096
    assert contexts(choose_variant(QWEN, chat(), TokenEstimate(4000, 8000, 16_000)))[0] == 16384


def test_a_count_is_needed_where_it_could_change_the_decision():
    verdict = choose_variant(QWEN, chat(), TokenEstimate(100, 2000, 5000))
    assert verdict == Unsure(Fits((V4, V16, V64), 2100))
    verdict = choose_variant(QWEN, chat(), TokenEstimate(100, 4500, 5000))
    assert verdict == Unsure(Fits((V16, V64), 4600))


@pytest.mark.parametrize(
    ("margin", "chosen"),
    [
        (Margin(ratio=0.0, tokens=0), 4096),
        (Margin(ratio=0.1, tokens=0), 16384),
        (Margin(ratio=0.0, tokens=512), 16384),
    ],
)
def test_a_margin_is_for_estimates_only(margin, chosen):
    careful = evolve(QWEN, margin=margin)
    verdict = choose_variant(careful, chat(), TokenEstimate(3800, 3800, 3900))
    guess = verdict.best_guess if isinstance(verdict, Unsure) else verdict
    assert guess.variants[0].context_tokens == chosen
    assert contexts(choose_variant(careful, chat(), exactly(3900)))[0] == 4096


def test_an_estimate_never_refuses_what_may_fit():
    verdict = choose_variant(QWEN, chat(), TokenEstimate(70_000, 90_000, 120_000, floor=6000))
    assert verdict == Unsure(Fits((V64,), 90_001))
    assert isinstance(choose_variant(QWEN, chat(answer=70_000), TokenEstimate(0, 0, 10)), TooLarge)


def test_an_estimate_refuses_what_is_certain():
    verdict = choose_variant(QWEN, chat(), TokenEstimate(70_000, 90_000, 120_000, floor=65_536))
    assert verdict == TooLarge(ContextTooLarge(90_001, 65_536).problem)


def test_the_largest_variant_is_not_counted_for_without_a_limit_for_the_answer():
    only = model("only", 4096)
    doubtful = TokenEstimate(300, 1000, 5000)
    assert choose_variant(only, chat(), doubtful) == Fits(only.variants, 1100)
    assert choose_variant(only, chat(answer=50), doubtful) == Unsure(Fits(only.variants, 1050))
    hopeless = TokenEstimate(300, 4500, 5000)
    assert choose_variant(only, chat(), hopeless) == Unsure(Fits(only.variants, 4501))


@settings(deadline=None)  # the machine may be busy
@given(
    size=st.integers(0, 300_000),
    share=st.floats(0, 1),
    answer=st.none() | st.integers(0, 5000),
    oversize=st.sampled_from([1.0, 4.0, 16.0]),
)
def test_what_is_sure_agrees_with_an_exact_count(size, share, answer, oversize):
    """Whatever the true number of tokens within the estimate, a sure verdict holds it."""
    careful = evolve(QWEN, max_oversize=oversize)
    facts = chat(prompt_bytes=size, answer=answer)
    estimate = TokenEstimator().estimate("qwen", facts)
    tokens = max(1, estimate.low + int(share * (estimate.high - estimate.low)))
    verdict = choose_variant(careful, facts, estimate)
    exact = choose_variant(careful, facts, exactly(tokens))
    if isinstance(verdict, Fits) and verdict.variants[0] is not V64:
        assert isinstance(exact, Fits)
        assert verdict.variants[0] is exact.variants[0]
    if isinstance(verdict, TooLarge):
        assert isinstance(exact, TooLarge)


@settings(deadline=None)  # the machine may be busy
@given(tokens=st.integers(1, 70_000), more=st.integers(0, 5000), answer=st.none() | st.integers(0, 5000))
def test_a_longer_prompt_never_gets_a_smaller_variant(tokens, more, answer):
    facts = chat(answer=answer)
    shorter, longer = (choose_variant(QWEN, facts, exactly(n)) for n in (tokens, tokens + more))
    if isinstance(shorter, TooLarge):
        assert isinstance(longer, TooLarge)
    elif isinstance(longer, Fits):
        assert isinstance(shorter, Fits)
        assert longer.variants[0].context_tokens >= shorter.variants[0].context_tokens


# --- after an overflow


def test_overflow_goes_to_a_larger_variant_that_fits():
    assert larger_variants(QWEN, chat(), 5000, 4096) == Fits((V16, V64), 5100)
    assert larger_variants(QWEN, chat(), 20_000, 4096) == Fits((V64,), 20_100)
    assert larger_variants(QWEN, chat(), None, 4096) == Fits((V16, V64), 101)
    tight = evolve(QWEN, max_oversize=1.0)
    assert larger_variants(tight, chat(), None, 4096) == Fits((V16,), 101)


def test_an_engine_that_refuses_what_should_fit_is_passed_over():
    assert larger_variants(QWEN, chat(), 900, 4096) == Fits((V16, V64), 1000)


def test_overflow_of_the_largest_variant():
    too_large = TooLarge(ContextTooLarge(70_001, 65_536, 70_000).problem)
    assert larger_variants(QWEN, chat(), 70_000, 65_536) == too_large
    assert larger_variants(QWEN, chat(), None, 65_536) == TooLarge(ContextTooLarge(65_537, 65_536).problem)


# --- explaining


def test_explanations():
    fits = choose_variant(evolve(QWEN, max_oversize=4.0), chat(), exactly(100))
    assert explain_variants(QWEN, fits) == (
        VariantVerdict(4096, "chosen: the smallest that fits", acceptable=True),
        VariantVerdict(16384, "fits; used if it is loaded already", acceptable=True),
        VariantVerdict(65536, "too large to take small requests (max_oversize)", acceptable=False),
    )
    unsure = choose_variant(QWEN, chat(), TokenEstimate(100, 4500, 5000))
    assert [each.verdict for each in explain_variants(QWEN, unsure)] == [
        "too small",
        "chosen: the smallest that fits",
        "fits; used if it is loaded already",
    ]
    too_large = choose_variant(QWEN, chat(), exactly(10**6))
    assert {each.verdict for each in explain_variants(QWEN, too_large)} == {"too small"}


def test_variants_are_found_by_their_context():
    fits = Fits((V4, V16), 100)
    assert fits.variant(16384) is V16
    assert fits.variant(65536) is None


def test_a_remote_model_has_one_variant():
    assert choose_variant(remote_model(), chat("gpt"), exactly(5)).variants[0].is_remote
    assert spec().label == "qwen@4096"
