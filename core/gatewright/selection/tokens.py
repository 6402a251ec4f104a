"""How many tokens a prompt has, without a tokenizer: an interval that narrows with every answer."""

from math import ceil, sqrt
from typing import Final

from attrs import define, frozen

from gatewright.api.facts import RequestFacts

CERTAIN_TOKENS_PER_BYTE: Final = 1 / 128
"""Below this nothing goes: the longest tokens of current vocabularies are runs of 128 spaces."""
FEWEST_TOKENS_PER_BYTE: Final = 1 / 12
"""Below this no text goes that means anything (large vocabularies, English)."""
MOST_TOKENS_PER_BYTE: Final = 1.0
"""A byte-level tokenizer never makes more tokens than bytes."""
FALLBACK_BYTES_PER_TOKEN: Final = 4
"""The usual rule of thumb, for English and current vocabularies."""
TEMPLATE_TOKENS_PER_MESSAGE: Final = 16
"""Upper bound of what chat templates put around a message."""
MEDIA_TOKENS: Final = 4096
"""Upper bound of what one image or sound takes in current vision models."""

_LEARNABLE_BYTES: Final = 256  # of less text a chat template takes too large a part
_MEMORY: Final = 0.1
_SURE_AFTER: Final = 3
_WIDTH_SIGMAS: Final = 4.0
_LEAST_WIDTH: Final = 0.15


@frozen
class TokenEstimate:
    """Bounds for a number of prompt tokens, inclusive; equal where it is known exactly.

    Attributes:
        low: Hardly fewer.
        likely: Best guess.
        high: Hardly more.
        floor: Certainly not fewer.
    """

    low: int
    likely: int
    high: int
    floor: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether it is a count, not an estimate."""
        return self.low == self.high


def exactly(tokens: int) -> TokenEstimate:
    """The estimate of somebody who has counted."""
    return TokenEstimate(tokens, tokens, tokens, tokens)


@define
class TokenRatio:
    """What one model's answers taught about its tokens per byte of prompt text.

    Mean and variance are exponentially weighted, so that a change of the texts is followed.

    Attributes:
        mean: Tokens per byte.
        variance: Of that ratio.
        seen: Answers learned from.
    """

    mean: float = 1 / FALLBACK_BYTES_PER_TOKEN
    variance: float = 0.0
    seen: int = 0

    def learn(self, facts: RequestFacts, prompt_tokens: int) -> None:
        """Take in an upstream's exact count; prompts too short to tell, or with media, are passed over."""
        text_tokens = prompt_tokens - facts.prompt_tokens_given
        if facts.prompt_bytes < _LEARNABLE_BYTES or facts.media or text_tokens <= 0:
            return
        ratio = text_tokens / facts.prompt_bytes
        self.seen += 1
        if self.seen == 1:
            self.mean = ratio
            return
        weight = max(_MEMORY, 1 / self.seen)
        distance = ratio - self.mean
        self.mean += weight * distance
        self.variance = (1 - weight) * (self.variance + weight * distance * distance)

    def estimate(self, facts: RequestFacts) -> TokenEstimate:
        """Bounds for the prompt of a request."""
        size = facts.prompt_bytes
        low_ratio, high_ratio = FEWEST_TOKENS_PER_BYTE, MOST_TOKENS_PER_BYTE
        if self.seen >= _SURE_AFTER:
            width = max(_WIDTH_SIGMAS * sqrt(self.variance), _LEAST_WIDTH * self.mean) * (1 + 4 / self.seen)
            low_ratio = max(low_ratio, self.mean - width)
            high_ratio = max(low_ratio, self.mean + width)
        template = TEMPLATE_TOKENS_PER_MESSAGE * (facts.messages + 1)
        given = facts.prompt_tokens_given
        return TokenEstimate(
            low=given + int(size * low_ratio),
            likely=given + ceil(size * self.mean) + MEDIA_TOKENS // 4 * facts.media,
            high=given + ceil(size * high_ratio) + template + MEDIA_TOKENS * facts.media,
            floor=given + int(size * CERTAIN_TOKENS_PER_BYTE),
        )


class TokenEstimator:
    """The ratios of all models."""

    def __init__(self) -> None:
        self._ratios: dict[str, TokenRatio] = {}

    def estimate(self, model: str, facts: RequestFacts) -> TokenEstimate:
        """Bounds for the prompt of a request to that model."""
        return self._ratios.get(model, _UNKNOWN).estimate(facts)

    def learn(self, model: str, facts: RequestFacts, prompt_tokens: int) -> None:
        """Take in an exact count for a prompt to that model."""
        self._ratios.setdefault(model, TokenRatio()).learn(facts, prompt_tokens)


_UNKNOWN: Final = TokenRatio()
