"""What an engine host tells of itself and its engines."""

from attrs import frozen

from gatewright.fleet import EngineStatus


@frozen(kw_only=True)
class EngineReport:
    """One engine.

    Attributes:
        engine: As the Fleet sees it.
        pid: Its process and process group, where one runs.
        memory_bytes: Resident memory of the whole group; shared pages count, such as a mapped model.
    """

    engine: EngineStatus
    pid: int | None = None
    memory_bytes: int | None = None


@frozen(kw_only=True)
class HostStatus:
    """An engine host.

    Attributes:
        pid: Its process.
        version: Of Gatewright in it.
        uptime_s: Seconds since it started.
        detached: Whether it is a process for itself, which ends when nobody needs it.
        holders: Gateways attached.
        engines: All engines that were asked for since it started.
    """

    pid: int
    version: str
    uptime_s: float
    detached: bool
    holders: int
    engines: tuple[EngineReport, ...]
