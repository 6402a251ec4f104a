"""Experiments: who is in which arm. What follows from the outcomes is in `experiment_rules`, reports in `experiment_report`.

Arms are drawn by an exponential race (weighted rendezvous hashing): each arm's hash of the unit is divided by its share,
and the least wins, so each arm wins with the chance of its share. An arm that leaves the race changes nothing for units
that others have won, and leaves its own to the others in proportion to their shares; when it comes back it gets the same
units again. The same holds for arms that are added. No process needs to remember who is where.
"""

from hashlib import blake2b
from math import log
from typing import Final

from attrs import frozen

from gatewright.accounting.experiment_book import ExperimentBook
from gatewright.accounting.experiment_report import ArmReport, Effect, ExperimentReport, report
from gatewright.accounting.experiment_rules import derived_state, live_arms
from gatewright.route_config import ArmConfig, ExperimentConfig, ExperimentState, Sticky

__all__ = [
    "ArmReport",
    "Assignment",
    "Effect",
    "ExperimentBook",
    "ExperimentReport",
    "assign",
    "derived_state",
    "live_arms",
    "report",
]

_HASH_BYTES: Final = 8


@frozen
class Assignment:
    """The arm of one request.

    Attributes:
        arm: The arm.
        propensity: Chance of it, as the experiment stands.
        unit: For the request's outcomes: for whom the arm stays the same, as a hash; None where each request is drawn
            anew.
    """

    arm: ArmConfig
    propensity: float
    unit: str | None = None


def assign(
    experiment: ExperimentConfig, state: ExperimentState | None, book: ExperimentBook, unit: str
) -> Assignment:
    """The arm of a request; always the same for the same unit as long as that arm gets traffic.

    Args:
        experiment: The experiment. Nobody is to be assigned to one that was ended by hand.
        state: What was done to it by hand.
        book: What came of it.
        unit: User, session or request.
    """
    live = live_arms(experiment, derived_state(experiment, book, state))
    arm = live[0] if len(live) == 1 else min(live, key=lambda arm: _finish(experiment, arm, unit))
    total = sum([each.share for each in live])
    return Assignment(
        arm=arm,
        propensity=arm.share / total if len(live) > 1 else 1.0,
        unit=None if experiment.sticky is Sticky.REQUEST else _hash(experiment.name, unit).hex(),
    )


def _finish(experiment: ExperimentConfig, arm: ArmConfig, unit: str) -> float:
    """When an arm arrives in the race for a unit."""
    number = int.from_bytes(_hash(experiment.name, arm.name, unit), "big")
    return -log((number + 1) / 256**_HASH_BYTES) / arm.share


def _hash(*texts: str) -> bytes:
    # Lengths go before the texts, so that no two lists of texts are the same bytes.
    data = b"".join(
        len(encoded).to_bytes(4, "big") + encoded
        for encoded in [text.encode("utf-8", "surrogatepass") for text in texts]
    )
    return blake2b(data, digest_size=_HASH_BYTES).digest()
