"""What came of the requests: the facts that experience, experiments and reports are made of."""

from attrs import frozen

from gatewright.selection.complexity import TaskComplexity


@frozen(kw_only=True)
class ModelOutcome:
    """How one model did with one request. A request that fell back has one for each model that was asked.

    Attributes:
        request_id: Of which request.
        model: Who was asked.
        success: Whether it did the task: it answered, as far as is known; feedback may say otherwise later.
        at: Seconds, on the clock of whoever is told.
        task: Name of the task; empty where there is none.
        complexity: How hard it was thought to be.
        latency_ms: From the call to the end of the answer.
        first_token_ms: From the call to its first token.
        completion_tokens: Of the answer.
        cost_usd: What it cost.
        score: How good the answer was, 0 to 1, where somebody told.
        is_available: False where the upstream did not answer at all, which says nothing about how good its answers are.
        propensity: Probability with which the model was chosen.
        experiment: Experiment that the request took part in.
        arm: Its arm.
        sequence: Number of the call among those of its request, from 0. With request and model it tells whether two
            outcomes are the same one, heard twice.
        unit: For whom the arm stays the same, as a hash; outcomes of one unit count as one in an experiment. None where
            each request is drawn anew.
    """

    request_id: str
    model: str
    success: bool
    at: float
    task: str = ""
    complexity: TaskComplexity | None = None
    latency_ms: float | None = None
    first_token_ms: float | None = None
    completion_tokens: int = 0
    cost_usd: float = 0.0
    score: float | None = None
    is_available: bool = True
    propensity: float = 1.0
    experiment: str | None = None
    arm: str | None = None
    sequence: int = 0
    unit: str | None = None


@frozen(kw_only=True)
class Feedback:
    """What somebody says of an answer, after the fact.

    A later one about the same request takes the place of an earlier, but a judge's never that of a person.

    Attributes:
        request_id: Of which request.
        score: 0 to 1; 1 for a success, 0 for none.
        at: Seconds, on the clock of whoever is told.
        by: Who says it: "user", "judge" or another name.
        comment: More about it.
    """

    request_id: str
    score: float
    at: float
    by: str = "user"
    comment: str = ""
