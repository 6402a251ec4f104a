"""Short ways to write outcomes, feedback and experiments."""

from typing import Any

from gatewright.accounting.experiments import ExperimentBook
from gatewright.accounting.outcomes import Feedback, ModelOutcome
from gatewright.route_config import ArmConfig, ExperimentConfig, ExperimentState

DAY_S = 24 * 3600.0


def outcome(
    number: int = 0, model: str = "m", *, success: bool = True, at: float = 0.0, **more: Any
) -> ModelOutcome:
    return ModelOutcome(request_id=f"r{number}", model=model, success=success, at=at, **more)


def feedback(number: int, score: float, at: float = 0.0, by: str = "user") -> Feedback:
    return Feedback(request_id=f"r{number}", score=score, at=at, by=by)


def experiment(*shares: float, **more: Any) -> ExperimentConfig:
    arms = tuple(ArmConfig(name="abcdef"[number], share=share) for number, share in enumerate(shares))
    return ExperimentConfig(name="prompts", arms=arms, **more)


def state(
    *, promoted: str | None = None, stopped: tuple[str, ...] = (), is_ended: bool = False
) -> ExperimentState:
    return ExperimentState(experiment="prompts", promoted=promoted, stopped=stopped, is_ended=is_ended)


def book_of(**figures: tuple[int, int]) -> ExperimentBook:
    """Requests and successes by arm."""
    book = ExperimentBook()
    for arm, (requests, successes) in figures.items():
        for number in range(requests):
            book.learn(
                ModelOutcome(
                    request_id=f"{arm}{number}",
                    model="m",
                    success=number < successes,
                    at=0.0,
                    experiment="prompts",
                    arm=arm,
                )
            )
    return book
