"""Changes that a request's body undergoes for one model or route, declared in the configuration."""

from enum import StrEnum
from typing import Any

from attrs import field, frozen


class Reasoning(StrEnum):
    """How much a model is to think before it answers."""

    OFF = "off"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@frozen(kw_only=True)
class Transform:
    """What is done to a request's body, in this order.

    Attributes:
        system_prefix: Text put before the system prompt, which is made where there is none.
        merge_system: The system prompt becomes the beginning of the first user message: the model knows no other role.
        defaults: Parameters that are set where the client sets none.
        overrides: Parameters that are set whatever the client says.
        removals: Parameters that are left out.
        stop: Stop sequences besides the client's.
        json_instructions: A wanted JSON schema is described in words in the system prompt, and the parameter left out.
        reasoning: How much to think; None leaves it alone.
    """

    system_prefix: str = ""
    merge_system: bool = False
    defaults: dict[str, Any] = field(factory=dict, hash=False)
    overrides: dict[str, Any] = field(factory=dict, hash=False)
    removals: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    json_instructions: bool = False
    reasoning: Reasoning | None = None
