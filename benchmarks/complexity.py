"""How well estimators tell which prompts a weak model fails on, measured on a table of outcomes.

Usage: python benchmarks/complexity.py DATA... [options]
       python benchmarks/complexity.py --synthetic 3000

DATA are files or directories; docs/complexity.md has their layouts. AUROC: the chance that a prompt on which the weak
model failed scores higher than one on which it did not. APGR: the average performance gap recovered between the weak and
the strong model, over all shares of strong calls. Chance gives 0.5 in both.
"""

import argparse
import contextlib
import hashlib
import json
import random
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from outcome_tables import Columns, Row, TableError, read_tables, synthetic_rows
from routing_measures import Array, Measured, measure, measure_chance

from gatewright.selection.complexity_heuristic import DIMENSIONS, estimate_complexity
from gatewright.selection.complexity_prompt import ANSWER_TOKENS, estimation_messages, read_estimation
from gatewright.selection.signals import signals_of_text
from gatewright_host.estimators.custom import CustomEstimators, EstimatorError, Task
from gatewright_host.estimators.learned import BATCH, REMEMBERED, REPEATED

FOLDS = 5


@frozen
class Scores:
    """What one estimator says of all prompts.

    Attributes:
        name: Of the estimator.
        failure: How likely the weak model is to fail, on any scale.
        gain: How much the strong one would be better, on any scale; often the same.
    """

    name: str
    failure: Array
    gain: Array


def by_heuristic(rows: Sequence[Row]) -> Iterator[Scores]:
    estimates = [estimate_complexity(signals_of_text("", "", {"prompt": row.prompt})) for row in rows]
    whole = np.array([estimate.score for estimate in estimates])
    yield Scores("heuristic", whole, whole)
    for place, name in enumerate(DIMENSIONS):
        part = np.array([estimate.dimensions[place].score for estimate in estimates])
        if name != "size" and len(np.unique(part)) > 1:
            yield Scores(f"- its {name}", part, part)


def by_learning(rows: Sequence[Row], weak: str, strong: str, seed: int) -> Scores:
    """Each fold is judged by what was learned from the others; the same prompt is never on both sides."""
    from gatewright_host.estimators.learned_model import LearnedModel  # noqa: PLC0415 - the optional extra

    folds = np.array([_fold(row.prompt) for row in rows])
    failure, gain = np.zeros(len(rows)), np.zeros(len(rows))
    features = None
    for fold in range(FOLDS):
        model, chance = LearnedModel(), random.Random(seed)
        features = features or [model.features(row.prompt) for row in rows]
        learned = [
            (name, features[place], row.scores[name] >= 0.5)
            for place, row in enumerate(rows)
            if folds[place] != fold
            for name in (weak, strong)
        ]
        chance.shuffle(learned)
        for start in range(0, len(learned), BATCH):
            known = learned[max(0, start - REMEMBERED) : start]
            again = chance.choices(known, k=BATCH * REPEATED) if known else ()
            model.learn(learned[start : start + BATCH], again)
        for place in np.flatnonzero(folds == fold):
            chances = [model.chance(name, features[place]) for name in (weak, strong)]
            failure[place], gain[place] = 1 - chances[0], chances[1] - chances[0]
    return Scores(f"learned, {FOLDS} folds", failure, gain)


