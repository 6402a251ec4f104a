"""What may be done to an experiment by hand."""

from enum import StrEnum

from attrs import evolve

from gatewright.errors import InvalidRequest, NameTaken
from gatewright.route_config import ExperimentConfig, ExperimentState


class ExperimentAction(StrEnum):
    """One thing."""

    STOP = "stop"
    """An arm gets no traffic any more."""
    PROMOTE = "promote"
    """An arm gets all traffic."""
    END = "end"
    """The route is as if there were no experiment."""
    RESUME = "resume"
    """What was done by hand to an arm, or to all of it, is undone."""


def act(
    experiment: ExperimentConfig, state: ExperimentState | None, action: ExperimentAction, arm: str | None
) -> ExperimentState:
    """The state after an action.

    Args:
        experiment: The experiment.
        state: What was done to it before; None for nothing.
        action: What is done.
        arm: To which arm.

    Raises:
        InvalidRequest: There is no such arm, or none is named where one has to be.
        NameTaken: As things stand it makes no sense.
    """
    present = state or ExperimentState(experiment=experiment.name)
    names = [each.name for each in experiment.arms]
    if arm is not None and arm not in names:
        raise InvalidRequest(f"arm: {experiment.name} has no {arm!r}; it has {', '.join(names)}", param="arm")
    match action:
        case ExperimentAction.END:
            return evolve(present, is_ended=True)
        case ExperimentAction.RESUME if arm is None:
            return ExperimentState(experiment=experiment.name)
        case ExperimentAction.RESUME:
            return evolve(
                present,
                promoted=None if present.promoted == arm else present.promoted,
                stopped=tuple([name for name in present.stopped if name != arm]),
            )
        case _ if arm is None:
            raise InvalidRequest(f"arm: missing; {action.value} needs one of {', '.join(names)}", param="arm")
        case ExperimentAction.PROMOTE:
            if arm in present.stopped:
                raise NameTaken(f"{arm} was stopped: resume it before it is promoted")
            return evolve(present, promoted=arm)
        case ExperimentAction.STOP:
            if present.promoted == arm:
                raise NameTaken(f"{arm} was promoted and gets all traffic: resume it before it is stopped")
            stopped = tuple([name for name in names if name in present.stopped or name == arm])
            if len(stopped) == len(names):
                raise NameTaken(f"{arm} is the last arm that is left: end the experiment instead")
            return evolve(present, stopped=stopped)
