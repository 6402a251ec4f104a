"""The vocabulary as JSON: `{"LeaseGranted": {"lease_id": 7, ...}}`, a class's name around its fields.

msgspec reads and writes attrs classes natively, but no unions of several of them, no attributes that are
computed and no cached hashes. So a reader and a writer are put together once for each class, out of msgspec's own where the class
has neither, and field by field where it does. Inside a field only unions carry the class's name.
"""

import types
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec

from gatewright import commands, events, leases

Read = Callable[[bytes | msgspec.Raw], Any]
Write = Callable[[Any], Any]


class CodecError(ValueError):
    """What came is none of our messages."""


_SPECS_KEPT: Final = 1024

_decode_envelope: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def _messages() -> dict[str, type]:
    return {
        name: value
        for module in (leases, events, commands)
        for name, value in vars(module).items()
        if isinstance(value, type) and attrs.has(value) and value.__module__ == module.__name__
    }


MESSAGES: Final = types.MappingProxyType(_messages())
"""Every class of `leases`, `events` and `commands` by its name."""


def encode(message: object) -> bytes:
    """One line of JSON, without its end.

    Args:
        message: An instance of one of `MESSAGES`.

    Raises:
        TypeError: It is none (wrong use).
    """
    name = type(message).__name__
    if MESSAGES.get(name) is not type(message):
        raise TypeError(f"{name} is no message")
    write = _writer(MESSAGES[name])
    return _encode({name: message if write is None else write(message)})


def decode(data: bytes | msgspec.Raw) -> object:
    """The message of one line.

    Raises:
        CodecError: It is no JSON, of an unknown class, or a field does not fit. Unknown fields are ignored.
    """
    try:
        return _read_tagged(MESSAGES, data)
    except msgspec.DecodeError as error:
        raise CodecError(str(error)) from error
    except (TypeError, ValueError) as error:  # a field is missing, or no member of its enumeration
        raise CodecError(str(error)) from error


def _read_tagged(
    kinds: "types.MappingProxyType[str, type] | dict[str, type]", data: bytes | msgspec.Raw
) -> Any:
    envelope = _decode_envelope(data)
    if len(envelope) != 1:
        raise CodecError("expected one object with one member, named after a class")
    (name, content), *_ = envelope.items()
    kind = kinds.get(name)
    if kind is None:
        raise CodecError(f"unknown class {name[:100]}")
    return _reader(kind)(content)


# --- writing


@cache
def _writer(kind: Any) -> Write | None:
    """What makes msgspec's food of a value of this type; None if it is that already."""
    if attrs.has(kind):
        return _class_writer(kind)
    members = _attrs_members(kind)
    if len(members) > 1:
        return _write_tagged
    if members:
        write = _writer(members[0])
        return None if write is None else _optional_writer(write)
    if get_origin(kind) is tuple:
        write = _writer(get_args(kind)[0])
        return None if write is None else lambda items: [write(item) for item in items]
    return None


def _class_writer(kind: type) -> Write | None:
    hints = get_type_hints(kind)
    writers = {field.name: _writer(hints[field.name]) for field in attrs.fields(kind) if field.init}
    if not any(writers.values()):
        return None

    def write(value: object) -> dict[str, object]:
        plain = {}
        for name, write_field in writers.items():
            content = getattr(value, name)
            plain[name] = content if write_field is None else write_field(content)
        return plain

    return write


def _optional_writer(write: Write) -> Write:
    return lambda value: None if value is None else write(value)


def _write_tagged(value: object) -> dict[str, object] | None:
    if value is None:
        return None
    kind: Any = type(value)
    write = _writer(kind)
    return {kind.__name__: value if write is None else write(value)}


# --- reading


@cache
def _reader(kind: Any) -> Read:
    if _is_native(kind):
        return msgspec.json.Decoder(kind).decode
    if attrs.has(kind):
        return _class_reader(kind)
    members = _attrs_members(kind)
    if len(members) > 1:
        by_name = {member.__name__: member for member in members}
        read: Read = lambda data: _read_tagged(by_name, data)  # noqa: E731  # a name for the type's sake
    elif members:
        read = _reader(members[0])
    else:
        assert get_origin(kind) is tuple, kind
        read_item = _reader(get_args(kind)[0])
        return lambda data: tuple(read_item(item) for item in _decode_items(data))
    if types.NoneType not in get_args(kind):
        return read
    return lambda data: None if bytes(data) == b"null" else read(data)


def _class_reader(kind: type) -> Read:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in attrs.fields(kind) if field.init}

    def read(data: bytes | msgspec.Raw) -> object:
        content = _decode_envelope(data)
        return kind(**{name: readers[name](item) for name, item in content.items() if name in readers})

    if not _caches_hash(kind):
        return read
    # An engine's specification comes with every lease: most often it is one that came before.
    read_text = lru_cache(_SPECS_KEPT)(read)
    return lambda data: read_text(bytes(data))


@cache
def _is_native(kind: Any) -> bool:
    """Whether msgspec reads the type by itself."""
    if attrs.has(kind):
        if _caches_hash(kind):
            return False
        hints = get_type_hints(kind)
        return all(field.init and _is_native(hints[field.name]) for field in attrs.fields(kind))
    if len(_attrs_members(kind)) > 1:
        return False
    return all(_is_native(argument) for argument in get_args(kind) if argument is not Ellipsis)


def _caches_hash(kind: type) -> bool:
    """Whether attrs keeps the hash in the instance, in a slot that msgspec leaves without a value."""
    return "_attrs_cached_hash" in vars(kind)


def _attrs_members(kind: Any) -> tuple[type, ...]:
    """The attrs classes of a union."""
    if get_origin(kind) not in {Union, types.UnionType}:
        return ()
    return tuple(member for member in get_args(kind) if attrs.has(member))
