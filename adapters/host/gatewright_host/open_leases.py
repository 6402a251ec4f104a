"""What another process's engine host still owes us: made good by ourselves if it goes away."""

from typing import Final

from gatewright.errors import EngineHostLost
from gatewright.ids import LeaseId
from gatewright.leases import LeaseGranted, LeaseLost, LeaseNews, LeaseProgress, LeaseRefused, LoadsTold

_LOST_RETRY_S: Final = 1.0


class OpenLeases:
    """The leases that were asked of a host and are not over yet, and questions that it has not answered."""

    def __init__(self) -> None:
        self._granted: dict[LeaseId, bool] = {}

    def ask(self, lease_id: LeaseId) -> None:
        """The host is asked for this lease."""
        self._granted[lease_id] = False

    def give_back(self, lease_id: LeaseId) -> bool:
        """The lease is released; False if the host knows nothing of it, since it died with another one."""
        return self._granted.pop(lease_id, None) is not None

    def hear(self, news: LeaseNews) -> None:
        """The host says something about a lease."""
        match news:
            case LeaseGranted(lease_id=lease_id):
                if lease_id in self._granted:
                    self._granted[lease_id] = True
            case (
                LeaseRefused(lease_id=lease_id) | LeaseLost(lease_id=lease_id) | LoadsTold(lease_id=lease_id)
            ):
                self._granted.pop(lease_id, None)
            case LeaseProgress():
                pass

    def lose(self) -> list[LeaseNews]:
        """The host is gone. What it would say of each lease if it still could: nothing is open afterwards."""
        over, self._granted = self._granted, {}
        return [lost(lease_id, was_granted=was_granted) for lease_id, was_granted in over.items()]


def lost(lease_id: LeaseId, *, was_granted: bool) -> LeaseNews:
    """That a lease is over with its host."""
    problem = EngineHostLost(
        "the process that owns the engines went away", retry_after_s=_LOST_RETRY_S
    ).problem
    return (LeaseLost if was_granted else LeaseRefused)(lease_id=lease_id, problem=problem)
