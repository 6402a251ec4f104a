"""The models among which a choice is made, arranged so that a choice among thousands looks at few of them.

Everything that a model either has or has not (capabilities, features, modalities, tags) is a set of bits, one for each
model. What is measured (prices, quality, latency, context) is arranged as a tree: neighbours are alike, and each
node knows the best that any model below it has, so that nobody need look below a node whose best is not good enough.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from gatewright.accounting.costs import mean_cost_per_1k_tokens
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.selection.profiles import ModelProfile
from gatewright.selection.values import (
    SHORT_ANSWER_TOKENS,
    cost_value,
    latency_value,
)

LEAF: Final = 8
"""Models in a leaf of the tree: a byte of the sets of bits."""
BRANCH: Final = 8
"""Nodes below a node."""
FEW: Final = 96
"""Among so many models each is looked at: that is as fast."""

_USUAL_PROMPT_TOKENS: Final = 1000
_USUAL_WEIGHTS: Final = (0.5, 0.2, 0.2)
"""Of quality, cost and latency, to say who is alike; another choice would cost time, and change no result."""
_LEAST_LATENCY: Final = 0.1
"""However short the answer: this part of the time of a short one."""
_START: Final = 0.5
"""Where the speed is not known: the part of a short answer's time that does not grow with the answer."""


class Row(NamedTuple):
    """What scoring reads of one model.

    Attributes:
        name: Its name.
        quality: Prior.
        by_task: Priors by task.
        input_usd: Price of a million prompt tokens.
        output_usd: Price of a million completion tokens.
        hour_usd: Price of an engine's hour.
        start_ms: Time of an answer without its tokens; below 0 where the tokens are slow.
        token_ms: Time of each token.
        least_ms: Time that any answer takes.
        mean_usd: Mean price of 1,000 tokens.
        context_tokens: Largest context; beyond all need where it is not known.
        profile: The rest.
    """

    name: str
    quality: float
    by_task: Mapping[str, float]
    input_usd: float
    output_usd: float
    hour_usd: float
    start_ms: float
    token_ms: float
    least_ms: float
    mean_usd: float
    context_tokens: int
    profile: ModelProfile


class Best(NamedTuple):
    """The best that any of several models has, of each thing for itself.

    Attributes:
        quality: Highest prior, for whichever task.
        input_usd: Lowest price of a million prompt tokens.
        output_usd: Lowest price of a million completion tokens.
        hour_usd: Lowest price of an engine's hour.
        start_ms: Shortest time without tokens.
        token_ms: Shortest time of a token.
        least_ms: Shortest time of any answer.
        mean_usd: Lowest mean price of 1,000 tokens.
        context_tokens: Largest context.
    """

    quality: float
    input_usd: float
    output_usd: float
    hour_usd: float
    start_ms: float
    token_ms: float
    least_ms: float
    mean_usd: float
    context_tokens: int


