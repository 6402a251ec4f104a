"""A decision that was made, in lines for people."""

from gatewright.commands import RecordRequest
from gatewright.selection.decision import Decision
from gatewright_cli.sheets import as_money


def decision_lines(record: RecordRequest) -> list[str]:
    """How the model of a request was chosen, and what the answer cost; the request's id among them."""
    lines = [f"request {record.request_id}"]
    decision = record.decision
    if decision is not None:
        lines.append(f"{decision.route or 'choice'}: {decision.reason}")
        lines.append(f"score {decision.score:.3f}, confidence {decision.confidence:.2f}{_chance(decision)}")
        lines.append(complexity_text(decision))
        lines.append(f"chain: {', '.join(decision.chain)}")
        if decision.relaxed:
            lines.append(f"given up: {', '.join(decision.relaxed)}")
        if decision.experiment is not None:
            lines.append(f"experiment {decision.experiment}, arm {decision.arm}")
    if decision is not None or record.cost_usd:
        estimated = as_money(record.estimated_cost_usd)
        lines.append(f"cost {as_money(record.cost_usd)}, estimated {estimated}")
    return lines


def complexity_text(decision: Decision) -> str:
    """How hard the request was thought to be."""
    if decision.complexity is None:
        return "complexity not estimated"
    score = "" if decision.complexity_score is None else f" ({decision.complexity_score:.2f})"
    by = f", by {decision.estimator}" if decision.estimator else ""
    return f"complexity {decision.complexity.value}{score}{by}"


def _chance(decision: Decision) -> str:
    tried = ", tried out" if decision.explored else ""
    return f", chosen with a chance of {decision.propensity:.2f}{tried}" if decision.propensity < 1 else tried
