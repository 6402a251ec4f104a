"""What `gw-cli explain` says of routes and of decisions that were made, for people."""

from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec

from gatewright.selection.complexity import ComplexityEstimate
from gatewright.selection.decision import Exploration, RankedModel
from gatewright_cli.decisions import decision_lines
from gatewright_cli.explain_route import RouteExplanation
from gatewright_cli.sheets import as_money, as_ms
from gatewright_cli.spans import date_text
from gatewright_cli.tables import print_table
from gatewright_cli.terminal import printable
from gatewright_host.store.vocabulary import StoredRequest

_LABEL_WIDTH: Final = 12
_TERMS: Final = ("quality", "cost", "latency", "readiness")


def print_labelled(lines: Mapping[str, str]) -> None:
    """Lines with their names before them."""
    for label, text in lines.items():
        click.echo(f"{click.style(label.ljust(_LABEL_WIDTH), dim=True)}{printable(text)}")


def print_route(explanation: RouteExplanation, *, verbose: bool) -> None:
    """All about a choice; with `verbose` also where each value comes from."""
    print_labelled(_head(explanation))
    if explanation.estimate is not None and explanation.estimate.dimensions:
        click.echo()
        _print_dimensions(explanation.estimate)
    if explanation.ranked:
        click.echo()
        _print_ranking(explanation)
    if verbose:
        _print_details(explanation.ranked)
    if explanation.rejections:
        click.echo()
        rows = [(each.model, each.criterion, each.reason) for each in explanation.rejections]
        print_table(("REJECTED", "BY", "WHY"), rows)
    if explanation.problem is not None:
        click.echo(f"\n{explanation.problem.message}")


def _head(explanation: RouteExplanation) -> dict[str, str]:
    lines = {"route": explanation.route.name}
    if explanation.task:
        lines["task"] = explanation.task
    lines["complexity"] = _complexity_text(explanation)
    decision = explanation.decision
    if decision is not None:
        lines["choice"] = decision.reason
        lines["confidence"] = f"{decision.confidence:.2f}"
        lines["chain"] = ", ".join(explanation.chain)
        if decision.relaxed:
            lines["given up"] = ", ".join(decision.relaxed)
    if explanation.route.exploration is Exploration.THOMPSON:
        lines["exploration"] = "a server draws; this is the order by expectation"
    if explanation.engines:
        lines["engines"] = explanation.engines
    lines["learnt"] = f"from {explanation.outcomes} outcomes"
    if explanation.arm is not None:
        lines["arm"] = f"{explanation.arm} (of an experiment; another user may be in another one)"
    for name, does in explanation.transforms:
        lines[f"for {name}"] = "; ".join(does)
    if explanation.budgets:
        lines["budgets"] = "; ".join(
            f"{use.account}: {as_money(use.left_usd)} of {as_money(use.limit_usd)} left"
            for use in explanation.budgets
        )
    return lines


def _complexity_text(explanation: RouteExplanation) -> str:
    estimate = explanation.estimate
    if estimate is None:
        return "not estimated"
    text = f"{estimate.complexity.value} ({estimate.score:.2f}, sure to {estimate.confidence:.2f})"
    return f"{text}, {explanation.estimate_note or f'by {estimate.estimator}'}"


def _print_dimensions(estimate: ComplexityEstimate) -> None:
    rows = [
        (each.name, f"{each.score:.2f}", f"{each.weight:.2f}", each.reason) for each in estimate.dimensions
    ]
    print_table(("DIMENSION", "SCORE", "WEIGHT", "WHY"), rows, right=frozenset((1, 2)))


def _print_ranking(explanation: RouteExplanation) -> None:
    chosen = explanation.decision.chain[0] if explanation.decision is not None else None
    rows = []
    for each in explanation.ranked:
        values = {term.name: f"{term.value:.2f}*{term.weight:.2f}" for term in each.terms}
        why = "chosen" if each.model == chosen else explanation.why_not.get(each.model, "best by expectation")
        rows.append(
            (
                each.model,
                f"{each.score:.3f}",
                *[values.get(name, "") for name in _TERMS],
                as_money(each.estimated_cost_usd),
                as_ms(each.expected_latency_ms),
                why,
            )
        )
    heads = ("MODEL", "SCORE", *[name.upper() for name in _TERMS], "COSTS", "TAKES", "WHY")
    print_table(heads, rows, right=frozenset(range(1, 8)))


def _print_details(ranked: tuple[RankedModel, ...]) -> None:
    for each in ranked:
        click.echo(f"\n{each.model}")
        for term in each.terms:
            click.echo(f"  {term.name.ljust(_LABEL_WIDTH)}{printable(term.detail)}")


def print_request(found: StoredRequest) -> None:
    """A request that was written down: how its model was chosen, and what came of it."""
    record = found.record
    print_labelled(
        {
            "request": str(record.request_id),
            "ended": f"{date_text(found.at_s)} UTC, {record.outcome.value}, status {record.status}",
            "model": record.model or "-",
            **({"task": record.task} if record.task else {}),
        }
    )
    lines = decision_lines(record)[1:]
    for line in lines if record.decision is not None else ["the client named the model", *lines]:
        click.echo(printable(line))
    if record.outcomes:
        click.echo()
        _print_calls(found)
    for said in found.feedback:
        comment = f": {said.comment}" if said.comment else ""
        click.echo(printable(f"feedback {said.score:g} by {said.by}{comment}"))


def _print_calls(found: StoredRequest) -> None:
    rows = [
        (
            each.model,
            "answered" if each.success else "failed" if each.is_available else "not reached",
            as_ms(each.latency_ms),
            as_ms(each.first_token_ms),
            str(each.completion_tokens),
            as_money(each.cost_usd),
        )
        for each in found.record.outcomes
    ]
    print_table(("CALL", "RESULT", "LATENCY", "TTFT", "OUT", "COST"), rows, right=frozenset((2, 3, 4, 5)))


def plain_request(found: StoredRequest) -> dict[str, Any]:
    """The same as JSON has it, without what is not kept."""
    document: dict[str, Any] = msgspec.to_builtins(found.record)
    for unkept in ("charges", "charged_usd", "judge"):
        document.pop(unkept, None)
    return {**document, "at_s": found.at_s, "feedback": msgspec.to_builtins(found.feedback)}
