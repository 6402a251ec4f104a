"""What waits for the store takes only so much memory."""

from gatewright_host.store.backlog import MOST_PROMPT_CHARACTERS, Backlog
from tests.host.store.stored import ended, written


def test_prompts_are_dropped_before_they_fill_the_memory() -> None:
    backlog = Backlog()
    large = "x" * (MOST_PROMPT_CHARACTERS // 2)
    for number in range(5):
        backlog.add(written(ended(f"r{number}"), prompt=large))
    backlog.add(written(ended("empty"), prompt=""))
    assert [each.prompt is not None for each in backlog.batch(10)] == [True, True, False, False, False, True]
    assert backlog.dropped == 0


def test_prompts_are_kept_again_once_others_are_written() -> None:
    backlog = Backlog()
    large = "x" * MOST_PROMPT_CHARACTERS
    for number in range(3):
        backlog.add(written(ended(f"r{number}"), prompt=large))
        (taken,) = backlog.batch(1)
        assert taken.prompt == large
        backlog.keep([])
