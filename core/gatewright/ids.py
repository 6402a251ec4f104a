"""Identifiers: small integers from counters, so that the same events give the same ids."""

from typing import NewType

RequestId = NewType("RequestId", str)
"""Given by the adapter that received the request; also the value of `x-request-id`."""

LeaseId = NewType("LeaseId", int)
"""Given by the Gateway; unique for its holder, not across holders."""

CommandId = NewType("CommandId", int)
"""Given by the machine that issues the command; its completion echoes it."""

HolderId = NewType("HolderId", int)
"""Given by the engine host to each Gateway (in memory or connected by socket) that may hold leases."""

EngineId = NewType("EngineId", int)
"""Given by the Fleet to each process that it starts; never reused, so that late news of an old one is recognised."""