class Catalogue:
    """Models to choose among; never changes.

    Args:
        profiles: The models, whose names differ.
        few: Up to so many models there is no tree.

    Raises:
        ValueError: Two have the same name.
    """

    def __init__(self, profiles: Iterable[ModelProfile], *, few: int = FEW) -> None:
        self.profiles: Final = tuple(profiles)
        self._by_name: Final = {profile.name: profile for profile in self.profiles}
        if len(self._by_name) < len(self.profiles):
            raise ValueError("two models of a catalogue have the same name; names must differ")
        rows = tuple([row_of(profile) for profile in self.profiles])
        self.rows: Final = rows if len(rows) <= few else _arranged(rows)
        self.levels: Final[tuple[tuple[Best, ...], ...]] = () if len(rows) <= few else _levels(self.rows)
        """The tree, from the leaves upwards; a node is above `BRANCH` nodes in a row, a leaf above `LEAF` rows."""
        self.everybody: Final = (1 << len(rows)) - 1
        self._positions: Final = {row.name: position for position, row in enumerate(self.rows)}
        found = [row.profile for row in self.rows]
        self._capabilities: Final = _bits(profile.capabilities for profile in found)
        self._features: Final = _bits(profile.features for profile in found)
        self._modalities: Final = _bits(profile.modalities for profile in found)
        self._tags: Final = _bits(profile.tags for profile in found)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ModelProfile]:
        return iter(self.profiles)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all models, in the order in which they were given."""
        return tuple(self._by_name)

    def find(self, name: str) -> ModelProfile | None:
        """The model of that name."""
        return self._by_name.get(name)

    def row(self, name: str) -> Row | None:
        """What scoring reads of the model of that name."""
        position = self._positions.get(name)
        return None if position is None else self.rows[position]

    def matching(
        self,
        *,
        capabilities: Collection[str] = (),
        features: Collection[str] = (),
        modalities: Collection[str] = (),
        tags: Collection[str] = (),
    ) -> int:
        """The models that have all of this, as a set of bits: bit N stands for row N."""
        found = self.everybody
        for index, wanted in (
            (self._capabilities, capabilities),
            (self._features, features),
            (self._modalities, modalities),
            (self._tags, tags),
        ):
            for word in wanted:
                found &= index.get(word, 0)
        return found

    def bits_of(self, names: Iterable[str]) -> int:
        """The models of these names as a set of bits; names of nobody are passed over."""
        positions = self._positions
        if len(self.rows) <= FEW:
            bits = 0
            for name in names:
                position = positions.get(name)
                if position is not None:
                    bits |= 1 << position
            return bits
        bytes_ = bytearray(len(self.rows) // 8 + 1)
        for name in names:
            position = positions.get(name)
            if position is not None:
                bytes_[position >> 3] |= 1 << (position & 7)
        return int.from_bytes(bytes_, "little")

    def rows_of(self, bits: int) -> Sequence[Row]:
        """The rows that a set of bits stands for."""
        rows = self.rows
        if bits == self.everybody:
            return rows
        found = []
        for start, byte in enumerate(bits.to_bytes(len(rows) // 8 + 1, "little")):
            if byte:
                found += [rows[start * 8 + bit] for bit in BITS[byte]]
        return found


BITS: Final = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
"""Of each byte, which of its bits are set."""


def row_of(profile: ModelProfile) -> Row:
    """What scoring reads of a model."""
    pricing = profile.pricing
    if profile.output_tokens_per_s:
        token_ms = 1000.0 / profile.output_tokens_per_s
    else:
        token_ms = profile.latency_ms * (1.0 - _START) / SHORT_ANSWER_TOKENS
    return Row(
        name=profile.name,
        quality=min(max(profile.quality, 0.0), 1.0),
        by_task=profile.quality_by_task,
        input_usd=pricing.input_per_million,
        output_usd=pricing.output_per_million,
        hour_usd=pricing.engine_hour,
        start_ms=profile.latency_ms - SHORT_ANSWER_TOKENS * token_ms,
        token_ms=token_ms,
        least_ms=profile.latency_ms * _LEAST_LATENCY,
        mean_usd=mean_cost_per_1k_tokens(pricing),
        context_tokens=profile.context_tokens or UNBOUNDED_CONTEXT_TOKENS,
        profile=profile,
    )


def _bits(words_of_rows: Iterable[Collection[str]]) -> dict[str, int]:
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for position, words in enumerate(words_of_rows):
        for word in words:
            positions[word].append(position)
    found = {}
    for word, having in positions.items():
        bytes_ = bytearray(having[-1] // 8 + 1)
        for position in having:
            bytes_[position >> 3] |= 1 << (position & 7)
        found[word] = int.from_bytes(bytes_, "little")
    return found


def _arranged(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows in an order in which neighbours are alike: halved again and again where they differ most."""
    quality_weight, cost_weight, latency_weight = _USUAL_WEIGHTS
    places = []
    for row in rows:
        ms = max(row.least_ms, row.start_ms + SHORT_ANSWER_TOKENS * row.token_ms)
        usd = (_USUAL_PROMPT_TOKENS * row.input_usd + SHORT_ANSWER_TOKENS * row.output_usd) / 1_000_000
        usd += row.hour_usd * ms / 3_600_000
        values = (
            quality_weight * row.quality,
            cost_weight * cost_value(usd),
            latency_weight * latency_value(ms),
        )
        places.append((values, row))
    arranged: list[Row] = []
    pending = [places]
    while pending:
        part = pending.pop()
        if len(part) <= LEAF:
            arranged += [row for _, row in part]
            continue
        spreads = []
        for axis in range(len(_USUAL_WEIGHTS)):
            values_here = [values[axis] for values, _ in part]
            spreads.append(max(values_here) - min(values_here))
        widest = spreads.index(max(spreads))
        part.sort(key=lambda place, axis=widest: (place[0][axis], place[1].name))  # type: ignore[misc]  # a lambda's default
        middle = (len(part) // 2 + LEAF - 1) // LEAF * LEAF
        pending += [part[middle:], part[:middle]]  # the last is taken first
    return tuple(arranged)


def _levels(rows: Sequence[Row]) -> tuple[tuple[Best, ...], ...]:
    leaves = [_best_of_rows(rows[start : start + LEAF]) for start in range(0, len(rows), LEAF)]
    levels = [tuple(leaves)]
    while len(levels[-1]) > BRANCH * 4:
        below = levels[-1]
        levels.append(
            tuple(_best_of(below[start : start + BRANCH]) for start in range(0, len(below), BRANCH))
        )
    return tuple(levels)


def _best_of_rows(rows: Sequence[Row]) -> Best:
    return _best_of(
        [
            Best(
                quality=max((row.quality, *(min(max(value, 0.0), 1.0) for value in row.by_task.values()))),
                input_usd=row.input_usd,
                output_usd=row.output_usd,
                hour_usd=row.hour_usd,
                start_ms=row.start_ms,
                token_ms=row.token_ms,
                least_ms=row.least_ms,
                mean_usd=row.mean_usd,
                context_tokens=row.context_tokens,
            )
            for row in rows
        ]
    )


def _best_of(several: Collection[Best]) -> Best:
    return Best(
        quality=max(each.quality for each in several),
        input_usd=min(each.input_usd for each in several),
        output_usd=min(each.output_usd for each in several),
        hour_usd=min(each.hour_usd for each in several),
        start_ms=min(each.start_ms for each in several),
        token_ms=min(each.token_ms for each in several),
        least_ms=min(each.least_ms for each in several),
        mean_usd=min(each.mean_usd for each in several),
        context_tokens=max(each.context_tokens for each in several),
    )
