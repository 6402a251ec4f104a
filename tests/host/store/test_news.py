"""Following what others write."""

from collections.abc import Iterator

import pytest
from attrs import evolve
from sqlalchemy import create_engine, insert

from gatewright.accounting.keys import KeyRequest
from gatewright.accounting.outcomes import Feedback
from gatewright.route_config import ExperimentState
from gatewright_host.store import News, Store, tables
from tests.host.store.stored import NOON_S, Clock, written
from tests.host.store.test_records import FULL, OUTCOME


@pytest.fixture
def other(url: str, clock: Clock) -> Iterator[Store]:
    with Store.open(url, now=clock) as opened:
        yield opened


PLAIN = evolve(OUTCOME, experiment=None, arm=None)


def write(store: Store, *names: str) -> None:
    store.write(
        [written(evolve(FULL, request_id=name, outcomes=(evolve(PLAIN, request_id=name),))) for name in names]
    )


def names(news: News) -> list[str]:
    return [outcome.request_id for outcome in news.outcomes]


def test_the_past_is_the_latest_of_everybody_in_order(store: Store, other: Store) -> None:
    write(store, "a", "b")
    write(other, "c", "d")
    store.add_feedback(Feedback(request_id="a", score=0.0, at=NOON_S))
    store.add_feedback(Feedback(request_id="d", score=1.0, at=NOON_S))
    news = store.first_news(3)
    assert names(news) == ["b", "c", "d"]
    # What was said of an outcome that is not among them is of no use.
    assert [said.request_id for said in news.feedback] == ["d"]
    assert news.outcomes[0].at == NOON_S - 1000 + OUTCOME.at


def test_the_past_of_experiments_is_all_of_it(store: Store, other: Store) -> None:
    tried = evolve(OUTCOME, experiment="trial", arm="a")
    for name, kind in (("a", tried), ("b", PLAIN), ("c", tried), ("d", PLAIN), ("e", tried)):
        outcome = evolve(kind, request_id=name)
        store.write([written(evolve(FULL, request_id=name, outcomes=(outcome,)))])
    other.add_feedback(Feedback(request_id="a", score=0.0, at=NOON_S))
    news = store.first_news(2)
    assert names(news) == ["a", "c", "d", "e"]
    assert [said.request_id for said in news.feedback] == ["a"]


def test_news_are_others_outcomes_and_everybody_s_feedback(store: Store, other: Store) -> None:
    write(other, "before")
    cursor = store.first_news(10).cursor
    write(store, "mine")
    write(other, "theirs")
    store.add_feedback(Feedback(request_id="mine", score=0.5, at=NOON_S))
    other.add_feedback(Feedback(request_id="theirs", score=1.0, at=NOON_S))
    news = store.news(cursor)
    assert names(news) == ["theirs"]
    assert [said.request_id for said in news.feedback] == ["mine", "theirs"]
    again = store.news(news.cursor)
    assert (again.outcomes, again.feedback) == ((), ())
    assert (again.models_changed, again.keys_changed, again.experiments_changed) == (False, False, False)


def test_nothing_is_told_twice_or_left_out_over_many_looks(store: Store, other: Store, clock: Clock) -> None:
    cursor = store.first_news(10).cursor
    told: list[str] = []
    for number in range(60):
        write(other, f"r{number}a", f"r{number}b")
        clock.advance(0.7)
        news = store.news(cursor)
        told += names(news)
        cursor = news.cursor
        assert len(cursor.outcomes.marks) < 50
    assert told == [f"r{number}{letter}" for number in range(60) for letter in "ab"]


def test_more_news_than_one_portion_come_in_several(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewright_host.store.news._PORTION", 10)
    cursor = store.first_news(10).cursor
    write(other, *[f"r{number}" for number in range(25)])
    told: list[str] = []
    for _ in range(4):
        news = store.news(cursor)
        told += names(news)
        cursor = news.cursor
    assert told == [f"r{number}" for number in range(25)]


def test_revisions_tell_what_has_changed(store: Store, other: Store) -> None:
    cursor = store.first_news(1).cursor
    _, key = other.create_key(KeyRequest(name="ci"))
    news = store.news(cursor)
    assert (news.models_changed, news.keys_changed, news.experiments_changed) == (False, True, False)
    other.set_experiment_state(ExperimentState(experiment="prompts", promoted="short"))
    news = store.news(news.cursor)
    assert (news.models_changed, news.keys_changed, news.experiments_changed) == (False, False, True)
    other.delete_key(key.id)
    assert store.news(news.cursor).keys_changed


def test_a_change_is_noticed_cheaply(store: Store, other: Store) -> None:
    store.has_changed()
    write(other, "a")
    assert store.has_changed()


# SQLite has one writer at a time, so that ids become visible in their order.
@pytest.mark.parametrize("make_url", ["postgresql"], indirect=True)
def test_ids_that_become_visible_late_are_told_all_the_same(store: Store, url: str, clock: Clock) -> None:
    cursor = store.first_news(10).cursor
    row = {
        "writer": "x",
        "at_s": NOON_S,
        "model": "m",
        "success": True,
        "task": "",
        "completion_tokens": 1,
        "cost_nano": 0,
        "is_available": True,
        "propensity": 1.0,
        "sequence": 0,
    }
    engine = create_engine(url)
    with engine.connect() as slow, engine.connect() as quick:
        slow.execute(insert(tables.outcomes), [{**row, "request_id": "slow"}])
        quick.execute(insert(tables.outcomes), [{**row, "request_id": "quick"}])
        quick.commit()
        news = store.news(cursor)
        assert names(news) == ["quick"]
        clock.advance(3.0)
        news = store.news(news.cursor)
        assert names(news) == []
        slow.commit()
    engine.dispose()
    clock.advance(3.0)
    news = store.news(news.cursor)
    assert names(news) == ["slow"]
    clock.advance(30.0)
    assert names(store.news(news.cursor)) == []
