import enum
import types
import typing
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright import codec, commands, events, leases
from gatewright.config import Config
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright.events import ConfigReplaced, LeaseAsked, Woke
from gatewright.ids import HolderId, LeaseId
from gatewright.leases import LeaseEngine, LeaseGranted, ReleaseLease

PRIMITIVES = {
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=8),
    type(None): st.none(),
    object: st.none(),
    Any: st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8)),
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, as its annotation says."""
    if isinstance(kind, typing.NewType):
        return values_of(kind.__supertype__)
    if attrs.has(kind):
        hints = get_type_hints(kind)
        return st.builds(
            kind, **{field.alias: values_of(hints[field.name]) for field in attrs.fields(kind) if field.init}
        )
    if get_origin(kind) in {Union, types.UnionType}:
        return st.one_of(*map(values_of, get_args(kind)))
    if get_origin(kind) is dict:
        return st.dictionaries(*map(values_of, get_args(kind)), max_size=2)
    if get_origin(kind) is tuple:
        item, *rest = get_args(kind)
        if rest == [Ellipsis]:
            return st.lists(values_of(item), max_size=2).map(tuple)
        return st.tuples(values_of(item), *map(values_of, rest))
    if get_origin(kind) is frozenset:
        return st.frozensets(values_of(get_args(kind)[0]), max_size=2)
    if kind in PRIMITIVES:
        return PRIMITIVES[kind]
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    raise AssertionError(kind)


SPEC = EngineSpec(model="m", context_tokens=8, connect="http://x", process=ProcessSpec(binary="b"))


@pytest.mark.parametrize("name", codec.MESSAGES)
def test_every_message_comes_back_as_it_was(name: str) -> None:
    @given(values_of(codec.MESSAGES[name]))
    def comes_back(message: object) -> None:
        line = codec.encode(message)
        assert b"\n" not in line
        again = codec.decode(line)
        assert again == message
        assert type(again) is type(message)

    comes_back()


def test_it_knows_the_whole_vocabulary() -> None:
    for union in (events.GatewayEvent, events.FleetEvent, commands.GatewayCommand, commands.FleetCommand):
        for kind in get_args(union):
            assert codec.MESSAGES[kind.__name__] is kind
    assert leases.LeaseEngine in codec.MESSAGES.values()


def test_it_is_read_easily_by_people() -> None:
    granted = LeaseGranted(lease_id=LeaseId(7), context_tokens=8, base_url="http://x")
    assert (
        codec.encode(granted)
        == b'{"LeaseGranted":{"base_url":"http://x","context_tokens":8,"is_probe":false,"lease_id":7}}'
    )


def test_decoded_specifications_can_be_looked_up() -> None:
    asked = LeaseAsked(holder=HolderId(1), request=LeaseEngine(lease_id=LeaseId(1), variants=(SPEC,)))
    again = codec.decode(codec.encode(asked))
    assert isinstance(again, LeaseAsked)
    assert isinstance(again.request, LeaseEngine)
    assert {SPEC: "found"}[again.request.variants[0]] == "found"


def test_a_configuration_finds_its_models_again() -> None:
    config = Config(models=())
    again = codec.decode(codec.encode(ConfigReplaced(config=config)))
    assert isinstance(again, ConfigReplaced)
    assert again.config.default_model is None


def test_unknown_fields_are_ignored() -> None:
    assert codec.decode(b'{"ReleaseLease":{"lease_id":1,"news":[{}]}}') == ReleaseLease(lease_id=LeaseId(1))
    assert codec.decode(b'{"Woke":{"x":1}}') == Woke()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"{}",
        b"[1]",
        b'{"Woke":{}',
        b"\xff\xfe",
        b'{"Woke":3}',
        b'{"Woke":{},"Woke2":{}}',
        b'{"EngineSpec":{}}',
        b'{"HolderGone":{}}',
        b'{"HolderGone":{"holder":"1"}}',
        b'{"LeaseAsked":{}}',
        b'{"LeaseAsked":{"holder":1,"request":{"Woke":{}}}}',
        b'{"LeaseAsked":{"holder":1,"request":null}}',
        b'{"LeaseEngine":{"lease_id":1,"variants":{}}}',
        b'{"LeaseEngine":{"lease_id":1,"variants":[{"model":1}]}}',
        b'{"LeaseEngine":{"lease_id":1,"variants":[],"purpose":"fun"}}',
    ],
)
def test_anything_else_is_one_kind_of_error(line: bytes) -> None:
    with pytest.raises(codec.CodecError):
        codec.decode(line)


def test_writing_what_is_no_message_is_wrong_use() -> None:
    with pytest.raises(TypeError, match="EngineSpec is no message"):
        codec.encode(SPEC)
