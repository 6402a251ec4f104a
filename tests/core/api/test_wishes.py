import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.api.facts import Wishes
from gatewright.api.wishes import read_wishes, strip_wishes
from gatewright.errors import InvalidRequest
from gatewright.selection.criteria import Prefer, SelectionCriteria

NONE = msgspec.Raw()


def wishes(member: Any = None, **headers: str) -> Wishes | None:
    raw = NONE if member is None else msgspec.Raw(msgspec.json.encode(member))
    return read_wishes(
        raw, tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    )


def refusal(member: Any = None, **headers: str) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        wishes(member, **headers)
    return caught.value.problem.message, caught.value.problem.param


def test_a_request_that_says_nothing_has_no_wishes():
    assert wishes() is None
    assert wishes(accept="x", x_gw_model="other") is None


def test_a_member_without_wishes_is_still_one_to_take_out():
    assert read_wishes(msgspec.Raw(b"null"), ()) == Wishes() == wishes({})
    assert read_wishes(msgspec.Raw(b"null"), ((b"x-gw-task", b"t"),)) == Wishes(task="t")


def test_much_is_refused_in_few_words():
    message, param = refusal({"fallbacks": [1] * 1000})
    assert message.endswith("fallbacks[5]: got 1, expected the name of a model; and 995 more")
    assert param == "gatewright.fallbacks[1]"
    message, param = refusal({"criteria": {"tags": ["eu"] * 20_000}})
    assert (message, param) == ("'gatewright' has 100023 bytes; expected at most 65536", "gatewright")


def test_everything_that_a_body_can_say():
    assert wishes(
        {
            "task": "translate",
            "criteria": {
                "capabilities": ["code"],
                "features": ["tools"],
                "tags": ["eu"],
                "max_cost_per_1k": 0.01,
                "max_latency_ms": 3000,
                "min_quality": 0.7,
                "min_context": 8000,
            },
            "prefer": "Cost",
            "max_attempts": 2,
            "fallbacks": ["a", "b"],
            "user": "u",
            "session": "s",
        }
    ) == Wishes(
        task="translate",
        criteria=SelectionCriteria(
            required_capabilities=frozenset({"code"}),
            required_features=frozenset({"tools"}),
            required_tags=frozenset({"eu"}),
            max_cost_per_1k_tokens=0.01,
            max_latency_ms=3000.0,
            min_quality_threshold=0.7,
            min_context_tokens=8000,
        ),
        prefer=Prefer.COST,
        max_attempts=2,
        fallbacks=("a", "b"),
        user="u",
        session="s",
    )


def test_everything_that_headers_can_say():
    assert wishes(
        x_gw_task=" translate ",
        x_gw_prefer="speed",
        x_gw_max_cost="0.01",
        x_gw_max_latency="3000",
        x_gw_min_quality=".7",
        x_gw_min_context="8000",
        x_gw_capability="code, math",
        x_gw_feature="tools",
        x_gw_tag="eu,fast",
        x_gw_max_attempts="3",
        x_gw_user="u",
        x_gw_session="s",
    ) == Wishes(
        task="translate",
        criteria=SelectionCriteria(
            required_capabilities=frozenset({"code", "math"}),
            required_features=frozenset({"tools"}),
            required_tags=frozenset({"eu", "fast"}),
            max_cost_per_1k_tokens=0.01,
            max_latency_ms=3000.0,
            min_quality_threshold=0.7,
            min_context_tokens=8000,
        ),
        prefer=Prefer.SPEED,
        max_attempts=3,
        user="u",
        session="s",
    )


def test_a_header_may_come_twice():
    found = read_wishes(NONE, ((b"x-gw-capability", b"code"), (b"x-gw-capability", b"math")))
    assert found == Wishes(criteria=SelectionCriteria(required_capabilities=frozenset({"code", "math"})))


def test_what_the_body_says_counts_and_required_things_add_up():
    found = wishes(
        {"prefer": "cost", "fallbacks": False, "criteria": {"min_quality": 0, "capabilities": ["code"]}},
        x_gw_prefer="speed",
        x_gw_task="t",
        x_gw_min_quality="0.9",
        x_gw_max_cost="1",
        x_gw_capability="math",
    )
    assert found == Wishes(
        task="t",
        prefer=Prefer.COST,
        fallbacks=(),
        criteria=SelectionCriteria(
            required_capabilities=frozenset({"code", "math"}),
            min_quality_threshold=0.0,
            max_cost_per_1k_tokens=1.0,
        ),
    )


