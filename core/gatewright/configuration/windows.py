"""The time over which a budget counts, as the configuration and the management of keys have it."""

from typing import Final

from attrs import frozen

from gatewright.accounting.spending import Window, WindowKind
from gatewright.configuration.reader import Place, Scalar, TableOf

WINDOW_FIELDS: Final = ("rolling",)
PERIODS: Final = ("hour", "day", "week", "month")
PERIOD: Final = Scalar(
    " or ".join(f'"{period}"' for period in PERIODS),
    lambda value: value.lower() if isinstance(value, str) and value.lower() in PERIODS else None,
)


@frozen
class WindowValue:
    """A calendar period, or a rolling one.

    Attributes:
        expected: What is allowed, in the notation of whoever writes it.
    """

    expected: str

    def read(self, value: object, place: Place) -> Window | None:
        """The window; None after a problem."""
        if isinstance(value, str):
            period = PERIOD.read(value, place)
            return None if period is None else Window(kind=WindowKind.CALENDAR, period=period)
        table = TableOf(self.expected).read(value, place)
        if table is None:
            return None
        table.expect_only(WINDOW_FIELDS, {})
        period = table.require("rolling", PERIOD)
        return None if period is None else Window(kind=WindowKind.ROLLING, period=period)
