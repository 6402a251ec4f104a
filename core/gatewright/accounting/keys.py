"""API keys as objects: what is kept of one, how a presented one is found, and how a wish for one is read.

A secret is 256 random bits, so its SHA-256 says nothing about it and cannot be searched for: the slow hashes that
passwords need would only cost time on each request. Nobody keeps the secret itself.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import evolve, field, fields, frozen

from gatewright.accounting.spending import KeyFacts, Window, WindowKind
from gatewright.configuration.reader import (
    COUNT,
    FLAG,
    TEXTS,
    Kind,
    Place,
    Scalar,
    TableOf,
    real,
    usable_text,
)
from gatewright.configuration.windows import WindowValue
from gatewright.errors import Problem, Unauthorized

SECRET_PREFIX: Final = "gw-"  # noqa: S105  # no secret, only how all of them begin
"""Secrets begin with it, so that scanners for leaked keys can know ours."""
SHOWN_CHARACTERS: Final = 9
"""So many characters of a secret are shown to people: the prefix, and 36 bits of the 256."""

_LONGEST_NAME: Final = 100


def is_configured_key(key_id: str) -> bool:
    """Whether it is the id of a key of the configuration, of which nothing is stored."""
    return key_id.startswith("config:")


def hash_key(secret: str) -> str:
    """What is kept of a secret: its SHA-256, as 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


@frozen(kw_only=True)
class KeyRequest:
    """What somebody wants a key to be.

    Attributes:
        name: For people; it need not be unique.
        expires_s: Unix time from which on it is no longer valid; None for never.
        is_admin: See `KeyFacts`, as all that follows.
        models: Models that it may use; None for all.
        routes: Routes that it may use; None for all.
        requests_per_minute: Limit; None for none.
        tokens_per_minute: Limit; None for none.
        budget_usd: Its own budget; None for none.
        budget_window: Of that budget.
    """

    name: str
    expires_s: float | None = None
    is_admin: bool = False
    models: frozenset[str] | None = None
    routes: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget_usd: float | None = None
    budget_window: Window = field(factory=Window)


@frozen(kw_only=True)
class StoredKey(KeyRequest):
    """A key as it is kept: what it was asked to be, and what the gateway knows of it besides.

    Attributes:
        id: Public id.
        hash: `hash_key` of the secret.
        prefix: Beginning of the secret, by which people know it again.
        created_s: Unix time of its creation.
    """

    id: str
    hash: str = field(repr=False)
    prefix: str = ""
    created_s: float = 0.0

    @classmethod
    def make(cls, key_id: str, secret: str, request: KeyRequest, created_s: float) -> "StoredKey":
        """A new key.

        Args:
            key_id: Its public id.
            secret: What its owner will present; it is not kept.
            request: What it is to be.
            created_s: Unix time.
        """
        return cls(
            id=key_id,
            hash=hash_key(secret),
            prefix=secret[:SHOWN_CHARACTERS],
            created_s=created_s,
            **_wishes(request),
        )

    def changed(self, request: KeyRequest) -> "StoredKey":
        """The same key with other properties; its secret stays."""
        return evolve(self, **_wishes(request))

    @property
    def request(self) -> KeyRequest:
        """What it was asked to be."""
        return KeyRequest(**_wishes(self))

    @property
    def facts(self) -> KeyFacts:
        """What a request that presents it may do."""
        return KeyFacts(
            key_id=self.id,
            name=self.name,
            is_admin=self.is_admin,
            models=self.models,
            routes=self.routes,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            budget_usd=self.budget_usd,
            budget_window=self.budget_window,
        )

    def is_expired(self, now_s: float) -> bool:
        """Whether it is no longer valid at that Unix time."""
        return self.expires_s is not None and now_s >= self.expires_s


def _wishes(request: KeyRequest) -> dict[str, Any]:
    return {each.name: getattr(request, each.name) for each in fields(KeyRequest)}


