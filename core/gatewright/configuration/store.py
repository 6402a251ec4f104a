"""The table `store`: where records are kept, which of them, and for how long; and `experience`: what choices learn of it."""

from typing import Final
from urllib.parse import urlsplit

from gatewright.configuration.reader import FLAG, Place, Scalar, Secret, TableOf, one_of, real, usable_text
from gatewright.route_config import BudgetFailure, ExperienceConfig, StoreConfig

STORE_FIELDS: Final = ("url", "enabled", "prompts", "retention_days", "when_unavailable")
EXPERIENCE_FIELDS: Final = ("half_life_days",)


def _url(value: object) -> str | None:
    text = usable_text(value)
    if text is None or any(c.isspace() for c in text):
        return None
    try:
        scheme = urlsplit(text).scheme
    except ValueError:
        return None
    return text if scheme.partition("+")[0] in ("sqlite", "postgresql") and "://" in text else None


# A password may stand in it.
_URL: Final = Secret(
    Scalar(
        'a URL such as "sqlite:////var/lib/gatewright/store.db" or "postgresql+psycopg://user@host/name"',
        _url,
    )
)
_HALF_LIFE: Final = real("a number of days above 0", lambda number: number > 0)
_DAYS: Final = real("a number of days above 0, or false to keep everything", lambda number: number > 0)


def read_store(value: object, place: Place) -> StoreConfig:
    """The global `store`; absent, it takes every default."""
    table = None if value is None else TableOf("a table with named fields").read(value, place)
    if table is None:
        return StoreConfig()
    table.expect_only(STORE_FIELDS, {})
    default = StoreConfig()
    keep_all = table.values.get("retention_days") is False
    return StoreConfig(
        url=table.find("url", _URL),
        enabled=table.get("enabled", FLAG, default.enabled),
        prompts=table.get("prompts", FLAG, default.prompts),
        retention_days=None if keep_all else table.find("retention_days", _DAYS) or default.retention_days,
        when_unavailable=table.get("when_unavailable", one_of(BudgetFailure), default.when_unavailable),
    )


def read_experience(value: object, place: Place) -> ExperienceConfig:
    """The global `experience`; absent, it takes every default."""
    default = ExperienceConfig()
    table = None if value is None else TableOf("a table with named fields").read(value, place)
    if table is None:
        return default
    table.expect_only(EXPERIENCE_FIELDS, {})
    return ExperienceConfig(half_life_days=table.get("half_life_days", _HALF_LIFE, default.half_life_days))
