"""What is said on the command line about the choice of the model."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from gatewright.selection.criteria import Prefer
from gatewright.selection.profiles import Capability, Feature

_CRITERIA: Final = {
    "capabilities": "capabilities",
    "features": "features",
    "max_cost": "max_cost_per_1k",
    "max_latency": "max_latency_ms",
    "min_quality": "min_quality",
}
"""Options and the criteria of the API that they set."""


def wish_options(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a subcommand the options that say which model is wanted, as its argument `wishes`, in the API's words."""

    @click.option("--task", metavar="NAME", help="Name of the task, by which outcomes are told apart.")
    @click.option(
        "--capability", "capabilities", type=click.Choice([each.value for each in Capability]), multiple=True,
        help="What the model must be good at; several times for several.",
    )  # fmt: skip
    @click.option(
        "--feature", "features", type=click.Choice([each.value for each in Feature]), multiple=True,
        help="What its API must do; several times for several.",
    )  # fmt: skip
    @click.option(
        "--max-cost", type=click.FloatRange(min=0), metavar="USD", help="Highest price of 1,000 tokens."
    )
    @click.option(
        "--max-latency", type=click.FloatRange(min=0, min_open=True), metavar="MS",
        help="Longest expected time of the answer, in milliseconds.",
    )  # fmt: skip
    @click.option(
        "--min-quality", type=click.FloatRange(0, 1), metavar="Q", help="Least expected quality, 0 to 1."
    )
    @click.option(
        "--prefer",
        type=click.Choice([each.value for each in Prefer]),
        help="What matters most to the choice.",
    )
    @wraps(function)
    def wrapper(*args: Any, task: str | None, prefer: str | None, **options: Any) -> int:
        said = {criterion: options.pop(option) for option, criterion in _CRITERIA.items()}
        criteria = {name: value for name, value in said.items() if value not in {None, ()}}
        wishes = {"task": task, "prefer": prefer, "criteria": criteria or None}
        given = {name: value for name, value in wishes.items() if value is not None}
        return function(*args, wishes=given, **options)

    return wrapper