def by_model(rows: Sequence[Row], url: str, model: str) -> Scores:
    """A model that is asked, by way of a running gateway or any other OpenAI-compatible server."""
    scores = []
    for row in rows:
        body = {
            "model": model,
            "messages": estimation_messages("", row.prompt),
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
        }
        request = urllib.request.Request(
            f"{url.rstrip('/')}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            said = read_estimation(json.load(answer)["choices"][0]["message"]["content"] or "")
        scores.append(said.score if said else float("nan"))
    found = np.array(scores)
    silent = np.isnan(found)
    print(f"{model} named a level for {len(rows) - silent.sum()} of {len(rows)} prompts", file=sys.stderr)
    found[silent] = np.nanmean(found) if not silent.all() else 0.5
    return Scores(f"model {model}", found, found)


def by_function(rows: Sequence[Row], name: str) -> Scores:
    estimators = CustomEstimators()
    found = np.array(
        [
            estimators.estimate(name, Task(row.task), {"prompt": row.prompt}, timeout_s=60.0).score
            for row in rows
        ]
    )
    return Scores(f"custom {name}", found, found)


def _fold(prompt: str) -> int:
    """By its text, so that a prompt that stands twice is in one fold."""
    return (
        int.from_bytes(hashlib.sha256(prompt.strip().encode("utf-8", "surrogatepass")).digest()[:4], "big")
        % FOLDS
    )


def choose_pair(rows: Sequence[Row], weak: str | None, strong: str | None) -> tuple[str, str]:
    """The named models, or the worst and the best on average."""
    names = sorted({name for row in rows for name in row.scores})
    for name in (weak, strong):
        if name is not None and name not in names:
            raise TableError(f"There is no model {name!r}; there are: {', '.join(names)}")
    means = {name: float(np.mean([row.scores[name] for row in rows if name in row.scores])) for name in names}
    chosen = (
        weak or min(names, key=lambda name: means[name]),
        strong or max(names, key=lambda name: means[name]),
    )
    if means[chosen[0]] >= means[chosen[1]]:
        raise TableError(
            f"{chosen[1]} (mean score {means[chosen[1]]:.3f}) is no better than {chosen[0]} ({means[chosen[0]]:.3f}): "
            "there is no gap to recover; choose others with --weak and --strong"
        )
    return chosen


def run(rows: Sequence[Row], options: argparse.Namespace) -> dict[str, object]:
    weak, strong = choose_pair(rows, options.weak, options.strong)
    rows = [row for row in rows if weak in row.scores and strong in row.scores]
    if options.sample and len(rows) > options.sample:
        rows = random.Random(options.seed).sample(rows, options.sample)
    failed = np.array([row.scores[weak] < 0.5 for row in rows])
    gains = np.array([row.scores[strong] - row.scores[weak] for row in rows])
    if failed.all() or not failed.any():
        raise TableError(
            f"{weak} fails {'always' if failed.all() else 'never'}: there is nothing to tell apart"
        )
    length = np.array([len(row.prompt) for row in rows], dtype=float)
    found = [Scores("prompt length", length, length), *by_heuristic(rows)]
    makers: list[Callable[[], Scores]] = [lambda: by_learning(rows, weak, strong, options.seed)]
    if options.function:
        makers.append(lambda: by_function(rows, options.function))
    if options.ask:
        makers.append(lambda: by_model(rows, options.ask, options.ask_model))
    found += [make() for make in makers]
    bootstrap = {"rounds": options.rounds, "seed": options.seed}
    results = {
        scores.name: measure(scores.failure, scores.gain, failed, gains, **bootstrap) for scores in found
    }
    results["shuffled control"] = measure_chance(length, failed, gains, **bootstrap)
    return {
        "prompts": len(rows),
        "weak": {"name": weak, "mean": float(np.mean([row.scores[weak] for row in rows])), "cost_usd": _cost(rows, weak)},
        "strong": {"name": strong, "mean": float(np.mean([row.scores[strong] for row in rows])), "cost_usd": _cost(rows, strong)},
        "results": {name: {"auroc": _plain(pair[0]), "apgr": _plain(pair[1])} for name, pair in results.items()},
        "verdict": verdict(results),
    }  # fmt: skip


def _plain(measured: Measured) -> dict[str, float]:
    return {"value": measured.value, "low": measured.low, "high": measured.high}


def _cost(rows: Sequence[Row], model: str) -> float | None:
    """Mean for a prompt, where the table tells it."""
    costs = [row.costs_usd[model] for row in rows if model in row.costs_usd]
    return float(np.mean(costs)) if costs else None


def verdict(results: dict[str, tuple[Measured, Measured]]) -> list[str]:
    """What may be said, and no more."""
    length, said = results["prompt length"][0], list[str]()
    for name, (ranked, _) in results.items():
        if name in ("prompt length", "shuffled control") or name.startswith("- its"):
            continue
        if ranked.low <= 0.5:
            said.append(f"{name}: not shown to be better than chance")
        elif not ranked.exceeds(length):
            said.append(f"{name}: better than chance, not shown to be better than prompt length")
        else:
            said.append(f"{name}: better than chance and than prompt length")
    return said


def show(report: dict[str, object]) -> None:
    weak, strong = report["weak"], report["strong"]
    print(f"{report['prompts']:,} prompts; weak {_model(weak)}, strong {_model(strong)}\n")
    print("| estimator | AUROC [95%] | APGR [95%] |\n|---|---:|---:|")
    for name, pair in report["results"].items():
        print(f"| {name} | {Measured(**pair['auroc'])} | {Measured(**pair['apgr'])} |")
    print()
    for line in report["verdict"]:
        print(f"- {line}")


def _model(model: dict[str, object]) -> str:
    cost = "" if model["cost_usd"] is None else f", {model['cost_usd']:.6f} USD a prompt"
    return f"{model['name']} (mean score {model['mean']:.3f}{cost})"


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "data",
        nargs="*",
        type=Path,
        metavar="DATA",
        help="CSV, TSV, JSONL or JSON files, or directories of them",
    )
    add("--synthetic", type=int, metavar="N", help="make up N prompts instead of reading DATA")
    add("--weak", help="name of the weak model (default: the worst)")
    add("--strong", help="name of the strong model (default: the best)")
    add("--prompt-column", help="column with the text (default: prompt, text, question, ...)")
    add("--task-column", help="column with the name of the task (default: task, eval_name, ...)")
    add(
        "--models",
        help="columns with scores, comma-separated (default: those with MODEL|total_cost, or all scores)",
    )
    add(
        "--model-column", help="for tables with a row for each prompt and model: column with the model's name"
    )
    add("--score-column", default="score", help="for those: column with the score (default: score)")
    add("--cost-column", default="cost", help="for those: column with the cost (default: cost)")
    add("--sample", type=int, metavar="N", help="take N prompts at random")
    add("--rounds", type=int, default=1000, help="of the bootstrap (default: 1000)")
    add("--seed", type=int, default=0, help="of all draws (default: 0)")
    add("--function", metavar="MODULE:FUNCTION", help="measure this custom estimator too")
    add("--ask", metavar="URL", help="measure a model that is asked at this server too")
    add("--ask-model", default="auto", help="its name (default: auto)")
    add("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if bool(options.data) == bool(options.synthetic):
        parser.error("name either DATA or --synthetic N")
    return options


def main() -> int:
    options = options_of()
    columns = Columns(
        prompt=options.prompt_column,
        task=options.task_column,
        model=options.model_column,
        score=options.score_column,
        cost=options.cost_column,
        models=tuple(name.strip() for name in options.models.split(",")) if options.models else (),
    )
    try:
        rows = (
            synthetic_rows(options.synthetic, options.seed)
            if options.synthetic
            else read_tables(options.data, columns)
        )
        report = run(rows, options)
    except (TableError, EstimatorError, OSError) as error:
        print(f"complexity.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(report))
    else:
        show(report)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