def test_no_fallbacks_and_nothing_said_of_fallbacks_differ():
    for member, expected in (({"fallbacks": False}, ()), ({"fallbacks": []}, ()), ({}, None)):
        found = wishes(member)
        assert found is not None
        assert found.fallbacks == expected


@pytest.mark.parametrize(
    ("member", "message", "param"),
    [
        (5, "gatewright: got 5, expected an object with wishes", "gatewright"),
        (["x"], "gatewright: got a list, expected an object with wishes", "gatewright"),
        (
            {"prefers": "cost"},
            'gatewright.prefers: unknown field; did you mean "prefer"?',
            "gatewright.prefers",
        ),
        (
            {"prefer": "cheap"},
            'gatewright.prefer: got "cheap", expected one of "balanced", "quality", "cost", "speed"',
            "gatewright.prefer",
        ),
        (
            {"max_attempts": 0},
            "gatewright.max_attempts: got 0, expected a whole number of calls, 1 to 32",
            "gatewright.max_attempts",
        ),
        (
            {"fallbacks": ["a"] * 9},
            "gatewright.fallbacks: 9 models; expected at most 8",
            "gatewright.fallbacks",
        ),
        (
            {"criteria": {"min_quality": 2}},
            "gatewright.criteria.min_quality: got 2, expected a number from 0 to 1",
            "gatewright.criteria.min_quality",
        ),
    ],
)
def test_wishes_that_are_not_allowed(member, message, param):
    assert refusal(member) == (message, param)


def test_all_that_is_wrong_is_said_at_once():
    message, param = refusal({"prefer": 1, "task": "", "criteria": {"capabilities": ["cod"]}})
    assert message.count("; ") == 2
    assert param == "gatewright.task"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (
            {"x_gw_max_cost": "cheap"},
            'x-gw-max-cost: got "cheap", expected a number of US dollars, 0 or more',
        ),
        ({"x_gw_max_cost": "nan"}, "x-gw-max-cost: got nan, expected a number of US dollars, 0 or more"),
        (
            {"x_gw_max_attempts": "1.5"},
            "x-gw-max-attempts: got 1.5, expected a whole number of calls, 1 to 32",
        ),
        ({"x_gw_task": ""}, 'x-gw-task: got "", expected a text of 1 to 512 characters'),
    ],
)
def test_headers_that_are_not_allowed(headers, message):
    assert refusal(**headers) == (message, message.partition(":")[0])


def test_a_header_that_is_no_text():
    with pytest.raises(InvalidRequest, match="'x-gw-task' is not UTF-8"):
        read_wishes(NONE, ((b"x-gw-task", b"\xff"),))


def test_a_member_that_is_nested_without_end():
    with pytest.raises(InvalidRequest, match="'gatewright' cannot be read"):
        read_wishes(msgspec.Raw(b'{"criteria":' + b"[" * 60_000), ())


# --- stripping


def test_a_body_without_wishes_is_the_same_object():
    for body in (
        b'{"a": 1}',
        b'{"x": {"gatewright": 1}}',
        b'["gatewright"]',
        b'{"gatewright"',
        b'{"a":"\xff","gatewright":1}',
    ):
        found = strip_wishes(body)
        assert found is body or b"\xff" in body


def test_the_rest_of_a_body_stays_as_it_was_written():
    body = b'{"temperature": 0.10, "gatewright": {"task": "x"}, "messages": [{"content": "gatewright"}]}'
    assert strip_wishes(body) == b'{"temperature":0.10,"messages":[{"content": "gatewright"}]}'


@given(
    body=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4),
    member=st.none() | st.integers() | st.just({"task": "x"}),
)
def test_only_the_member_is_taken_out(body, member):
    raw = msgspec.json.encode({**body, "gatewright": member})
    assert json.loads(strip_wishes(raw)) == body
    assert strip_wishes(strip_wishes(raw)) == strip_wishes(raw)
