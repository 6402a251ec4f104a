"""`gw-cli explain`: the choice of a model and of a variant, without making it."""

from typing import Any, Final, assert_never

import click
from attrs import asdict, frozen

from gatewright.api.transforms import Transform, describe_transform, transform_facts
from gatewright.config import CallTimeouts, Config, ModelConfig
from gatewright.engines.spec import UNBOUNDED_CONTEXT_TOKENS
from gatewright.errors import Problem
from gatewright.route_config import RouteConfig
from gatewright.selection.tokens import TokenEstimate, TokenEstimator
from gatewright.selection.variants import (
    LAST_TOKEN,
    Fits,
    TooLarge,
    Unsure,
    VariantVerdict,
    choose_variant,
    explain_variants,
)
from gatewright_cli import exits
from gatewright_cli.choosing import choose_target
from gatewright_cli.explain_route import explain_route
from gatewright_cli.explain_text import plain_request, print_request, print_route
from gatewright_cli.options import Common, common_options
from gatewright_cli.question import Question, QuestionRequest, join_prompt, make_request
from gatewright_cli.storing import consulting, looking
from gatewright_cli.tables import print_json, print_table
from gatewright_cli.terminal import printable
from gatewright_cli.wishing import wish_options

_LABEL_WIDTH: Final = 8


@frozen(kw_only=True)
class Explanation:
    """How a variant is chosen for one question; all sizes in tokens.

    Attributes:
        model: The model.
        fallbacks: Names of the models that are asked in turn if it fails.
        prompt_bytes: Text of the prompt, in bytes.
        prompt: Bounds for the prompt.
        answer_tokens: What is kept free for the answer.
        reserve_tokens: What would be kept free, were there room.
        answer_is_limit: The question itself limits its answer to that.
        decisive_tokens: The size of the prompt that decides: an upper bound, or the likely one.
        margin_tokens: Safety on top of it.
        need_tokens: Context that is looked for.
        is_sure: No size within the bounds would change the choice.
        is_counted: An exact count is asked for before the choice is made.
        variants: What is said of each.
        problem: Why no variant will do.
        does: What the model's own changes do to the request.
    """

    model: ModelConfig
    fallbacks: tuple[str, ...]
    prompt_bytes: int
    prompt: TokenEstimate
    answer_tokens: int
    reserve_tokens: int
    answer_is_limit: bool
    decisive_tokens: int
    margin_tokens: int
    need_tokens: int
    is_sure: bool
    is_counted: bool
    variants: tuple[VariantVerdict, ...]
    problem: Problem | None
    does: tuple[str, ...]


