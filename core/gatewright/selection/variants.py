"""Which variant of a model holds a request: the smallest context with room for prompt, answer and margin."""

from math import ceil
from typing import Final, assert_never

from attrs import evolve, frozen

from gatewright.api.facts import RequestFacts
from gatewright.config import Margin, ModelConfig
from gatewright.engines.spec import EngineSpec
from gatewright.errors import ContextTooLarge, Problem
from gatewright.selection.tokens import TokenEstimate

LAST_TOKEN: Final = 1
"""llama-server refuses a prompt that fills the context exactly: it needs room for one token."""


@frozen
class Fits:
    """These variants hold the request.

    Attributes:
        variants: The smallest that fits first; then larger ones that would do if they are loaded.
        need_tokens: Prompt, answer and margin.
    """

    variants: tuple[EngineSpec, ...]
    need_tokens: int

    def variant(self, context_tokens: int) -> EngineSpec | None:
        """The one with this context, if it is among them."""
        return next((spec for spec in self.variants if spec.context_tokens == context_tokens), None)


@frozen
class Unsure:
    """An exact count could change the decision.

    Attributes:
        best_guess: What to do if nobody can count.
    """

    best_guess: Fits


@frozen
class TooLarge:
    """No variant holds it, and that is certain."""

    problem: Problem


Verdict = Fits | Unsure | TooLarge


def choose_variant(model: ModelConfig, facts: RequestFacts, estimate: TokenEstimate) -> Verdict:
    """Decide which variants of a model can take a request.

    A limit that the client names for its answer must fit. The model's own reserve (`answer_tokens`) only has
    to fit where there is a variant for it: the largest variant takes any prompt that it holds.

    Args:
        model: The model.
        facts: The request.
        estimate: Bounds for its prompt, or the exact count.
    """
    if not facts.sized:
        return Fits(model.variants, 0)
    least = _fit(model, facts, estimate.low, margin_tokens=0)
    if estimate.is_exact:
        return least or TooLarge(_too_large(model, facts, estimate.low, exact=True))
    if least is None and _fit(model, facts, estimate.floor, margin_tokens=0) is None:
        return TooLarge(_too_large(model, facts, estimate.likely, exact=False))
    most = _fit(model, facts, estimate.high, _margin_tokens(model.margin, estimate.high))
    if least is not None and most is not None and most.variants[0] is least.variants[0]:
        return most
    likely = _fit(model, facts, estimate.likely, _margin_tokens(model.margin, estimate.likely))
    if likely is None:
        # An estimate never refuses: the largest variant may hold it, and its engine knows for certain.
        return Unsure(Fits(model.variants[-1:], estimate.likely + (facts.answer_tokens or LAST_TOKEN)))
    if least is not None and least.variants[0] is model.variants[-1] and facts.answer_tokens is None:
        return likely  # all that a count could add is the engine's own refusal, which comes as exact
    return Unsure(likely)


def larger_variants(
    model: ModelConfig, facts: RequestFacts, prompt_tokens: int | None, above: int
) -> Fits | TooLarge:
    """Where a request goes whose engine refused it for its size.

    Args:
        model: The model.
        facts: The request.
        prompt_tokens: The engine's exact count, if it told one.
        above: Context of the variant that refused, in tokens: only larger ones are considered.
    """
    if prompt_tokens is not None and prompt_tokens <= 0:
        prompt_tokens = None  # nonsense
    larger = tuple(spec for spec in model.variants if spec.context_tokens > above)
    fits = None
    if larger:
        fits = _fit(evolve(model, variants=larger), facts, prompt_tokens or LAST_TOKEN, margin_tokens=0)
    return fits or TooLarge(_too_large(model, facts, prompt_tokens or above, exact=prompt_tokens is not None))


def _fit(model: ModelConfig, facts: RequestFacts, prompt_tokens: int, margin_tokens: int) -> Fits | None:
    answer = facts.answer_tokens if facts.answer_tokens is not None else model.answer_tokens
    need = prompt_tokens + max(answer, LAST_TOKEN) + margin_tokens
    for index, spec in enumerate(model.variants):
        if spec.context_tokens >= need:
            return Fits(_with_larger(model, index), need)
    if facts.answer_tokens is None and prompt_tokens + LAST_TOKEN <= model.largest_context_tokens:
        return Fits(model.variants[-1:], prompt_tokens + LAST_TOKEN)
    return None


def _with_larger(model: ModelConfig, index: int) -> tuple[EngineSpec, ...]:
    bound = model.variants[index].context_tokens * model.max_oversize
    larger = tuple(spec for spec in model.variants[index + 1 :] if spec.context_tokens <= bound)
    return (model.variants[index], *larger)


def _margin_tokens(margin: Margin, prompt_tokens: int) -> int:
    return max(ceil(prompt_tokens * margin.ratio), margin.tokens)


def _too_large(model: ModelConfig, facts: RequestFacts, prompt_tokens: int, *, exact: bool) -> Problem:
    answer = facts.answer_tokens if facts.answer_tokens is not None else LAST_TOKEN
    known = prompt_tokens if exact else None
    return ContextTooLarge(prompt_tokens + answer, model.largest_context_tokens, known).problem


@frozen
class VariantVerdict:
    """What `explain` says of one variant.

    Attributes:
        context_tokens: Its context.
        verdict: In words.
        acceptable: Whether it may serve the request.
    """

    context_tokens: int
    verdict: str
    acceptable: bool


def explain_variants(model: ModelConfig, verdict: Verdict) -> tuple[VariantVerdict, ...]:
    """Say of each variant of a model why it would or would not serve the request."""
    match verdict:
        case TooLarge():
            return tuple(
                VariantVerdict(spec.context_tokens, "too small", acceptable=False) for spec in model.variants
            )
        case Fits() as fits:
            pass
        case Unsure(best_guess=fits):
            pass
        case _ as unreachable:
            assert_never(unreachable)
    chosen = fits.variants[0].context_tokens
    verdicts = []
    for spec in model.variants:
        if spec.context_tokens == chosen:
            text = "chosen: the smallest that fits"
        elif spec in fits.variants:
            text = "fits; used if it is loaded already"
        elif spec.context_tokens < fits.need_tokens or spec.context_tokens < chosen:
            text = "too small"
        else:
            text = "too large to take small requests (max_oversize)"
        verdicts.append(VariantVerdict(spec.context_tokens, text, spec in fits.variants))
    return tuple(verdicts)