class KeyBook:
    """All stored keys as they are at present; made anew when one of them changes.

    Args:
        keys: The keys.
        is_read: False where the store could not be asked yet, so that nobody knows who has a key.

    Attributes:
        keys: The keys, in the given order.
        is_read: Whether these are all there are.
    """

    def __init__(self, keys: Iterable[StoredKey] = (), *, is_read: bool = True) -> None:
        self.keys = tuple(keys)
        self.is_read = is_read
        # Whoever wants to learn a hash from the time that the look-up takes would have to choose hashes, not secrets.
        self._by_hash = {key.hash: (key, key.facts) for key in self.keys}

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, token: str, now_s: float) -> KeyFacts | Problem:
        """What a presented key may do, or why it may nothing.

        Args:
            token: The secret as it was presented.
            now_s: Unix time.
        """
        found = self._by_hash.get(hash_key(token))
        if found is None:
            return Unauthorized("The API key is not valid").problem
        key, facts = found
        if key.is_expired(now_s):
            return Unauthorized(
                f"The API key {key.name!r} ({key.prefix}...) has expired; ask for another one"
            ).problem
        return facts


def _name(value: object) -> str | None:
    text = usable_text(value)
    return text if text is not None and len(text) <= _LONGEST_NAME and text.isprintable() else None


def window_to_plain(window: Window) -> str | dict[str, str]:
    """A window as it is read."""
    return {"rolling": window.period} if window.kind is WindowKind.ROLLING else window.period


_NAME: Final = Scalar(f"a printable name of at most {_LONGEST_NAME} characters", _name)
_EXPIRES: Final = real("a Unix time in seconds, above 0", lambda number: number > 0)
_USD: Final = real("a number of US dollars, 0 or more", lambda number: number >= 0)
_KINDS: Final[Mapping[str, Kind[object]]] = {
    "name": _NAME,
    "expires_s": _EXPIRES,
    "is_admin": FLAG,
    "models": TEXTS,
    "routes": TEXTS,
    "requests_per_minute": COUNT,
    "tokens_per_minute": COUNT,
    "budget_usd": _USD,
    "budget_window": WindowValue('one of "hour", "day", "week", "month", or such as {"rolling": "day"}'),
}
_ELSEWHERE: Final = dict.fromkeys(
    ("id", "prefix", "created_s", "hash", "key"), "is given by the gateway and cannot be chosen"
)

KEY_FIELDS: Final = tuple(_KINDS)
"""What may be said of a key."""


def read_key_request(raw: object, place: Place, present: StoredKey | None = None) -> KeyRequest | None:
    """Read a wish for a new key, or for changes to a present one; None once a problem is noted.

    Args:
        raw: Members of a JSON object. For a change, what is not there stays, and null takes a limit away.
        place: Where problems are noted.
        present: The key to be changed; None for a new one.
    """
    before = len(place.problems)
    table = TableOf("an object").read(raw, place)
    if table is None:
        return None
    table.expect_only(KEY_FIELDS, _ELSEWHERE)
    if "name" not in table and (present is None or "name" in table.values):
        place.field("name").refuse(None, _NAME.expected)
    values: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        if name not in table.values:
            continue
        value = table.find(name, kind)
        if value is not None or table.values[name] is None:
            values[name] = value
    if len(place.problems) > before:
        return None
    for name in ("models", "routes"):
        if values.get(name) is not None:
            values[name] = frozenset(values[name])
    for name, default in (("is_admin", False), ("budget_window", Window())):
        if name in values and values[name] is None:
            values[name] = default
    return KeyRequest(**values) if present is None else evolve(present.request, **values)


def key_to_plain(key: StoredKey) -> dict[str, object]:
    """A key as people may see it, under the names that `read_key_request` reads; neither secret nor hash are in it."""
    return {
        **rights_to_plain(key.facts),
        "prefix": key.prefix,
        "created_s": key.created_s,
        "expires_s": key.expires_s,
    }


def rights_to_plain(key: KeyFacts) -> dict[str, object]:
    """What a key may do, under the same names."""
    return {
        "id": key.key_id,
        "name": key.name,
        "is_admin": key.is_admin,
        "models": None if key.models is None else sorted(key.models),
        "routes": None if key.routes is None else sorted(key.routes),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "budget_usd": key.budget_usd,
        "budget_window": window_to_plain(key.budget_window),
    }