@click.command()
@click.argument("words", metavar="[PROMPT]...", nargs=-1)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="A configured model, a route, or a GGUF file.  [default: the configuration's]",
)
@click.option("-s", "--system", metavar="TEXT", help="System prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer, in tokens.")
@click.option(
    "--request", "request_id", metavar="ID", help="A decision that was made, by the answer's x-request-id."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@wish_options
@common_options
def command(
    common: Common,
    /,
    *,
    words: tuple[str, ...],
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    request_id: str | None,
    as_json: bool,
    wishes: dict[str, Any],
) -> int:
    """Say which model and which variant of it a question would go to, and why. Nothing is started.

    Of a route the whole ranking is shown: what each model's score is made of, and what the others lost by or failed on.

    The prompt is put together as for `ask`. Its size is an estimate here: a running server has learned from earlier
    answers how many tokens a text makes, and may know better.
    """
    if request_id is not None:
        return _explain_request(common, request_id, as_json=as_json)
    question = Question(prompt=join_prompt(words), system=system, max_tokens=max_tokens, wishes=wishes)
    found = choose_target(common, model)
    request = make_request(found.name, question, found.chosen.config)
    match found.target:
        case ModelConfig() as named:
            explanation = explain(found.chosen.config, named, request)
            if as_json:
                print_json(_as_json(explanation))
            else:
                _print(explanation, verbose=common.verbose)
        case RouteConfig() as route:
            _explain_route(common, found.chosen.config, route, request, as_json=as_json)
        case _ as unreachable:
            assert_never(unreachable)
    return exits.DONE


def _explain_route(
    common: Common, config: Config, route: RouteConfig, request: QuestionRequest, *, as_json: bool
) -> None:
    with consulting(common, config) as opened:
        explained = explain_route(config, route, request, opened, common.state(config))
    if as_json:
        print_json(explained.plain())
        return
    print_route(explained, verbose=common.verbose)
    if explained.decision is not None:
        click.echo()
        chosen = config.find_model(explained.decision.chain[0])
        _print(explain(config, chosen, request, explained.changes), verbose=False, with_changes=False)


def _explain_request(common: Common, request_id: str, *, as_json: bool) -> int:
    with looking(common, quiet=True) as opened:
        stored = opened.store.find_request(request_id) if opened is not None else None
    if stored is None:
        click.echo(f"gw-cli: no request '{printable(request_id)}' is recorded", err=True)
        return exits.FAILED
    if as_json:
        print_json(plain_request(stored))
    else:
        print_request(stored)
    return exits.DONE


def explain(
    config: Config, model: ModelConfig, request: QuestionRequest, changes: tuple[Transform, ...] = ()
) -> Explanation:
    """Ask the core what it would do with a request, knowing nothing of earlier ones.

    Args:
        config: The configuration.
        model: Who gets the request.
        request: The request.
        changes: What it undergoes after the model's own changes.
    """
    own = () if model.transform is None else (model.transform,)
    facts = transform_facts(request.facts, own + changes)
    estimate = TokenEstimator().estimate(model.name, facts)
    verdict = choose_variant(model, facts, estimate)
    reserve = max(facts.answer_tokens if facts.answer_tokens is not None else model.answer_tokens, LAST_TOKEN)
    match verdict:
        case Fits(need_tokens=need):
            # The upper bound decides, unless there is no variant for it: then the likely size does.
            decisive = estimate.high if need >= estimate.high + reserve else estimate.likely
        case Unsure(best_guess=guess):
            decisive, need = estimate.likely, guess.need_tokens
        case TooLarge():
            decisive, need = estimate.likely, estimate.likely + (facts.answer_tokens or LAST_TOKEN)
        case _ as unreachable:
            assert_never(unreachable)
    # The largest variant takes any prompt that it holds: then neither reserve nor margin is kept.
    answer = min(reserve, need - decisive)
    return Explanation(
        model=model,
        fallbacks=tuple(fallback.name for fallback in config.chain_of(model)[1:]),
        prompt_bytes=facts.prompt_bytes,
        prompt=estimate,
        answer_tokens=answer,
        reserve_tokens=reserve,
        answer_is_limit=facts.answer_tokens is not None,
        decisive_tokens=decisive,
        margin_tokens=need - decisive - answer,
        need_tokens=need,
        is_sure=not isinstance(verdict, Unsure),
        is_counted=isinstance(verdict, Unsure) and not model.variants[0].is_remote,
        variants=explain_variants(model, verdict),
        problem=verdict.problem if isinstance(verdict, TooLarge) else None,
        does=() if model.transform is None else describe_transform(model.transform),
    )


def _print(explanation: Explanation, *, verbose: bool, with_changes: bool = True) -> None:
    size = explanation.prompt
    bound = "at most" if explanation.decisive_tokens == size.high else "likely"
    lines = {
        "model": explanation.model.name,
        "prompt": f"{size.low} to {size.high} tokens, likely {size.likely} ({explanation.prompt_bytes} bytes, estimated)",
        "answer": f"{explanation.answer_tokens} tokens ({_answer_text(explanation)})",
        "margin": f"{explanation.margin_tokens} tokens",
        "need": f"{explanation.need_tokens} tokens (prompt of {bound} {explanation.decisive_tokens}, answer, margin)",
        "count": _count_text(explanation),
    }
    if explanation.fallbacks:
        lines["then"] = f"{', '.join(explanation.fallbacks)} (in turn, if it fails)"
    if explanation.does and with_changes:
        lines["changes"] = "; ".join(explanation.does)
    if verbose:
        lines["calls"] = _calls_text(explanation.model)
        lines["limits"] = _limits_text(explanation.model.timeouts)
    for label, text in lines.items():
        click.echo(f"{click.style(label.ljust(_LABEL_WIDTH), dim=True)}{printable(text)}")
    click.echo()
    rows = [(_context_text(verdict.context_tokens), verdict.verdict) for verdict in explanation.variants]
    print_table(("CONTEXT", "VERDICT"), rows, right=frozenset((0,)))
    if explanation.problem is not None:
        click.echo(f"\n{explanation.problem.message}")


def _answer_text(explanation: Explanation) -> str:
    if explanation.answer_is_limit:
        return "limit of the request"
    if explanation.answer_tokens < explanation.reserve_tokens:
        return f"no variant has room for the reserve of {explanation.reserve_tokens} as well"
    return "reserve: answer_tokens"


def _count_text(explanation: Explanation) -> str:
    if explanation.is_sure:
        return "not needed: every size within these bounds leads to the same choice"
    if not explanation.is_counted:
        return "not possible for a remote provider; the likely size decides"
    program = ", else the tokenizer program" if explanation.model.tokenization is not None else ""
    return f"asked of a running engine of the model{program}, else the likely size decides"


def _calls_text(model: ModelConfig) -> str:
    most = "" if model.max_attempts is None else f", at most {model.max_attempts} calls over all models"
    retries = "1 retry" if model.retries == 1 else f"{model.retries or 'no'} retries"
    return f"{retries} of a failed call{most}"


def _limits_text(timeouts: CallTimeouts) -> str:
    limits = _limits(timeouts).items()
    return ", ".join(f"{name} {'-' if seconds is None else f'{seconds:g} s'}" for name, seconds in limits)


def _limits(timeouts: CallTimeouts) -> dict[str, float | None]:
    """The timeouts by their names in the configuration file."""
    return {name.removesuffix("_s"): seconds for name, seconds in asdict(timeouts).items()}


def _context_text(context_tokens: int) -> str:
    return "-" if context_tokens == UNBOUNDED_CONTEXT_TOKENS else str(context_tokens)


def _as_json(explanation: Explanation) -> dict[str, Any]:
    size = explanation.prompt
    return {
        "model": explanation.model.name,
        "fallbacks": list(explanation.fallbacks),
        "transform": list(explanation.does),
        "retries": explanation.model.retries,
        "max_attempts": explanation.model.max_attempts,
        "timeouts": _limits(explanation.model.timeouts),
        "prompt": {
            "bytes": explanation.prompt_bytes,
            "low": size.low,
            "likely": size.likely,
            "high": size.high,
        },
        "answer_tokens": explanation.answer_tokens,
        "margin_tokens": explanation.margin_tokens,
        "need_tokens": explanation.need_tokens,
        "exact_count": explanation.is_counted,
        "variants": [
            {
                "context_tokens": verdict.context_tokens,
                "verdict": verdict.verdict,
                "acceptable": verdict.acceptable,
            }
            for verdict in explanation.variants
        ],
        "error": explanation.problem.message if explanation.problem is not None else None,
    }
