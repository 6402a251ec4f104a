"""`/api/experiments`: how comparisons on routes stand, and what may be done to them by hand."""

from typing import Final

import msgspec

from gatewright.accounting.experiment_actions import ExperimentAction, act
from gatewright.accounting.experiments import report
from gatewright.errors import InvalidRequest, NotFound
from gatewright.route_config import ExperimentConfig, ExperimentState, RouteConfig
from gatewright_host.management.answering import (
    Document,
    Reply,
    as_list,
    expect_members,
    read_object,
    text_of,
)
from gatewright_host.management.asking import Asking
from gatewright_host.store.analytics_experiments import experiment_book

_MEMBERS: Final = ("action", "arm")


def answer_collection(asked: Asking) -> Reply:
    """All experiments of the configuration, with their reports."""
    return as_list(
        [
            _shown(asked, route, route.experiment)
            for route in asked.config.routes
            if route.experiment is not None
        ]
    )


def answer_one(asked: Asking) -> Reply:
    """One experiment: show it, or do something to it."""
    route, experiment = _find(asked)
    if asked.method == "POST":
        document = read_object(asked.body)
        expect_members(document, _MEMBERS)
        action = _action(text_of(document, "action"))
        arm = text_of(document, "arm") if document.get("arm") is not None else None
        state = act(experiment, _state(asked, experiment), action, arm)
        asked.store.set_experiment_state(state)
        asked.find_office().keeper.look_soon()
    return Reply(document=_shown(asked, route, experiment))


def _find(asked: Asking) -> tuple[RouteConfig, ExperimentConfig]:
    for route in asked.config.routes:
        if route.experiment is not None and route.experiment.name == asked.item:
            return route, route.experiment
    raise NotFound(f"There is no experiment {asked.item[:100]!r}; GET /api/experiments lists them")


def _action(name: str) -> ExperimentAction:
    try:
        return ExperimentAction(name)
    except ValueError:
        known = ", ".join(each.value for each in ExperimentAction)
        raise InvalidRequest(f"action: expected one of {known}", param="action") from None


def _state(asked: Asking, experiment: ExperimentConfig) -> ExperimentState | None:
    states = asked.store.experiment_states()
    return next((state for state in states if state.experiment == experiment.name), None)


def _shown(asked: Asking, route: RouteConfig, experiment: ExperimentConfig) -> Document:
    found = report(experiment, experiment_book(asked.store, experiment.name), _state(asked, experiment))
    document: Document = msgspec.to_builtins(found)
    name = document.pop("experiment")
    return {
        "object": "experiment",
        "name": name,
        "route": route.name,
        "sticky": experiment.sticky.value,
        "effect": msgspec.to_builtins(found.effect),
        **document,
    }
