"""What the async and the blocking driver share of driving a Gateway."""

import random
import secrets
from time import monotonic
from typing import Final

from gatewright.commands import (
    BeginRelay,
    BeginStream,
    CallUpstream,
    CountTokens,
    CutConnection,
    DiscardAnswer,
    EstimateComplexity,
    FailStream,
    RecordRequest,
    ReserveSpend,
    SendComment,
    SendProblem,
)
from gatewright.config import Config
from gatewright.events import GatewayStarted
from gatewright.gateway import Gateway
from gatewright.selection.beliefs import Chance
from gatewright.tracing.trace import Trace, TraceLine

MACHINE: Final = "gateway"
"""Name of the machine in traces."""
NO_OFFICE: Final = "this process keeps no records"
_SEED_BITS: Final = 48
"""Every reader of JSON takes a number of so many for a whole one."""

RequestCommand = (
    EstimateComplexity
    | ReserveSpend
    | CountTokens
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


def make_gateway(config: Config, trace: Trace | None) -> Gateway:
    """A new Gateway, whose trace begins with how it was made.

    Args:
        config: Configuration.
        trace: Told of every event and its commands; None tells nobody.
    """
    seed = secrets.randbits(_SEED_BITS)
    if trace is not None:
        started = GatewayStarted(config=config, seed=seed)
        trace(TraceLine(machine=MACHINE, now=monotonic(), event=started, commands=()))
    return Gateway(config, make_chance(seed))


def make_chance(seed: int) -> Chance:
    """Random numbers: the same ones for the same seed."""
    return random.Random(seed)  # noqa: S311  # spreads repetitions over time, explores, and keeps no secret
