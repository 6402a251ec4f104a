"""What a call costs, in US dollars."""

from typing import Final

from gatewright.selection.profiles import Pricing

TOKENS_PER_PRICE: Final = 1_000_000
"""Providers state prices for so many tokens."""
_SECONDS_PER_HOUR: Final = 3600.0


def cost_usd(
    pricing: Pricing,
    *,
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
    cached_tokens: int = 0,
    engine_s: float = 0.0,
) -> float:
    """The price of one call.

    Args:
        pricing: Of the model.
        prompt_tokens: Whole prompt, the cached part included.
        completion_tokens: Answer.
        cached_tokens: Part of the prompt that came out of a cache; no more than the prompt counts.
        engine_s: Seconds for which the request had the engine.
    """
    cached = min(max(cached_tokens, 0), max(prompt_tokens, 0))
    cached_price = pricing.cached_input_per_million
    if cached_price is None:
        cached_price = pricing.input_per_million
    tokens = (
        (max(prompt_tokens, 0) - cached) * pricing.input_per_million
        + cached * cached_price
        + max(completion_tokens, 0) * pricing.output_per_million
    )
    return tokens / TOKENS_PER_PRICE + pricing.engine_hour * max(engine_s, 0.0) / _SECONDS_PER_HOUR


def mean_cost_per_1k_tokens(pricing: Pricing) -> float:
    """Mean of the prices of 1,000 prompt tokens and 1,000 completion tokens; what an engine costs by the hour is not in it."""
    return (pricing.input_per_million + pricing.output_per_million) / 2 / 1000
