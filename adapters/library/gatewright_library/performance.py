"""What is known of one model at one task, in exact figures."""

from collections.abc import Mapping
from typing import Any, Self

from attrs import asdict, fields, frozen


@frozen
class ModelPerformance:
    """How a model has done at a task.

    Attributes:
        model_name: The model.
        ptool_name: The task.
        total_calls: Calls that the model answered.
        successful_calls: Those that did the task.
        avg_latency_ms: Mean time of a call in milliseconds.
        total_cost: US dollars, over all calls.
        last_updated: Time of the last call, ISO 8601 in UTC; None if there was none.
    """

    model_name: str
    ptool_name: str
    total_calls: int = 0
    successful_calls: int = 0
    avg_latency_ms: float = 0.0
    total_cost: float = 0.0
    last_updated: str | None = None

    @property
    def success_rate(self) -> float:
        """Share of the calls that did the task; 0 if there were none."""
        return self.successful_calls / self.total_calls if self.total_calls else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**asdict(self), "success_rate": self.success_rate}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Of what `to_dict` gave; members that it does not know are passed over."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})
