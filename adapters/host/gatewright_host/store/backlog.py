"""Records on their way into the store."""

import threading
from collections import deque
from typing import Final

from attrs import evolve

from gatewright_host.store.vocabulary import Written

MOST: Final = 10_000
"""From so many records on, only what they cost is kept of further ones."""
MOST_AT_ALL: Final = 100_000
"""From so many on, further ones are dropped."""
MOST_PROMPT_CHARACTERS: Final = 20_000_000
"""Of all prompts together; further records wait without theirs."""


class Backlog:
    """A bounded queue: any thread puts records in, one takes them out.

    Attributes:
        dropped: Records of which nothing was kept.
    """

    def __init__(self) -> None:
        self._records: deque[Written] = deque()
        self._taken: list[Written] = []
        self._prompt_characters = 0
        self._lock = threading.Lock()  # over the number of these
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._records) + len(self._taken)

    def add(self, written: Written) -> None:
        """Put a record in; never blocks and never raises.

        A full queue drops prompts, decisions and outcomes before it drops money: budgets are settled by it.
        """
        length = len(self._records)
        if length >= MOST:
            if length >= MOST_AT_ALL or not written.record.charges:
                self.dropped += 1
                return
            record = evolve(
                written.record, decision=None, problem=None, failed_attempts=(), outcomes=(), judge=None
            )
            written = evolve(written, record=record, prompt=None)
        if written.prompt is not None and not self._count_prompt(len(written.prompt)):
            written = evolve(written, prompt=None)
        self._records.append(written)

    def _count_prompt(self, characters: int) -> bool:
        with self._lock:
            has_room = self._prompt_characters + characters <= MOST_PROMPT_CHARACTERS
            if has_room:
                self._prompt_characters += characters
        return has_room

    def batch(self, most: int) -> list[Written]:
        """The oldest records; the same ones again until `keep` says which of them are still to be written.

        Only one thread may call this, and `keep`.
        """
        while len(self._taken) < most and self._records:
            taken = self._records.popleft()
            if taken.prompt is not None:
                self._count_prompt(-len(taken.prompt))
            self._taken.append(taken)
        return self._taken

    def keep(self, remaining: list[Written]) -> None:
        """What of the last batch is still to be written."""
        self._taken = remaining
