"""What the async and the blocking driver share of driving a Gateway."""

from collections.abc import Callable
from typing import Final

from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    FailStream,
    RecordRequest,
    SendComment,
    SendProblem,
)
from gatewright.trace import TraceLine

MACHINE: Final = "gateway"
"""Name of the machine in traces."""

RequestCommand = (
    CountTokens
    | CallUpstream
    | BeginRelay
    | DiscardAnswer
    | BeginStream
    | SendComment
    | SendProblem
    | FailStream
    | CutConnection
    | RecordRequest
)
"""Commands that are carried out for their request, in order; `RecordRequest` is always the last."""

Trace = Callable[[TraceLine], None]
"""Takes what a machine was told and answered, in the order in which that happened; it must return at once."""
